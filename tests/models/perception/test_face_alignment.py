import cv2
import numpy as np
import pytest
import torch

from animaray.models.perception.face_alignment import (
    align_face,
    similarity_from_landmarks,
    warp_crop,
)
from animaray.models.perception.face_sampling import align_frames
from animaray.platform.errors import FaceError

TEMPLATE = np.array([[30, 52], [66, 52], [48, 72], [34, 92], [63, 92]], dtype=np.float32)


def similarity(scale: float, angle: float, x: float, y: float) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, x], [sine, cosine, y]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def smooth_picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX).astype(
        np.uint8
    )


def test_similarity_is_recovered_exactly():
    true = similarity(0.37, -0.6, 12.0, -5.0)
    inverse = cv2.invertAffineTransform(true)
    landmarks = apply(inverse, TEMPLATE.astype(np.float64))
    found = similarity_from_landmarks(landmarks, TEMPLATE.astype(np.float64))
    np.testing.assert_allclose(found, true, atol=1e-9)


def test_similarity_never_mirrors():
    mirrored = TEMPLATE * np.array([-1, 1], dtype=np.float32)
    assert np.linalg.det(similarity_from_landmarks(mirrored, TEMPLATE)[:, :2]) > 0


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(3)
    landmarks = TEMPLATE.astype(np.float64) * 2 + rng.normal(0, 4, (5, 2))
    found = similarity_from_landmarks(landmarks, TEMPLATE.astype(np.float64))

    def cost(matrix: np.ndarray) -> float:
        return float(((apply(matrix, landmarks) - TEMPLATE) ** 2).sum())

    for _ in range(50):
        nudge = rng.normal(0, 1e-3, 4)
        a, b = found[0, 0] + nudge[0], found[1, 0] + nudge[1]
        other = np.array([[a, -b, found[0, 2] + nudge[2]], [b, a, found[1, 2] + nudge[3]]])
        assert cost(found) <= cost(other)


def test_bad_landmarks_are_refused():
    with pytest.raises(FaceError, match="fall into one point"):
        similarity_from_landmarks(np.ones((5, 2)), TEMPLATE.astype(np.float64))
    with pytest.raises(FaceError, match="finite"):
        similarity_from_landmarks(np.full((5, 2), np.nan), TEMPLATE.astype(np.float64))


def test_face_that_already_fits_is_cut_out_as_it_is():
    frame = smooth_picture(200, 180)
    # Landmarks at template + (20, 30): the crop is the frame's window from (20, 30).
    crop = align_face(frame, TEMPLATE + np.array([20, 30], dtype=np.float32), TEMPLATE, 112, 96)
    assert np.abs(crop.astype(int) - frame[30:142, 20:116]).max() <= 1


def test_outside_the_frame_is_black():
    frame = np.full((50, 50, 3), 200, dtype=np.uint8)
    crop = align_face(frame, TEMPLATE - 40, TEMPLATE, 112, 96)
    assert crop[:30, :30].max() == 0
    tensor = torch.full((1, 3, 50, 50), 0.5)
    crops = align_frames(tensor, torch.from_numpy(TEMPLATE - 40)[None], TEMPLATE, (112, 96))
    assert crops[0, :, :30, :30].eq(-1).all()


def test_large_faces_are_averaged_not_aliased():
    # A one-pixel checkerboard at 8 times the crop's size has mean 127.5 and must come out grey.
    frame = np.indices((900, 900)).sum(0) % 2 * 255
    frame = np.repeat(frame[..., None], 3, axis=2).astype(np.uint8)
    crop = align_face(frame, TEMPLATE * 8, TEMPLATE, 112, 96)
    assert np.abs(crop[5:-5, 5:-5].astype(float) - 127.5).max() <= 2


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.6, 4.3])
def test_tensor_crops_equal_the_uint8_crops(scale):
    frame = smooth_picture(700, 640)
    landmarks = apply(similarity(scale, 0.3, 90, 60), TEMPLATE).astype(np.float32)
    expected = align_face(frame, landmarks, TEMPLATE, 112, 96)
    frames = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
    crops = align_frames(frames, torch.from_numpy(landmarks)[None], TEMPLATE, (112, 96))
    found = (crops[0].permute(1, 2, 0).numpy() + 1) * 127.5
    # OpenCV rounds sampling places to 1/32 px and values to integers.
    assert np.abs(found - expected).mean() < 1.0
    assert np.abs(found - expected).max() < 6.0


def test_frames_with_faces_of_several_sizes_keep_their_order():
    frame = smooth_picture(500, 500)
    frames = torch.from_numpy(frame).permute(2, 0, 1)[None].float().repeat(3, 1, 1, 1) / 127.5 - 1
    points = torch.stack([torch.from_numpy(TEMPLATE) * scale + 10 for scale in (3.0, 1.0, 3.0)])
    crops = align_frames(frames, points, TEMPLATE, (112, 96))
    alone = align_frames(frames[:1], points[1:2], TEMPLATE, (112, 96))
    torch.testing.assert_close(crops[1], alone[0])
    torch.testing.assert_close(crops[0], crops[2])
    assert not torch.allclose(crops[0], crops[1])


def test_gradient_reaches_the_face_and_nothing_else():
    frames = torch.zeros(1, 3, 300, 300, requires_grad=True)
    points = torch.from_numpy(TEMPLATE + 100)[None]
    align_frames(frames, points, TEMPLATE, (112, 96)).sum().backward()
    touched = frames.grad[0, 0] != 0
    assert touched[100:212, 100:196].all()
    assert not touched[:99].any()
    assert not touched[:, :99].any()


def test_warp_crop_turns_and_scales():
    frame = np.zeros((40, 40, 3), dtype=np.uint8)
    frame[10, 30] = 255
    # Quarter turn clockwise about (20, 20): (30, 10) -> (30, 30).
    matrix = similarity(1.0, np.pi / 2, 40.0, 0.0)
    crop = warp_crop(frame, matrix, 40, 40)
    assert np.argwhere(crop[..., 0] == 255).tolist() == [[30, 30]]
