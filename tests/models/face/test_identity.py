import numpy as np
import pytest

from animaray.models.face.identity import measure_identity


def test_equal_faces_have_similarity_one_and_none_is_nan(marker_perception, marker_picture):
    red, blue = marker_picture(), marker_picture(colour=(40, 40, 255))
    face = marker_perception.face_detector.detect(red)[0]
    embedding = marker_perception.identity_embedder.embed(red, face.landmarks)
    frames = np.stack([red, blue, np.zeros_like(red)])
    keypoints = np.zeros((3, 18, 2), np.float32)
    similarity = measure_identity(frames, marker_perception, embedding, keypoints)
    assert similarity[0] == pytest.approx(1, abs=1e-4)
    assert similarity[1] < 0.8
    assert np.isnan(similarity[2])
