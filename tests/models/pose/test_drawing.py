import cv2
import numpy as np
import pytest

from animaray.models.pose.drawing import (
    WholeBody,
    draw_people,
    draw_pose,
    draw_pose_clip,
    pose_images_to_tensor,
)
from animaray.models.pose.layouts import PALETTE


def people_of(tensors, points, source, size):
    """Return the persons of one golden picture; `points` and `source` are key prefixes."""
    scores, hands_scores = tensors[f"{source}.bodies_score"], tensors[f"{source}.hands_score"]
    bodies = tensors[f"{points}.bodies_candidate"].reshape(-1, 18, 2) * size
    hands = tensors[f"{points}.hands"].reshape(-1, 2, 21, 2) * size
    return [
        WholeBody(
            body=bodies[person],
            body_confidence=scores[person],
            hands=hands[person],
            hands_confidence=hands_scores.reshape(-1, 2, 21)[person],
            face=tensors[f"{points}.faces"][person] * size,
            face_confidence=tensors[f"{source}.faces_score"][person],
        )
        for person in range(len(scores))
    ]


@pytest.mark.parametrize(
    ("points", "source", "file"),
    [
        *((f"aligned{i}", f"drv{i}", f"drawn_aligned{i}.png") for i in range(4)),
        ("drv0", "drv0", "drawn_unaligned_drv0.png"),
    ],
)
def test_equals_the_published_drawing(golden, golden_data, points, source, file):
    config, tensors, _ = golden("pose_align_draw")
    height, width = config["config"]["ref_hw"]
    tensors = {key: value.numpy() for key, value in tensors.items()}
    people = people_of(tensors, points, source, np.array([width, height]))
    drawn = draw_people(people, width, height)
    expected = cv2.imread(str(golden_data / "pose_align_draw" / file))[..., ::-1]
    # OpenCV 4 and 5 differ in one pixel of one of these pictures.
    assert (drawn != expected).any(axis=-1).sum() <= (1 if file == "drawn_aligned3.png" else 0)


def standing(width, height):
    points = np.full((18, 2), 0.5) * [width, height]
    points[1] = 0.5 * width, 0.2 * height
    points[8] = 0.5 * width, 0.8 * height
    return points.astype(np.float32)


def only(*indices):
    confidence = np.zeros(18, np.float32)
    confidence[list(indices)] = 1
    return confidence


@pytest.mark.parametrize("style", ["bold", "published"])
def test_limb_and_ends_have_their_colours(style):
    # Limb 6 joins neck and right hip; limbs are dimmed to 60 %.
    size = 400
    drawn = draw_pose(standing(size, size), only(1, 8), size, size, style)
    limb = np.array(PALETTE[6]) * 0.6
    assert np.abs(drawn[size // 2, size // 2] - limb).max() <= 2
    assert np.abs(drawn[size // 5, size // 2].astype(int) - PALETTE[1]).max() <= 40
    assert np.abs(drawn[4 * size // 5, size // 2].astype(int) - PALETTE[8]).max() <= 40


def test_small_pictures_keep_unbroken_limbs():
    drawn = draw_pose(standing(192, 192), only(1, 8), 192, 192)
    column = drawn[45:150, 94:99].max(axis=(1, 2))
    assert (column > 100).all()


def test_unseen_keypoints_are_not_drawn():
    assert draw_pose(standing(64, 64), np.full(18, 0.2, np.float32), 64, 64).max() == 0


def test_keypoints_outside_the_picture_do_no_harm():
    points = standing(64, 64) * 50 - 1000
    assert draw_pose(points, np.ones(18, np.float32), 64, 64).shape == (64, 64, 3)


def test_clip_is_drawn_frame_by_frame():
    points, confidence = standing(64, 48), only(1, 8)
    clip = draw_pose_clip(np.stack([points, points + 5]), np.stack([confidence] * 2), 64, 48)
    assert clip.shape == (2, 48, 64, 3)
    assert np.array_equal(clip[0], draw_pose(points, confidence, 64, 48))
    tensor = pose_images_to_tensor(clip)
    assert tensor.shape == (2, 3, 48, 64)
    assert tensor.min().item() == -1
