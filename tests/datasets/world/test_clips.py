"""Generated clips: the same seed gives the same pixels, and the truth lies on the figure."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from animaray.datasets.world.clips import (
    CAMERA_KINDS,
    MOTION_KINDS,
    render_clip,
    render_still,
    sample_clip_spec,
)
from animaray.datasets.world.people import sample_person
from animaray.datasets.world.truth import ClipTruth
from animaray.platform.errors import ConfigError

SIZE = (192, 192)


def test_equal_specs_give_equal_pixels_and_other_seeds_do_not() -> None:
    spec = sample_clip_spec(3, num_frames=3, size=SIZE)
    first, again = render_clip(spec), render_clip(spec)
    assert np.array_equal(first.frames_uint8, again.frames_uint8)
    other = render_clip(sample_clip_spec(4, num_frames=3, size=SIZE))
    assert not np.array_equal(first.frames_uint8, other.frames_uint8)


def test_outfit_seed_changes_clothes_and_not_the_face() -> None:
    first, second = sample_person(5, outfit_seed=1), sample_person(5, outfit_seed=2)
    assert first.face == second.face
    assert first.body == second.body
    assert first.outfit != second.outfit
    assert sample_person(6).face != first.face


@pytest.mark.parametrize("kind", MOTION_KINDS)
def test_visible_keypoints_are_inside_the_frame(kind: str) -> None:
    spec = sample_clip_spec(7, motion_kind=kind, num_frames=4, fps=2.0, size=SIZE, framing="full")
    for frame in render_clip(spec).truth.frames:
        person = frame.persons[0]
        seen = person.keypoints[person.keypoint_visible]
        assert len(seen) >= 8
        assert (seen >= 0).all()
        assert (seen < 192).all()


def test_the_figure_changes_pixels_at_its_keypoints_only() -> None:
    spec = sample_clip_spec(11, num_frames=1, size=SIZE, framing="full", motion_kind="idle")
    shown = render_clip(spec)
    # The empty scene needs the same stage: a person's height sets the scale.
    empty = render_clip(replace(spec, person_seeds=()))
    person = shown.truth.frames[0].persons[0]
    difference = np.abs(shown.frames_uint8[0].astype(int) - empty.frames_uint8[0].astype(int)).sum(
        axis=2
    )
    body = person.keypoints[[1, 2, 5, 8, 11]].round().astype(int)
    assert (difference[body[:, 1], body[:, 0]] > 40).mean() >= 0.8


def test_face_truth_is_consistent() -> None:
    for seed in range(6):
        _, truth = render_still(sample_person(seed), seed=seed, framing="close", size=SIZE)
        face = truth.persons[0]
        if not face.face_visible:
            continue
        left, top, right, bottom = face.face_box
        inside = (face.landmarks >= [left, top]).all() and (face.landmarks <= [right, bottom]).all()
        assert inside
        assert face.landmarks[0, 0] < face.landmarks[1, 0]  # eyes, from left to right
        assert face.landmarks[3, 1] > face.landmarks[0, 1]  # the mouth is below the eyes


def test_truth_of_a_pan_is_the_measured_background_motion() -> None:
    spec = sample_clip_spec(
        13, person_seeds=(), camera_kind="pan", scene_kind="library", num_frames=9, size=SIZE
    )
    clip = render_clip(spec)
    first, last = (
        cv2.cvtColor(clip.frames_uint8[i], cv2.COLOR_RGB2GRAY).astype(np.float32) for i in (0, 8)
    )
    (dx, dy), _ = cv2.phaseCorrelate(first, last, cv2.createHanningWindow(SIZE, cv2.CV_32F))
    start, end = clip.truth.frames[0].camera, clip.truth.frames[8].camera
    moved = np.array([end.dx_px - start.dx_px, end.dy_px - start.dy_px])
    assert np.abs(moved).max() > 2.0
    assert np.abs(np.array([dx, dy])) == pytest.approx(np.abs(moved), abs=1.5)


def test_a_cut_shows_another_person_in_another_place() -> None:
    clip = render_clip(sample_clip_spec(17, effects=("cut",), num_frames=6, size=SIZE))
    (cut,) = clip.truth.cuts
    ids = [frame.persons[0].person_id for frame in clip.truth.frames]
    assert ids[cut - 1] != ids[cut]
    assert (clip.truth.verdict, clip.truth.reason) == ("drop", "shot_cut")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"effects": ("dark",)}, "dark"),
        ({"effects": ("blur",)}, "blur"),
        ({"camera_kind": "zoom"}, "camera_motion"),
        ({"person_seeds": ()}, "no_person"),
        ({"person_seeds": (1, 2)}, "several_persons"),
        ({"yaw_offset_rad": float(np.pi)}, "no_face"),
    ],
)
def test_flaws_are_told_in_the_truth(changes: dict[str, object], reason: str) -> None:
    spec = sample_clip_spec(19, num_frames=2, size=SIZE, camera_kind="static")
    clip = render_clip(replace(spec, **changes))  # type: ignore[arg-type]
    assert (clip.truth.verdict, clip.truth.reason) == ("drop", reason)


def test_truth_survives_json() -> None:
    truth = render_clip(sample_clip_spec(23, num_frames=2, size=SIZE)).truth
    again = ClipTruth.from_json(truth.to_json())
    assert again.to_json() == truth.to_json()
    assert again.frames[1].persons[0].keypoints == pytest.approx(
        truth.frames[1].persons[0].keypoints, abs=0.01
    )


def test_unknown_names_and_too_many_people_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected camera_kind out of"):
        sample_clip_spec(1, camera_kind="orbit")
    with pytest.raises(ConfigError, match="at most 3 person_seeds, got 4"):
        sample_clip_spec(1, person_seeds=(1, 2, 3, 4))
    assert "orbit" not in CAMERA_KINDS
