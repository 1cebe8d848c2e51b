"""Export kept clips in the folder layout of the published StableAnimator training code.

    rec/00001/{images,faces,poses}/frame_0.png     512 x 512, landscape and square clips
    vec/00002/{images,faces,poses}/frame_0.png     576 x 1024, portrait clips
    video_rec_path.txt, video_vec_path.txt         one clip folder per line
    export.json                                    which clip each number is, and its window

Some 300 times the bytes of the dataset: for runs of the
published code only. Poses show hands and faces of clips whose tracks have them, as published.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from animaray.datasets.reader import ClipTracks, CurationDataset
from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.drawing import PoseStyle, draw_people
from animaray.models.subjects.framing import FrameFit
from animaray.platform.disk import check_room
from animaray.platform.errors import DatasetError
from animaray.platform.json_text import json_text
from animaray.platform.media.video_window import read_frames
from animaray.platform.removal import remove
from animaray.platform.storage import read_json, write_bytes_atomic, write_json_atomic

SIZES = {"rec": (512, 512), "vec": (576, 1024)}
_FRAMES_AT_ONCE = 32
_INDEX = "export.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSummary:
    """What one call wrote."""

    num_clips: int
    """Clips in the folder now."""
    num_written: int
    """Of these, written by this call; the others were complete."""
    num_frames: int
    """Frames in the folder."""
    frames_without_face: int
    """Frames whose mask is empty (or white with `white_masks`), for no face is known there."""
    skipped: dict[str, str]
    """Why a kept clip was left out, by id."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return asdict(self)


def export_published(
    root: str | Path,
    out: Path,
    *,
    policy: str = "standard",
    white_masks: bool = False,
    style: PoseStyle = "published",
    advance: Callable[[str], None] = lambda _: None,
) -> ExportSummary:
    """Write the kept clips of a dataset; the same call again goes on where it stopped.

    Args:
        white_masks: Fill the whole mask where no face is known, as the published script does;
            else the mask is empty there.
        advance: Told each clip that is complete.

    Raises:
        DatasetError: The folder holds another export.
    """
    dataset = CurationDataset.open(root)
    clip_ids = dataset.kept_clips(policy)
    settings = {
        "version": dataset.snapshot.version, "policy": policy, "white_masks": white_masks,
        "style": style,
    }  # fmt: skip
    check_room(out, _room_bytes(dataset, clip_ids), "The export")
    _claim(out, settings)
    entries, skipped, written = [], {}, 0
    for number, clip_id in enumerate(clip_ids, start=1):
        tracks = dataset.tracks(clip_id)
        if len(tracks.pts_s) == 0:
            skipped[clip_id] = "nobody looked for poses in it"
            continue
        clip = dataset.clip(clip_id)
        group = "vec" if clip["height"] > clip["width"] else "rec"
        folder = out / group / f"{number:05d}"
        if not (folder / "clip.json").is_file():
            item = _write_clip(dataset, clip, tracks, folder, white_masks=white_masks, style=style)
            write_json_atomic(folder / "clip.json", item)  # last: its presence means complete
            written += 1
        entries.append(read_json(folder / "clip.json"))
        advance(clip_id)
    for group in SIZES:
        lines = [f"{out.resolve() / e['folder']}\n" for e in entries if e["folder"][:3] == group]
        write_bytes_atomic(out / f"video_{group}_path.txt", "".join(lines).encode())
    write_json_atomic(out / _INDEX, {**settings, "clips": entries, "skipped": skipped})
    return ExportSummary(
        num_clips=len(entries),
        num_written=written,
        num_frames=sum(entry["num_frames"] for entry in entries),
        frames_without_face=sum(entry["frames_without_face"] for entry in entries),
        skipped=skipped,
    )


