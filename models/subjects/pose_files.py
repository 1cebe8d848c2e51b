"""Pose files: the motion of a driving video without its pictures, to look at, edit and use again.

Our own form, version 2, as JSON or NPZ (by the file's suffix). `people` are the motions, the main
one first; keypoints are pixels, x right, y down, in OpenPose order of 18 (models/pose/layouts.py).
`further_points` (feet, face, hands in the order of the same file) and `is_alone` (frames that show
nobody else) may be left out; version 1, which has neither, is read, too.

JSON    {"format": "animaray-poses", "version": 2, "fps": 25.0, "width_px": 640, "height_px": 480,
         "people": [{"keypoints": [[[x, y], 18 of them], frames of them],
                     "keypoint_confidence": [[c, 18 of them], frames of them],
                     "is_filled": [false, frames of them],
                     "further_points": [[[x, y, c], 116 of them], frames of them],
                     "is_alone": [true, frames of them]}]}
NPZ     format, version, fps, width_px, height_px as scalars; keypoints (people, frames, 18, 2),
        keypoint_confidence (people, frames, 18), is_filled (people, frames), further_points
        (people, frames, 116, 3), is_alone (people, frames)

OpenPose's JSON is read too (models/subjects/pose_files_openpose.py). Nothing here unpickles.
"""

import io
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.layouts import NUM_FURTHER_POINTS
from animaray.models.subjects.choice import PersonChoice, choose_people
from animaray.models.subjects.motion import Motion
from animaray.models.subjects.pose_files_openpose import OpenPoseClip, is_openpose, read_openpose
from animaray.models.subjects.tracks import seen_person
from animaray.platform.errors import PoseError, UsageError
from animaray.platform.json_text import json_text
from animaray.platform.media.file_kind import POSE_SUFFIXES
from animaray.platform.storage import write_bytes_atomic

FORMAT, VERSION = "animaray-poses", 2
_READ_VERSIONS = (1, 2)
MAX_FILE_BYTES = 512 * 1024**2
_SCALARS = ("format", "version", "fps", "width_px", "height_px")
_ARRAYS = ("keypoints", "keypoint_confidence", "is_filled")
_OPTIONAL_DIGITS = {"further_points": 3, "is_alone": None}
"""Arrays that may be left out, and decimals of their numbers in JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseClip:
    """What a pose file holds."""

    motions: tuple[Motion, ...]
    """One per person."""
    fps: float | None
    """Frame rate; None where the file does not tell."""
    is_chosen: bool
    """True where the file's order says who the main person is."""

    def choose(
        self, choices: Sequence[PersonChoice] = (), *, option: str | None = None
    ) -> list[int]:
        """Return the places in `motions` of those chosen; arguments as in `PeopleInVideo`."""
        if self.is_chosen and not choices:
            return [0]
        seen = [seen_person(PersonPose.of_frame(motion, 0)) for motion in self.motions]
        return choose_people(
            seen,
            choices,
            height_px=self.motions[0].height_px,
            where="the pose file",
            option=option,
        )


def write_pose_file(path: Path, motions: Sequence[Motion], fps: float) -> None:
    """Write motions of one driving video, atomically, in the form that the suffix names.

    Args:
        path: Ends in .json or .npz.
        motions: The main person first.
        fps: Frame rate.

    Raises:
        UsageError: The suffix is another one.
    """
    check_pose_file_name(path)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "fps": fps,
        "width_px": motions[0].width_px,
        "height_px": motions[0].height_px,
    }
    if path.suffix.lower() == ".json":
        people = [
            {
                "keypoints": _rounded(motion.keypoints, 3),
                "keypoint_confidence": _rounded(motion.keypoint_confidence, 4),
                "is_filled": motion.is_filled.tolist(),
                **{
                    name: _rounded(values, digits)
                    for name, digits in _OPTIONAL_DIGITS.items()
                    if (values := getattr(motion, name)) is not None
                },
            }
            for motion in motions
        ]
        write_bytes_atomic(path, json_text({**head, "people": people}).encode())
        return
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array(value) for name, value in head.items()}
    for name in (*_ARRAYS, *_OPTIONAL_DIGITS):
        values = [getattr(motion, name) for motion in motions]
        if all(each is not None for each in values):
            arrays[name] = np.stack(values)
    np.savez_compressed(buffer, **arrays)
    write_bytes_atomic(path, buffer.getvalue())


def check_pose_file_name(path: Path) -> None:
    """Refuse a name under which no pose file can be written.

    Raises:
        UsageError: The suffix is neither .json nor .npz.
    """
    if path.suffix.lower() not in POSE_SUFFIXES:
        raise UsageError(f"A pose file ends in .json or .npz, got {path.name}.")


