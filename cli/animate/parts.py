"""Carry out an `animaray animate` by parts: look, refuse or go on, render frame by frame, write."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from animaray.cli.animate.request import MIN_FRAMES, AnimateRequest
from animaray.cli.animate.result import SoundSource, origin_facts, sound_words, write_result
from animaray.cli.output import print_hint, print_json, print_lines
from animaray.models.animation.engines import AnimatedFrames, DrivingFrames, PartsEngine
from animaray.models.animation.options import MADE_BY
from animaray.models.parts.pipeline import PartsPipeline
from animaray.models.perception.find_people import DRIVING_SHORT_SIDE_PX
from animaray.platform.disk import check_room
from animaray.platform.errors import MediaError
from animaray.platform.media.video import (
    ChildFrameStream,
    FrameSelection,
    Mp4Writer,
    VideoInfo,
    probe_in_child,
    read_picture_in_child,
    write_picture,
)
from animaray.platform.progress import stage_progress
from animaray.platform.storage import write_json_atomic

_MP4_BYTES_PER_PIXEL = 0.15
_SHOWN_FRAMES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sheet:
    """Some frames of the result, for the contact sheet."""

    wanted: frozenset[int]
    kept: list[tuple[str, UInt8[np.ndarray, "height width 3"]]]


def run_parts(request: AnimateRequest, *, dry_run: bool, as_json: bool) -> None:
    """Make the plan, show it, refuse or go on.

    Args:
        request: What the user asks for.
        dry_run: Only show the plan; nothing is written.
        as_json: Print one JSON document on stdout.
    """
    request.check_paths()
    info = probe_in_child(request.driving)
    engine = PartsEngine(
        pipeline=PartsPipeline.load(),
        options=request.options.of_parts(),
        asks=("--reference-person", "--person"),
    )
    result = _look(request, engine, info)
    facts = _facts(request, result, info)
    if dry_run:
        if as_json:
            print_json({"plan": facts, "is_dry_run": True})
        else:
            print_lines(*_lines(facts))
        print_hint("Dry run: everything fits, nothing was written.")
        return
    print_hint("\n".join(_lines(facts)))
    sheet = _write(request, result, facts, info)
    if request.report_dir is not None:
        _write_report(request.report_dir, facts, sheet)
    if as_json:
        print_json({"video": str(request.out), "plan": facts})
    print_hint(
        f"Wrote {request.out}: {result.num_frames} frames, {result.width_px}x{result.height_px},"
        f" {MADE_BY['parts']}"
    )


def _look(request: AnimateRequest, engine: PartsEngine, info: VideoInfo) -> AnimatedFrames:
    """Prepare the photo and follow the driver; the frames are still to be made.

    Raises:
        MediaError: The video is too short.
    """
    fps = request.frame_rate(info.fps, info.fps)
    selection = FrameSelection(
        fps=fps, short_side_px=DRIVING_SHORT_SIDE_PX, max_frames=request.max_frames
    )
    total = max(1, int(info.duration_s * fps))
    total = total if request.max_frames is None else min(total, request.max_frames)
    short_side = min(info.width, info.height)
    picture = read_picture_in_child(request.image)
    with (
        stage_progress("follow person", total) as row,
        closing(ChildFrameStream(request.driving, None, selection)) as stream,
    ):
        driving = DrivingFrames(
            frames_uint8=(frame.frame_uint8 for frame in stream),
            fps=fps,
            scale=min(1.0, DRIVING_SHORT_SIDE_PX / short_side),
        )
        result = engine.animate_frames(
            picture, driving, request.options.pairing, lambda _, done: row.update(done=done)
        )
    if result.num_frames < MIN_FRAMES:
        raise MediaError(
            f"The driving motion has {result.num_frames} frames; at least {MIN_FRAMES} are needed.",
            fix="Use a longer video, or a higher --fps.",
            reason="too_short",
        )
    return result


def _facts(request: AnimateRequest, result: AnimatedFrames, info: VideoInfo) -> dict[str, Any]:
    return {
        "image": str(request.image),
        "driving": str(request.driving),
        "out": str(request.out),
        "engine": result.engine,
        "made_by": MADE_BY[result.engine],
        **result.facts,
        "result": {
            "width_px": result.width_px,
            "height_px": result.height_px,
            "num_frames": result.num_frames,
            "fps": result.fps,
            "has_sound": info.has_audio and request.options.audio,
        },
        "notes": list(result.warnings),
    }


def _lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the plan for people, one subject a line."""
    result = facts["result"]
    what = "whole body" if facts["mode"] == "body" else "head and shoulders"
    lines = [
        f"engine     parts ({facts['made_by']}): {what}",
        f"picture    {facts['image']}",
        f"driving    {facts['driving']}: {result['num_frames']} frames at {result['fps']:g} fps"
        f" ({result['num_frames'] / result['fps']:.1f} s)",
        f"result     {facts['out']}: {result['width_px']}x{result['height_px']}, "
        + sound_words(has_sound=result["has_sound"]),
    ]
    return lines + [f"note       {note}" for note in facts["notes"]]


def _write(
    request: AnimateRequest, result: AnimatedFrames, facts: Mapping[str, Any], info: VideoInfo
) -> _Sheet:
    """Render, encode, add the sound and the statement of origin; the mp4 is complete or absent."""
    out = request.out.absolute()
    needed = round(result.num_frames * result.width_px * result.height_px * _MP4_BYTES_PER_PIXEL)
    check_room(out.parent, needed, f"{request.out}")
    shown = np.linspace(0, result.num_frames - 1, _SHOWN_FRAMES).round().astype(int).tolist()
    sheet = _Sheet(wanted=frozenset(shown), kept=[])

    def render(path: Path) -> None:
        with (
            stage_progress("render", result.num_frames) as row,
            Mp4Writer(path, result.fps) as writer,
        ):
            for number, frame in enumerate(result.frames):
                writer.add(frame, number / result.fps)
                if number in sheet.wanted:
                    sheet.kept.append((f"frame {number}", frame))
                row.update(done=number + 1)

    sound = SoundSource(video=request.driving, info=info, duration_s=result.num_frames / result.fps)
    origin = origin_facts("parts", request.image, request.driving, {"mode": facts["mode"]})
    write_result(out, render, origin, sound if request.options.audio else None)
    return sheet


def _write_report(folder: Path, facts: Mapping[str, Any], sheet: _Sheet) -> None:
    from animaray.cli.figures import side_by_side

    folder.mkdir(exist_ok=True)
    write_picture(folder / "contact_sheet.png", side_by_side(sheet.kept, height_px=384))
    write_json_atomic(folder / "report.json", {"schema_version": 1, "plan": dict(facts)})
