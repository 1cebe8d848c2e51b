import json
from dataclasses import replace

import numpy as np
import pytest

from animaray.models.pose.layouts import FACE, FEET, LEFT_HAND, NUM_FURTHER_POINTS, RIGHT_HAND
from animaray.models.subjects.choice import PersonChoice
from animaray.models.subjects.motion import Motion
from animaray.models.subjects.pose_files import read_pose_file, write_pose_file
from animaray.platform.errors import PersonChoiceError, PoseError, UsageError


def make_motion(offset=0.0, num_frames=3):
    rng = np.random.default_rng(int(offset))
    return Motion(
        keypoints=(rng.uniform(5, 60, (num_frames, 18, 2)) + offset).astype(np.float32),
        keypoint_confidence=rng.uniform(0.4, 1, (num_frames, 18)).astype(np.float32),
        width_px=320,
        height_px=240,
        is_filled=np.arange(num_frames) == 1,
    )


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    motions = [make_motion(), make_motion(100.0)]
    path = tmp_path / f"poses.{suffix}"
    write_pose_file(path, motions, 12.5)
    clip = read_pose_file(path)
    assert clip.fps == 12.5
    for motion, again in zip(motions, clip.motions, strict=True):
        assert np.allclose(again.keypoints, motion.keypoints, atol=1e-3)
        assert np.allclose(again.keypoint_confidence, motion.keypoint_confidence, atol=1e-4)
        assert np.array_equal(again.is_filled, motion.is_filled)
        assert (again.width_px, again.height_px, again.num_persons) == (320, 240, 2)
    # The file's own order says who is the main person; others can be named.
    assert clip.choose() == [0]
    assert clip.choose(option="--person") == [0]
    assert clip.choose([PersonChoice.parse("right")]) == [1]
    assert len(clip.motions[0].first(2).keypoints) == 2


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_hands_and_faces_are_written_and_read_again(tmp_path, suffix):
    rng = np.random.default_rng(3)
    motion = replace(
        make_motion(),
        further_points=rng.random((3, NUM_FURTHER_POINTS, 3)).astype(np.float32),
        is_alone=np.array([True, False, True]),
    )
    path = tmp_path / f"poses.{suffix}"
    write_pose_file(path, [motion], 8.0)
    (again,) = read_pose_file(path).motions
    assert np.allclose(again.further_points, motion.further_points, atol=1e-3)
    assert again.is_alone.tolist() == [True, False, True]


def test_hands_and_faces_of_openpose_are_read(tmp_path):
    def part(value, count):
        return [*np.tile([value, value + 1, 0.5], (count, 1)).ravel().tolist()]

    seen = person(10, 20, points=25)
    seen |= {"hand_left_keypoints_2d": part(30, 21), "face_keypoints_2d": part(40, 70)}
    blind = {**seen, "hand_left_keypoints_2d": None, "hand_right_keypoints_2d": []}
    frames = [{"people": [each], "canvas_width": 99, "canvas_height": 99} for each in (seen, blind)]
    path = tmp_path / "openpose.json"
    path.write_text(json.dumps(frames))
    (motion,) = read_pose_file(path).motions
    further = motion.further_points
    assert further[0, LEFT_HAND].tolist() == [[30, 31, 0.5]] * 21
    assert further[:, FACE, 0].tolist() == [[40] * 68] * 2
    assert (further[1, LEFT_HAND] == 0).all()
    assert (further[:, RIGHT_HAND] == 0).all()
    # BODY_25's last six points are the feet, left first.
    assert further[0, FEET, 0].tolist() == [10 + index for index in range(19, 25)]
    assert motion.is_alone.tolist() == [True, True]
    for frame in frames:
        frame["people"][0] |= {"hand_left_keypoints_2d": [], "face_keypoints_2d": []}
    path.write_text(json.dumps(frames))
    assert read_pose_file(path).motions[0].further_points is None  # nobody looked


def person(x, y, confidence=0.9, points=18):
    values = np.tile([x, y, confidence], (points, 1))
    values[:, 0] += np.arange(points)
    values[:, 1] += 2 * np.arange(points)
    return {"pose_keypoints_2d": values.ravel().tolist()}


def test_a_folder_of_openpose_files_is_read_in_the_order_of_its_numbers(tmp_path):
    for index in (0, 2, 10):
        people = {"version": 1.3, "people": [person(10 + index, 20, points=25)]}
        (tmp_path / f"clip_{index}_keypoints.json").write_text(json.dumps(people))
    clip = read_pose_file(tmp_path, size_px=(100, 90))
    (motion,) = clip.motions
    assert clip.fps is None
    assert motion.keypoints[:, 0, 0].tolist() == [10, 12, 20]
    # BODY_25's point 8 is the middle hip, which the 18 points do not have.
    assert motion.keypoints[0, :, 0].tolist() == [10 + i for i in [*range(8), *range(9, 19)]]
    with pytest.raises(UsageError, match="--driving-size"):
        read_pose_file(tmp_path)


