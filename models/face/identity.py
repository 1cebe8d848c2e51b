"""Whose face it is: measured, as the Face Encoder takes it, and compared with a clip's faces."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, UInt8

from animaray.models.face.landmarks import nearest_face
from animaray.models.networks.animator_config import IdentityInput
from animaray.models.perception.protocols import (
    IdentityEmbedder,
    Perception,
    RawIdentityEmbedder,
)
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceIdentity:
    """What a recogniser says of one face."""

    unit: Float32[np.ndarray, " identity_dim"]
    """Unit vector, for comparisons; zeros where there is no face."""
    raw: Float32[np.ndarray, " identity_dim"] | None = None
    """The network's own output, about 20 long for ArcFace; None of recognisers without one."""

    @classmethod
    def of_nobody(cls, embedder: IdentityEmbedder) -> "FaceIdentity":
        """Return the zeros that the released code takes for a picture without a face."""
        zeros = np.zeros(embedder.embedding_dim, np.float32)
        return cls(unit=zeros, raw=zeros if isinstance(embedder, RawIdentityEmbedder) else None)

    @property
    def is_known(self) -> bool:
        """Whether there is a face."""
        return bool(self.unit.any())

    def of_somebody_else(self, unit: Float32[np.ndarray, " identity_dim"]) -> "FaceIdentity":
        """Return another identity, its raw output as long as this one's.

        Args:
            unit: Unit vector.

        Raises:
            ConfigError: There is no face whose identity it could take the place of.
        """
        if not self.is_known:
            raise ConfigError(
                "A picture taken without a face has no identity to exchange.",
                fix="Leave out no_face, or the other identity.",
            )
        if self.raw is None:
            return replace(self, unit=unit)
        raw = (unit * np.linalg.norm(self.raw)).astype(np.float32)
        return FaceIdentity(unit=unit, raw=raw)

    def face_encoder_input(self, wanted: IdentityInput) -> Float32[np.ndarray, " identity_dim"]:
        """Return what the Face Encoder is given.

        Args:
            wanted: `AnimatorConfig.identity_input`.

        Raises:
            ConfigError: It wants the raw output, and the recogniser has none.
        """
        if wanted == "unit":
            return self.unit
        if self.raw is None:
            raise ConfigError(
                "This model's Face Encoder takes the recogniser's raw output, and only unit "
                "vectors are known.",
                fix="Use the recogniser it was trained with: profile paper.",
            )
        return self.raw


def measure_face(
    embedder: IdentityEmbedder,
    picture_uint8: UInt8[np.ndarray, "height width 3"],
    landmarks: Float32[np.ndarray, "5 2"],
    wanted: IdentityInput = "raw",
) -> FaceIdentity:
    """Embed one face: the unit vector, and the raw output of recognisers that give it.

    Args:
        embedder: The recogniser.
        picture_uint8: RGB.
        landmarks: Of the face, pixels.
        wanted: What a Face Encoder will be given: `raw_bgr` takes the raw output of exchanged
            colours; the unit vector is always of the right ones.
    """
    if not isinstance(embedder, RawIdentityEmbedder):
        return FaceIdentity(unit=embedder.embed(picture_uint8, landmarks))
    raw = embedder.embed_raw(picture_uint8, landmarks)
    unit = raw / max(float(np.linalg.norm(raw)), 1e-12)
    if wanted == "raw_bgr":
        raw = embedder.embed_raw(picture_uint8, landmarks, "bgr")
    return FaceIdentity(unit=unit, raw=raw)


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


def mean_similarity(similarity: Float[np.ndarray, " frames"]) -> tuple[float | None, int]:
    """Return the mean over the frames that show a face (NaN elsewhere), and how many do not."""
    has_face = np.isfinite(similarity)
    mean = float(similarity[has_face].mean()) if has_face.any() else None
    return mean, int((~has_face).sum())
