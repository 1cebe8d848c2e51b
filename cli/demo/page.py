"""Write the demo's page: pictures, videos, curves and tables of what just ran."""

import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from animaray.cli import figures
from animaray.cli.dataset.page import render_template, write_sheet
from animaray.cli.demo.aligner import write_alignment_picture
from animaray.cli.demo.run import DemoRun
from animaray.cli.demo.steps import DRIVING_FPS, ChainResult, run_chain
from animaray.cli.demo.truth import move_by_parts
from animaray.cli.run_curves import read_series
from animaray.evaluation.table import METRICS
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.alignment.alignment import align_clip
from animaray.models.pose.drawing import draw_pose_clip
from animaray.platform.media.picture import read_picture, write_png
from animaray.platform.storage import write_bytes_atomic
from animaray.platform.media.video import decode_video, write_mp4

NUM_SHOWN_FRAMES = 6


def run_whole_demo(run: DemoRun) -> Path:
    """Run the chain, write `index.html` with its media, and return its path."""
    settings, chain = run.settings, run_chain(run)
    with run.step("page", "write the page") as record:
        media = settings.media_dir
        sheet = write_sheet(settings.dataset_dir, media, policy="standard", prefix="media/")
        figures.save_funnel(media / "funnel.svg", chain.summary.funnel())
        figures.save_loss_curve(
            media / "aligner_curve.svg",
            read_series(chain.aligner.metrics)["loss"],
            unit="mean distance",
        )
        figures.save_loss_curve(
            media / "animator_curve.svg",
            read_series(chain.animator.metrics)["loss"],
            unit="weighted loss",
        )
        aligner_rows = write_alignment_picture(
            media / "alignment.png", settings.dataset_dir, chain.aligner
        )
        figures.save_identity_bars(
            media / "identities.svg",
            {name: values[1] for name, values in chain.identities.items()},
            {name: values[0] for name, values in chain.identities.items()},
            chain.right_person,
        )
        _write_result_media(run, chain)
        record["note"] = str(settings.out / "index.html")
        page = settings.out / "index.html"
    run.facts["aligner_dis"] = {row["name"]: row["value"] for row in aligner_rows}
    html = render_template("demo.html.j2", **_context(run, chain, sheet, aligner_rows))
    write_bytes_atomic(page, html.encode())
    run.save()
    return page


def _write_result_media(run: DemoRun, chain: ChainResult) -> None:
    media = run.settings.media_dir
    driving = decode_video(chain.driving).frames_uint8
    pipeline = AnimationPipeline.from_pretrained(chain.animator.weights_dir)
    clips = {
        "driving video": driving,
        "aligned pose": _aligned_pose_pictures(pipeline, chain),
        "result": decode_video(chain.result).frames_uint8,
        "without face optimization": decode_video(chain.result_without).frames_uint8,
    }
    if _is_drawn(run):
        clips["by parts, no network"] = move_by_parts(
            run.settings,
            chain.pair,
            chain.reference,
            pipeline.aligner,
            num_frames=len(driving),
            fps=DRIVING_FPS,
        )
    reference = read_picture(chain.reference)
    count = min(map(len, clips.values()))
    rows = [
        figures.side_by_side(
            [("reference", reference), *((name, clip[i]) for name, clip in clips.items())],
            height_px=288,
        )
        for i in range(count)
    ]
    write_mp4(media / "side_by_side.mp4", np.stack(rows), fps=DRIVING_FPS)
    shown = np.linspace(0, count - 1, NUM_SHOWN_FRAMES).round().astype(int)
    strips = [
        figures.side_by_side([(f"{name} {i}", clip[i]) for i in shown], height_px=192)
        for name, clip in clips.items()
        if name != "without face optimization"
    ]
    write_png(media / "frames.png", np.concatenate(_equal_width(strips)))


def _aligned_pose_pictures(
    pipeline: AnimationPipeline, chain: ChainResult
) -> UInt8[np.ndarray, "frames height width 3"]:
    reference = pipeline.prepare_reference(read_picture(chain.reference))
    motion = pipeline.estimate_motion(decode_video(chain.driving).frames_uint8)
    pose = align_clip("learned", reference.pose, motion.posed(), aligner=pipeline.aligner)
    config = pipeline.animator.config
    return draw_pose_clip([pose], config.width_px, config.height_px, config.pose_layout)


def _equal_width(
    strips: list[UInt8[np.ndarray, "_ _ 3"]],
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    width = max(strip.shape[1] for strip in strips)
    return [
        np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=24)
        for strip in strips
    ]


def _context(
    run: DemoRun,
    chain: ChainResult,
    sheet: list[dict[str, Any]],
    aligner_rows: list[dict[str, Any]],
) -> dict[str, Any]:
    csim = chain.identities[chain.right_person]
    others = [v[0] for name, v in chain.identities.items() if name != chain.right_person]
    next_person = max(others, default=math.nan)
    total = sum(record["seconds"] for record in run.timings.values())

    def timing(name: str) -> str:
        return f"{run.timings[name]['seconds']:.0f} s"

    return {
        "videos": run.settings.videos,
        "by_parts": _is_drawn(run),
        "numbers": [
            {
                "value": f"{chain.summary.num_kept_clips} of {chain.summary.num_clips}",
                "label": "clips kept",
            },
            {"value": f"{aligner_rows[-1]['value']:.3f}", "label": "Dis of the learned aligner"},
            {"value": _figure(csim[0], ".2f"), "label": "CSIM with the right person"},
            {"value": _figure(next_person, ".2f"), "label": "CSIM, next person"},
            {"value": f"{total / 60:.1f} min", "label": "for the whole chain"},
        ],
        "timing": timing,
        "curate_text": chain.summary.one_line(),
        "sheet": sheet,
        "aligner_rows": aligner_rows,
        "animator_text": run.timings["animator"]["note"],
        "job_transcript": "\n".join(chain.transcript),
        "csim": _figure(csim[0], ".3f"),
        "csim_without": _figure(csim[1], ".3f"),
        "csim_next": _figure(next_person, ".3f"),
        "metric_names": ["method", *METRICS],
        "metric_rows": [
            [method, *(_figure(chain.evaluation.mean(method, metric), ".4g") for metric in METRICS)]
            for method in chain.evaluation.methods()
        ],
        "timings": list(run.timings.values()),
        "total_seconds": total,
        "machine": f"Measured on {platform.machine()}, {platform.system()} {platform.release()}.",
        "out": run.settings.out,
        "driving_clip": chain.pair.driving.clip_id,
        "reference": chain.reference,
        "driving": chain.driving,
        "weights": chain.animator.weights_dir,
    }


def _is_drawn(run: DemoRun) -> bool:
    """Tell whether the picture is one of the generated world's own people."""
    return run.settings.videos is None and run.settings.image is None


def _figure(value: float, form: str) -> str:
    """Write a figure; where no face was found in any frame there is none to compare."""
    return "no face found" if math.isnan(value) else f"{value:{form}}"