def test_a_list_of_frames_with_shares_of_the_canvas_is_read(tmp_path):
    frames = [
        {"people": [person(0.0, 0.0, 0.0)], "canvas_width": 200, "canvas_height": 100}
        for _ in range(4)
    ]
    for index, frame in enumerate(frames[:3]):
        values = np.tile([0.25, 0.5, 0.8], (18, 1))
        values[:9, 1] = 0.1 * index
        frame["people"] = [{"pose_keypoints_2d": values.ravel().tolist()}]
    path = tmp_path / "dw.json"
    path.write_text(json.dumps(frames))
    (motion,) = read_pose_file(path).motions
    assert motion.keypoints[0, 10].tolist() == [50, 50]
    assert motion.keypoints[2, 0].tolist() == pytest.approx([50, 20])
    # A person of the last frame whose points all lack confidence is nobody.
    assert motion.is_filled.tolist() == [False, False, False, True]


def test_several_people_of_openpose_have_to_be_chosen(tmp_path):
    frame = {
        "people": [person(10, 10), person(120, 12)], "canvas_width": 200, "canvas_height": 100,
    }  # fmt: skip
    path = tmp_path / "two.json"
    path.write_text(json.dumps([frame] * 3))
    clip = read_pose_file(path)
    with pytest.raises(PersonChoiceError, match="2 people are visible in the pose file"):
        clip.choose(option="--person")
    (right,) = clip.choose([PersonChoice.parse("right")])
    assert clip.motions[right].keypoints[0, 0, 0] == 120


GOOD = {
    "format": "animaray-poses", "version": 1, "fps": 8.0, "width_px": 64, "height_px": 48,
    "people": [{
        "keypoints": np.zeros((2, 18, 2)).tolist(),
        "keypoint_confidence": np.ones((2, 18)).tolist(),
        "is_filled": [False, False],
    }],
}  # fmt: skip


def test_the_good_form_of_the_next_test_is_good(tmp_path):
    path = tmp_path / "poses.json"
    path.write_text(json.dumps(GOOD))
    assert len(read_pose_file(path).motions) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "neither"),
        (json.dumps({**GOOD, "version": 3}), "version 3"),
        (
            json.dumps({**GOOD, "people": [{**GOOD["people"][0], "further_points": [[[1, 2]]]}]}),
            r"\(people, frames, 116, 3\)",
        ),
        (
            json.dumps({**GOOD, "people": [{**GOOD["people"][0], "is_alone": [True]}]}),
            "is_alone does not fit",
        ),
        (
            json.dumps([{"people": [{**person(1, 1), "face_keypoints_2d": [1.0] * 30}]}]),
            "`face_keypoints_2d` has 10 points, expected 68",
        ),
        (json.dumps({**GOOD, "people": 3}), "`people` must be a list"),
        (json.dumps({**GOOD, "people": []}), r"\(people, frames, 18, 2\)"),
        (json.dumps({**GOOD, "fps": None}), "missing or of the wrong kind"),
        (json.dumps({**GOOD, "fps": 0}), "must be positive"),
        (
            json.dumps({**GOOD, "people": [{**GOOD["people"][0], "is_filled": [True]}]}),
            "do not fit",
        ),
        (
            json.dumps(
                {**GOOD, "people": [{**GOOD["people"][0], "keypoint_confidence": [[2.0] * 18] * 2}]}
            ),
            "within 0 and 1",
        ),
        (json.dumps({"people": [{"pose_keypoints_2d": [1, 2]}]}), "is missing or odd|18 or 25"),
        (json.dumps([{"people": [{"pose_keypoints_2d": [1.0] * 30}]}]), "18 or 25"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, content, message):
    path = tmp_path / "poses.json"
    path.write_text(content)
    with pytest.raises(PoseError, match=message) as caught:
        read_pose_file(path, size_px=(64, 48))
    assert caught.value.reason == "bad_pose_file"


def test_pickles_and_other_names_are_refused(tmp_path):
    path = tmp_path / "poses.npz"
    np.savez(path, format=np.array({"a": 1}, dtype=object))
    with pytest.raises(PoseError, match="no readable NPZ"):
        read_pose_file(path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(PoseError, match="no readable NPZ"):
        read_pose_file(path)
    with pytest.raises(UsageError, match=r"\.json or \.npz"):
        write_pose_file(tmp_path / "poses.txt", [make_motion()], 8.0)
    with pytest.raises(UsageError, match="There is no file"):
        read_pose_file(tmp_path / "none.json")
