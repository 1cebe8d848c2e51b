"""What `animaray animate` shows: the plan in words, overlay, contact sheet, previews, JSON."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from animaray.cli.animate.result import sound_words
from animaray.models.alignment.alignment import AlignedPose, PosedPicture
from animaray.models.alignment.quality import AlignmentQuality
from animaray.models.animation.pipeline import Animation, AnimationPreview
from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.further_points import HasPose
from animaray.models.pose.layouts import PoseLayout
from animaray.models.subjects.choice import prominent_people
from animaray.models.subjects.tracks import seen_person
from animaray.platform.media.video import write_picture
from animaray.platform.storage import write_json_atomic

REFERENCE_COLOUR, DRIVING_COLOUR = (47, 111, 222), (217, 130, 43)
SHOWN_FRAMES = 6
"""Frames in a row of the contact sheet."""
TILE_HEIGHT_PX = 192
DRAWN_PARTS: Mapping[PoseLayout, str] = {
    "openpose_18": "bodies are",
    "whole_body_134": "bodies, hands and faces are",
}
OVERLAY_HEIGHT_PX = 512


def plan_lines(facts: Mapping[str, Any], qualities: Sequence[AlignmentQuality]) -> list[str]:
    """Return the plan for people, one subject a line.

    Args:
        facts: What `plan_facts` returns.
        qualities: How well each person's alignment fits.
    """
    picture, window, result = facts["picture_size_px"], facts["window"], facts["result"]
    sampling, memory = facts["sampling"], facts["memory"]
    seen, filled = facts["num_people_seen"], facts["num_filled_frames"]
    low, high = sampling["guidance_min"], sampling["guidance_max"]
    seconds = result["num_frames"] / result["fps"]
    lines = [
        f"picture    {facts['image']}: {picture[0]}x{picture[1]}, {_people(seen['picture'])}; "
        f"cut at {window['left_px']:g},{window['top_px']:g} and scaled by {window['scale']:g} on "
        "both axes",
        f"driving    {facts['driving']}: {result['num_frames']} frames at {result['fps']:g} fps "
        f"({seconds:.1f} s), {_people(seen['driving'])}, {sum(filled)} frames without them",
        f"poses      {DRAWN_PARTS[facts['pose_layout']]} drawn, as the model was trained",
    ]
    lines += [
        f"alignment  {_whose(number, len(qualities))}{quality.describe()}"
        for number, quality in enumerate(qualities, start=1)
    ]
    others = [
        f"{other['method']} {other['verdict']} ({other['residual']:.3f})"
        for other in facts["alignment_alternatives"]
    ]
    if others:
        lines.append(f"           other methods: {', '.join(others)}")
    lines += [
        f"sampling   {sampling['sampler']}, {sampling['num_inference_steps']} steps, guidance "
        f"{low:g}"
        + (f" to {high:g}" if high != low else "")
        + f", seed {sampling['seed']}; "
        + _windows(sampling),
        f"faces      face optimization {facts['face_optimization']}",
        f"memory     about {_gib(memory['needed_bytes'])} of {_gib(memory['available_bytes'])} free"
        f" on {facts['device']}; the peak is {memory['peak_stage']}",
        f"weights    {facts['weights']}",
        f"result     {facts['out']}: {result['width_px']}x{result['height_px']}, "
        f"{result['num_frames']} frames, {result['fps']:g} fps, "
        + sound_words(has_sound=result["has_sound"]),
    ]
    return lines + [f"note       {note}" for note in facts["notes"]]


def write_alignment_overlay(
    path: Path,
    picture: UInt8[np.ndarray, "height width 3"],
    people: Sequence[tuple[PosedPicture, AlignedPose]],
    qualities: Sequence[AlignmentQuality],
) -> Path:
    """Draw the aligned motion over the picture, for first, middle and last frame.

    Args:
        path: PNG to write.
        picture: The reference picture in the model's size.
        people: Each person's own pose (blue) and aligned driving poses (orange).
        qualities: For the captions.
    """
    from animaray.cli.figures import draw_skeleton, side_by_side

    # Room around the picture, so that keypoints that leave it are seen leaving.
    height, width = picture.shape[:2]
    margin = round(0.25 * max(height, width))
    room = ((margin, margin), (margin, margin), (0, 0))
    canvas = np.pad(picture // 2 + 64, room, constant_values=24)
    zoom = max(1.0, OVERLAY_HEIGHT_PX / canvas.shape[0])
    canvas = cv2.resize(canvas, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    num_frames = len(people[0][1].keypoints)
    panels = []
    for frame in sorted({0, num_frames // 2, num_frames - 1}):
        drawn = canvas.astype(np.uint8)
        for own, aligned in people:
            shown: list[tuple[HasPose, int | None, tuple[int, int, int]]] = [
                (own, None, REFERENCE_COLOUR),
                (aligned, frame, DRIVING_COLOUR),
            ]
            for poses, place, colour in shown:
                pose = PersonPose.of_frame(poses, place).moved(lambda at: (at + margin) * zoom)
                drawn = draw_skeleton(drawn, pose, colour)
        panels.append((f"frame {frame}: picture blue, driving orange", drawn))
    row = side_by_side(panels, height_px=OVERLAY_HEIGHT_PX)
    lines = [
        f"{_whose(number, len(qualities))}{quality.describe()}"
        for number, quality in enumerate(qualities, start=1)
    ]
    write_picture(path, np.concatenate([row, *(_caption(text, row.shape[1]) for text in lines)]))
    return path


def write_people(
    path: Path, picture: UInt8[np.ndarray, "height width 3"], people: Sequence[PersonPose]
) -> Path:
    """Draw everybody with the number that `--person` takes.

    Args:
        path: PNG to write.
        picture: Where they were seen.
        people: Their poses.
    """
    from animaray.cli.figures import draw_skeleton

    seen = [seen_person(person) for person in people]
    drawn = picture.copy()
    for number, index in enumerate(prominent_people(seen), start=1):
        person, box = people[index], seen[index]
        drawn = draw_skeleton(drawn, person, DRIVING_COLOUR).copy()
        place = round(box.centre_x) - 8, max(20, round(box.top_px) - 8)
        cv2.putText(drawn, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 5)
        cv2.putText(drawn, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
    write_picture(path, drawn)
    return path


def write_preview(folder: Path, preview: AnimationPreview) -> Path:
    """Write the frames of a preview as one PNG, named by its step."""
    path = folder / f"step_{preview.step:03d}.png"
    write_picture(path, np.concatenate(list(preview.frames_uint8), axis=1))
    return path


def write_contact_sheet(
    path: Path, animation: Animation, previews: Sequence[AnimationPreview]
) -> Path:
    """Write rows of frames: the previews, step by step, then poses and result.

    Args:
        path: PNG to write.
        animation: The finished one.
        previews: Those seen on the way.
    """
    from animaray.cli.figures import side_by_side

    shown = np.linspace(0, len(animation.frames_uint8) - 1, SHOWN_FRAMES).round().astype(int)
    shown = np.unique(shown)
    rows = [
        side_by_side(
            [
                (f"step {preview.step}, frame {index}", frame)
                for index, frame in zip(preview.frame_indices, preview.frames_uint8, strict=True)
            ],
            height_px=TILE_HEIGHT_PX,
        )
        for preview in previews
    ]
    for name, clip in (("pose", animation.pose_images), ("result", animation.frames_uint8)):
        panels = [(f"{name} {index}", clip[index]) for index in shown]
        rows.append(side_by_side(panels, height_px=TILE_HEIGHT_PX))
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=24) for row in rows
    ]
    write_picture(path, np.concatenate(padded))
    return path


def write_report(path: Path, facts: Mapping[str, Any], animation: Animation | None) -> Path:
    """Write the plan and, once it is there, the result's figures as JSON.

    Args:
        path: JSON file to write.
        facts: What `plan_facts` returns.
        animation: The finished one, or None before.
    """
    document: dict[str, Any] = {"schema_version": 1, "plan": dict(facts)}
    if animation is not None:
        document["result"] = {**animation.summary(), **_details(animation)}
    write_json_atomic(path, document)
    return path


def _details(animation: Animation) -> dict[str, Any]:
    """Return the figures per frame, per denoising step and per border of windows."""
    people = [animation.identity_similarity]
    people += [person.identity_similarity for person in animation.companions]
    return {
        "identity_similarity_by_frame": [
            [_number(float(value)) for value in person] for person in people
        ],
        "face_optimization_steps": [
            {
                "step": entry.step_index,
                "num_frames": entry.num_frames,
                "losses": [round(loss, 5) for loss in entry.losses],
            }
            for entry in animation.face_optimization
        ],
        "seams": [
            {
                "frame": seam.frame,
                "num_shared": seam.num_shared,
                "disagreement": _number(seam.disagreement),
                "jump": _number(seam.jump),
            }
            for seam in animation.seams
        ],
    }


def _number(value: float) -> float | None:
    """Return a rounded number, None where it is not one (JSON has no NaN)."""
    return round(value, 4) if math.isfinite(value) else None


def _caption(text: str, width: int) -> UInt8[np.ndarray, "caption_height width 3"]:
    strip = np.full((28, width, 3), 24, np.uint8)
    cv2.putText(strip, text, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 1)
    return strip


def _windows(sampling: Mapping[str, Any]) -> str:
    if sampling["num_windows"] == 1:
        return "1 window"
    return (
        f"{sampling['num_windows']} windows of {sampling['window_frames']} frames, overlap "
        f"{sampling['window_overlap']} ({sampling['window_rule']})"
    )


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _whose(number: int, count: int) -> str:
    """Return whose line it is, nothing where there is only one person."""
    return "" if count == 1 else f"person {number}: "


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 1024**3:.1f} GiB"