def read_pose_file(path: Path, *, size_px: tuple[int, int] | None = None) -> PoseClip:
    """Read a pose file of ours or of OpenPose.

    Args:
        path: A .json or .npz file, or a folder of OpenPose's one-frame files.
        size_px: Width and height of the driving picture, where the file does not tell.

    Raises:
        UsageError: There is no such file, or it does not tell the picture's size.
        PoseError: The file is damaged or of another form; `reason` is bad_pose_file.
    """
    if path.is_dir():
        return _from_openpose(read_openpose(path, size_px))
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    if path.stat().st_size > MAX_FILE_BYTES:
        _refuse(path, f"it has more than {MAX_FILE_BYTES // 1024**2} MiB")
    if path.suffix.lower() == ".npz":
        return _parsed(path, _read_npz(path))
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        _refuse(path, f"it is not JSON ({error})")
    if is_openpose(document):
        return _from_openpose(read_openpose(path, size_px, document))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        _refuse(path, f'it is neither "{FORMAT}" nor OpenPose\'s JSON')
    people = document.get("people")
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        _refuse(path, "`people` must be a list of objects")
    columns = {
        name: [person.get(name) for person in people]
        for name in (*_ARRAYS, *_OPTIONAL_DIGITS)
        if name in _ARRAYS or any(name in person for person in people)
    }
    return _parsed(path, {**document, **columns})


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            known = (*_SCALARS, *_ARRAYS, *_OPTIONAL_DIGITS)
            values = {name: archive[name] for name in known if name in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        _refuse(path, f"it is no readable NPZ ({error})")
    scalars = {name: value.item() for name, value in values.items() if value.ndim == 0}
    if scalars.get("format") != FORMAT:
        _refuse(path, f"its `format` is not {FORMAT}")
    return {**values, **scalars}


def _parsed(path: Path, data: dict[str, Any]) -> PoseClip:
    if data.get("version") not in _READ_VERSIONS:
        _refuse(path, f"it is version {data.get('version')}, this reads version 1 and {VERSION}")
    try:
        keypoints = np.asarray(data["keypoints"], np.float32)
        confidence = np.asarray(data["keypoint_confidence"], np.float32)
        is_filled = np.asarray(data["is_filled"], bool)
        further, alone = (
            None if data.get(name) is None else np.asarray(data[name], kind)
            for name, kind in (("further_points", np.float32), ("is_alone", bool))
        )
        fps, width, height = (float(data[name]) for name in ("fps", "width_px", "height_px"))
    except (KeyError, TypeError, ValueError) as error:
        _refuse(path, f"a field is missing or of the wrong kind ({error})")
    if keypoints.ndim != 4 or keypoints.shape[2:] != (18, 2) or 0 in keypoints.shape:
        _refuse(path, f"keypoints must be (people, frames, 18, 2), got {keypoints.shape}")
    if confidence.shape != keypoints.shape[:3] or is_filled.shape != keypoints.shape[:2]:
        _refuse(path, "keypoint_confidence or is_filled do not fit the keypoints")
    if further is not None and further.shape != (*keypoints.shape[:2], NUM_FURTHER_POINTS, 3):
        _refuse(path, f"further_points must be (people, frames, 116, 3), got {further.shape}")
    if alone is not None and alone.shape != is_filled.shape:
        _refuse(path, "is_alone does not fit the keypoints")
    _check_numbers(path, keypoints, confidence)
    if further is not None:
        _check_numbers(path, further, further[..., 2])
    if not (math.isfinite(fps) and min(fps, width, height) > 0):
        _refuse(path, "fps, width_px and height_px must be positive")
    motions = tuple(
        Motion(
            keypoints=points,
            keypoint_confidence=certain,
            width_px=int(width),
            height_px=int(height),
            is_filled=filled,
            num_persons=len(keypoints),
            further_points=None if further is None else further[person],
            is_alone=None if alone is None else alone[person],
        )
        for person, (points, certain, filled) in enumerate(
            zip(keypoints, confidence, is_filled, strict=True)
        )
    )
    return PoseClip(motions=motions, fps=fps, is_chosen=True)


def _check_numbers(path: Path, points: np.ndarray, confidence: np.ndarray) -> None:
    if not (np.isfinite(points).all() and ((confidence >= 0) & (confidence <= 1)).all()):
        _refuse(path, "keypoints must be finite and confidences within 0 and 1")


def _from_openpose(clip: OpenPoseClip) -> PoseClip:
    """Return the motions of everybody whom the frames show for long enough, largest first."""
    people = clip.follow()
    sizes = [track.seen_person().size_px for track in people.tracks]
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    motions = tuple(people.motion(index) for index in order)
    return PoseClip(motions=motions, fps=None, is_chosen=False)


def _rounded(values: np.ndarray, digits: int | None) -> Any:  # noqa: ANN401 - nested lists
    if digits is None:
        return values.tolist()
    return np.round(values.astype(np.float64), digits).tolist()


def _refuse(path: Path, why: str) -> NoReturn:
    raise PoseError(
        f"{path.name} is not a pose file: {why}.",
        fix="Write one with `animaray animate --save-poses FILE` (form: docs/cli.md).",
        reason="bad_pose_file",
    )