def _room_bytes(dataset: CurationDataset, clip_ids: Sequence[str]) -> int:
    """Return about how large the pictures will be: PNG of a photo has half a picture's bytes."""
    width, height = SIZES["vec"]
    frames = sum(dataset.clip(clip_id)["num_frames"] for clip_id in clip_ids)
    return frames * width * height * 3 // 2


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Take a folder for this export, or go on with it.

    Raises:
        DatasetError: It holds something else.
    """
    if (out / _INDEX).is_file():
        found = read_json(out / _INDEX)
        if any(found.get(name) != value for name, value in settings.items()):
            raise DatasetError(
                f"{out} holds another export: {json_text(settings)} differs.",
                fix="Choose another folder, or delete it.",
                reason="conflict",
            )
    elif out.is_dir() and any(out.iterdir()):
        raise DatasetError(f"{out} is not empty.", fix="Choose another folder.", reason="conflict")
    else:
        write_json_atomic(out / _INDEX, {**settings, "clips": [], "skipped": {}})


def _write_clip(
    dataset: CurationDataset,
    clip: dict[str, Any],
    tracks: ClipTracks,
    folder: Path,
    *,
    white_masks: bool,
    style: PoseStyle,
) -> dict[str, Any]:
    width, height = SIZES[folder.parent.name]
    fit = FrameFit.for_person(
        (clip["width"], clip["height"]),
        tracks.keypoints,
        width,
        height,
        keypoint_confidence=tracks.keypoint_confidence,
    )
    for name in ("images", "faces", "poses"):
        remove(folder / name, "this clip was not complete")
        (folder / name).mkdir(parents=True)
    video = dataset.media_bytes(clip["clip_id"])
    without = 0
    for start in range(0, clip["num_frames"], _FRAMES_AT_ONCE):
        index = list(range(start, min(start + _FRAMES_AT_ONCE, clip["num_frames"])))
        frames, pts_s = read_frames(video, index)
        nearest = tracks.nearest_pose(pts_s)
        boxes, known = tracks.boxes_at(np.array(index) / clip["fps"], clip["fps"])
        for place, number in enumerate(index):
            pose = nearest[place]
            person = PersonPose.of_frame(tracks, int(pose)).moved(fit.apply_points)
            drawn = draw_people([person], width, height, "whole_body_134", style)
            box = boxes[place] if known[place] else None
            mask = face_mask(box, fit, is_white=white_masks)
            without += int(not known[place])
            _write_png(folder / "images" / f"frame_{number}.png", fit.apply_picture(frames[place]))
            _write_png(folder / "poses" / f"frame_{number}.png", drawn)
            _write_png(folder / "faces" / f"frame_{number}.png", mask)
    return {
        "folder": f"{folder.parent.name}/{folder.name}",
        "clip_id": clip["clip_id"],
        "source_id": clip["source_id"],
        "num_frames": clip["num_frames"],
        "fps": clip["fps"],
        "frames_without_face": without,
        "window": asdict(fit),
    }


def face_mask(
    box: Float[np.ndarray, " 4"] | None, fit: FrameFit, *, is_white: bool
) -> UInt8[np.ndarray, "height width"]:
    """Return the mask of one frame: the box filled, corners whole pixels and inside.

    Args:
        box: Left, top, right, bottom in pixels of the clip; None where no face is known.
        fit: From the clip to the exported frame.
        is_white: Whether the whole mask is filled where there is none.
    """
    mask = np.full((fit.height_px, fit.width_px), 255 if is_white and box is None else 0, np.uint8)
    if box is not None:
        corners = fit.apply_points(box.reshape(2, 2).astype(np.float64)).astype(np.int64)
        left, top = np.maximum(corners[0], 0)
        right, bottom = np.maximum(corners[1] + 1, 0)
        mask[top:bottom, left:right] = 255
    return mask


def _write_png(path: Path, picture: UInt8[np.ndarray, "height width *channels"]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    path.write_bytes(buffer.getvalue())  # the clip's own file, written last, says it is complete
