"""Captions over the person of a photo stay where they are."""

import cv2
import numpy as np
import pytest

from animaray.datasets.world.clips import render_clip, render_matte, sample_clip_spec
from animaray.models.parts.body_mode import BodyPuppet
from animaray.models.parts.captions import captions_over, without
from animaray.models.parts.keypoint_puppet import landmarks_of_keypoints
from animaray.models.parts.landmarks import TargetPose
from animaray.models.perception.protocols import TextLine
from animaray.models.pose.body_pose import BodyPose


def line(left: float, right: float, words: str = "SOAP", score: float = 0.99) -> TextLine:
    corners = np.array([[left, 50], [right, 50], [right, 80], [left, 80]], np.float32)
    return TextLine(corners=corners, words=words, score=score)


@pytest.fixture
def written() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ground = np.full((120, 240, 3), 90, np.uint8)
    drawn = np.zeros((120, 240), np.uint8)
    cv2.putText(drawn, "SOAP", (20, 75), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 3)
    picture = np.where(drawn[..., None] > 0, np.uint8(240), ground)
    return picture, drawn > 0, ground


def test_letters_half_over_the_person_are_found(written):
    picture, drawn, ground = written
    alpha = np.zeros(drawn.shape, np.float32)
    alpha[:, 60:] = 1.0  # half of the line covers the person
    letters = captions_over([line(15, 110)], picture, alpha)
    assert (letters & drawn).sum() > 0.9 * drawn.sum()
    assert letters.mean() < 0.2  # letters, not the whole box
    left = np.abs(without(picture, letters).astype(int) - ground).mean()
    assert left < 0.25 * np.abs(picture.astype(int) - ground).mean()


@pytest.mark.parametrize(
    ("first_column", "kind"),
    [(0, {}), (130, {}), (60, {"score": 0.5}), (60, {"words": "S"})],
    ids=["printed on the person", "beside the person", "doubtful", "one letter"],
)
def test_other_writing_is_none(written, first_column, kind):
    picture, drawn, _ = written
    alpha = np.zeros(drawn.shape, np.float32)
    alpha[:, first_column:] = 1.0
    assert not captions_over([line(15, 110, **kind)], picture, alpha).any()


def test_letters_stay_and_the_body_moves_beneath_them():
    spec = sample_clip_spec(
        3_000_002, num_frames=1, size=(192, 192), camera_kind="static", framing="half"
    )
    clip = render_clip(spec)
    truth = clip.truth.frames[0].persons[0]
    person = landmarks_of_keypoints(
        BodyPose(keypoints=truth.keypoints, confidence=truth.keypoint_visible.astype(float))
    )
    picture = clip.frames_uint8[0].copy()
    letters = np.zeros(picture.shape[:2], np.uint8)
    cv2.putText(letters, "SOAP", (30, 150), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 255, 4)
    picture[letters > 0] = (250, 20, 200)
    alpha = render_matte(spec, 0).astype(np.float32) / 255.0
    puppet = BodyPuppet(picture, person, alpha, captions=letters > 0, moves_face=False)
    moved = puppet.render(TargetPose(body=person.body + np.array([14.0, 0.0, 0.0]), face=None))
    assert (moved[letters > 0] == (250, 20, 200)).all()
    colour = np.abs(moved.astype(int) - (250, 20, 200)).max(axis=2) < 30
    assert colour.sum() < 1.1 * (letters > 0).sum()  # no copy walks with the body
