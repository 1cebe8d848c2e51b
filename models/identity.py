"""Measure how much the faces of a clip look like the reference, with the recogniser."""

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.diffusion.face_landmarks import nearest_face
from animaray.models.frozen.protocols import Perception


def measure_identity(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    perception: Perception,
    reference_embedding: Float32[np.ndarray, " identity_dim"],
    keypoints: Float32[np.ndarray, "frames 18 2"],
) -> Float32[np.ndarray, " frames"]:
    """Return each frame's cosine to the reference identity, NaN where no face is found.

    Args:
        frames_uint8: RGB frames.
        perception: Detector and recogniser.
        reference_embedding: Unit vector.
        keypoints: Of several faces, the one nearest to keypoint 0 (the nose) counts.
    """
    similarity = np.full(len(frames_uint8), np.nan, np.float32)
    for index, frame in enumerate(frames_uint8):
        face = nearest_face(perception.face_detector.detect(frame), keypoints[index, 0])
        if face is not None:
            embedding = perception.identity_embedder.embed(frame, face.landmarks)
            similarity[index] = float(embedding @ reference_embedding)
    return similarity
