"""Read OpenPose's JSON: one file per frame in a folder, or a list of frames in one file.

A frame is {"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]} with 18 points (COCO) or 25
(BODY_25, whose middle hip is left out), and beside them `hand_left_keypoints_2d`,
`hand_right_keypoints_2d` (21 points) and `face_keypoints_2d` (68, or 70 with pupils, which are left
out), each of which may be absent, null or empty where nothing was found. Tools that write a list of
frames add `canvas_width` and `canvas_height`; OpenPose itself tells no size. Points at 0, 0 with
confidence 0 are missing. Coordinates of which none is above 1 are shares of the picture.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.layouts import (
    FACE,
    FEET,
    LEFT_HAND,
    NUM_FURTHER_POINTS,
    NUM_KEYPOINTS,
    RIGHT_HAND,
    VISIBLE_CONFIDENCE,
)
from animaray.models.subjects.motion import PeopleInVideo, lasting_people
from animaray.models.subjects.tracks import PersonTrack, extend_tracks
from animaray.platform.errors import PoseError, UsageError

FROM_BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
"""Where OpenPose's 18 points stand among the 25."""
FEET_OF_BODY_25 = slice(19, 25)
"""OpenPose's feet among the 25, in the order of ours."""
MAX_FRAMES = 100_000
_PARTS = {
    "hand_left_keypoints_2d": (LEFT_HAND, (21,)),
    "hand_right_keypoints_2d": (RIGHT_HAND, (21,)),
    "face_keypoints_2d": (FACE, (68, 70)),
}
"""Where a part goes among the further points, and with how many points it is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenPoseClip:
    """Frames of people."""

    frames: tuple[tuple[PersonPose, ...], ...]
    """Who is seen in each frame."""
    width_px: int
    """Width of the pictures."""
    height_px: int
    """Height of the pictures."""

    def follow(self) -> PeopleInVideo:
        """Return everybody's way through the frames; PoseError where there is nobody."""
        tracks: list[PersonTrack] = []
        size = self.width_px, self.height_px
        for index, people in enumerate(self.frames):
            extend_tracks(tracks, index, people, size)
        return lasting_people(tracks, len(self.frames), size)


def is_openpose(document: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Tell whether a JSON document looks like OpenPose's: a frame, or a list of frames."""
    first = document[0] if isinstance(document, list) and document else document
    return isinstance(first, dict) and "people" in first and "format" not in first


def read_openpose(
    path: Path,
    size_px: tuple[int, int] | None,
    document: Any = None,  # noqa: ANN401 - any JSON value
) -> OpenPoseClip:
    """Read a folder of one-frame files, or one document.

    Args:
        path: Folder or file, for the messages.
        size_px: Width and height of the pictures; None takes them from the document.
        document: Content of the file; None reads the folder's files in the order of their names.

    Raises:
        UsageError: The size of the pictures is not known.
        PoseError: A frame has another form, or there is none.
    """
    if document is None:
        files = sorted(path.glob("*.json"), key=_natural_order)[:MAX_FRAMES]
        frames = [_read_json(file) for file in files]
    else:
        frames = document if isinstance(document, list) else [document]
    if not frames:
        _refuse(path, "there is no *.json file in it")
    size = size_px or _declared_size(frames[0])
    if size is None:
        raise UsageError(
            f"{path} does not tell the size of its pictures.",
            fix="Add --driving-size WIDTHxHEIGHT.",
        )
    values = [_frame_values(frame, path) for frame in frames]
    everybody = [person for people in values for person in people]
    largest = max((float(person[:NUM_KEYPOINTS, :2].max()) for person in everybody), default=0.0)
    unit = np.array([*size, 1.0] if largest <= 1.0 else np.ones(3), np.float32)
    parts = slice(NUM_KEYPOINTS + FACE.start, None)  # feet alone are no closer look
    has_further = any((person[parts, 2] > 0).any() for person in everybody)
    return OpenPoseClip(
        frames=tuple(
            tuple(_pose(person * unit, has_further=has_further) for person in people)
            for people in values
        ),
        width_px=size[0],
        height_px=size[1],
    )


def _read_json(file: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        _refuse(file, f"it is not JSON ({error})")


def _natural_order(file: Path) -> list[tuple[int, str]]:
    """Order by the numbers in a name: frame 9 comes before frame 10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", file.name)]


def _declared_size(frame: Any) -> tuple[int, int] | None:  # noqa: ANN401 - any JSON value
    if not isinstance(frame, dict):
        return None
    width, height = frame.get("canvas_width"), frame.get("canvas_height")
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        return width, height
    return None


def _frame_values(frame: Any, path: Path) -> list[np.ndarray]:  # noqa: ANN401 - any JSON value
    """Return each person's 134 points with confidence, people without any point left out."""
    people = frame.get("people") if isinstance(frame, dict) else None
    if not isinstance(people, list):
        _refuse(path, "a frame has no list `people`")
    found = []
    for person in people:
        body = _points(person, "pose_keypoints_2d", path)
        further = np.zeros((NUM_FURTHER_POINTS, 3), np.float32)
        if len(body) == 25:
            further[FEET] = body[FEET_OF_BODY_25]
            body = body[list(FROM_BODY_25)]
        if len(body) != NUM_KEYPOINTS:
            _refuse(path, f"a person has {len(body)} points; 18 or 25 finite ones are read")
        for name, (part, counts) in _PARTS.items():
            if not person.get(name):
                continue
            points = _points(person, name, path)
            if len(points) not in counts:
                _refuse(path, f"`{name}` has {len(points)} points, expected {counts[0]}")
            further[part] = points[: counts[0]]
        if (body[:, 2] >= VISIBLE_CONFIDENCE).sum() >= 2:
            found.append(np.concatenate([body, further]))
    return found


def _points(person: Any, name: str, path: Path) -> np.ndarray:  # noqa: ANN401 - any JSON value
    """Return a flat list of x, y and confidence as rows."""
    try:
        values = np.asarray(person[name], np.float32).reshape(-1, 3)
    except (KeyError, TypeError, ValueError) as error:
        _refuse(path, f"`{name}` is missing or odd ({error})")
    if not np.isfinite(values).all():
        _refuse(path, f"`{name}` has numbers that are not finite")
    return values


def _pose(values: np.ndarray, *, has_further: bool) -> PersonPose:
    """Return a person's pose from 134 points in pixels."""
    certain = np.concatenate([values[:, :2], values[:, 2:].clip(0, 1)], axis=1).astype(np.float32)
    return PersonPose(
        keypoints=certain[:NUM_KEYPOINTS, :2],
        keypoint_confidence=certain[:NUM_KEYPOINTS, 2],
        further_points=certain[NUM_KEYPOINTS:] if has_further else None,
    )


def _refuse(path: Path, why: str) -> NoReturn:
    raise PoseError(
        f"{path.name} is not a pose file: {why}.",
        fix="Expected OpenPose's JSON, or what `animaray animate --save-poses FILE` writes.",
        reason="bad_pose_file",
    )
