"""Find a photograph to animate beside a folder of real videos."""

from pathlib import Path

import numpy as np

from animaray.models.perception.profiles import load_perception
from animaray.platform.errors import MediaError
from animaray.platform.media.video import read_picture_in_child

SUFFIXES = (".jpg", ".jpeg", ".png")
VISIBLE = 0.3
MIN_VISIBLE_KEYPOINTS = 8
MIN_FACE_PX = 80


def find_photo(videos: Path, profile: str) -> Path | None:
    """Return the photo with one clear face and the most visible body, or None.

    Looks at pictures in the video folder and in a folder `images` beside it.
    """
    folders = [videos, videos.parent / "images"]
    paths = sorted(
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES
    )
    perception = load_perception(profile)
    best: tuple[int, Path] | None = None
    for path in paths:
        try:
            picture = read_picture_in_child(path)
        except MediaError:
            continue
        faces = perception.face_detector.detect(picture)
        people = perception.pose_estimator.estimate(picture)
        if len(faces) != 1 or len(people) != 1:
            continue
        if faces[0].box[3] - faces[0].box[1] < MIN_FACE_PX:
            continue
        visible = int(np.sum(people[0].keypoint_confidence >= VISIBLE))
        if visible >= MIN_VISIBLE_KEYPOINTS and (best is None or visible > best[0]):
            best = (visible, path)
    return best[1] if best else None
