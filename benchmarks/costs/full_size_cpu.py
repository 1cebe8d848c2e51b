"""The published model at full size on a CPU: import, plan, a short real run, a training's need.

    python -m benchmarks.costs.full_size_cpu --work /tmp/full

Writes the rehearsal kit in the published sizes (12 GB), imports it, plans an animation of 8 frames
128x192 by the command, and runs it by two denoising steps with one face gradient, all 1.5 billion
parameters in float32. Seconds by part, and the peak of the process's own pages against the
estimate. A training step runs where it fits into what is free; else its need is told. About 22 GB
of disk and 16 GB of memory; the folder is removed at the end unless --keep is given.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline
from animaray.models.animation.result import AnimationProgress
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.platform.machine import available_memory_bytes
from animaray.platform.media.video import write_mp4, write_picture
from animaray.platform.storage import write_json_atomic
from animaray.training.memory import estimate_training_memory
from animaray.training.recipes import animator_1gpu
from benchmarks.costs.full_size_parts import Parts, gib, lines_of, train_step
from benchmarks.rehearsal.published_files import write_kit
from benchmarks.rehearsal.sizes import FULL, SMALL

WIDTH_PX, HEIGHT_PX, FPS = 128, 192, 6.0
_STEPS = ("kit", "import", "plan", "animate", "train")


def kit(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write the files, and what is animated."""
    write_kit(work / "kit", SMALL if options.tiny else FULL, on_part=print)
    spec = sample_clip_spec(
        4, num_frames=8, fps=FPS, size=(320, 480), framing="full", camera_kind="static"
    )
    clip = render_clip(spec)
    write_mp4(work / "dance.mp4", clip.frames_uint8, FPS)
    write_picture(work / "me.png", clip.frames_uint8[0])
    files = [path for path in (work / "kit").rglob("*") if path.is_file()]
    return {"bytes": sum(path.stat().st_size for path in files)}


def import_(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Import by the command."""
    del options
    return _command(
        work, "weights", "import", str(work / "kit"), "--out", str(work / "weights"),
        "--size", f"{WIDTH_PX}x{HEIGHT_PX}",
    )  # fmt: skip


def plan(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Plan by the command; nothing is denoised."""
    del options
    return _command(
        work, "animate", str(work / "me.png"), str(work / "dance.mp4"), "--weights",
        str(work / "weights"), "--out", str(work / "out.mp4"), "--face-optimization", "published",
        "--dry-run", "--json",
    )  # fmt: skip


def animate(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Animate by the pipeline that the command uses; one gradient in the last step."""
    del options
    from animaray.platform.media.video import decode_video, read_picture

    os.environ["ANIMARAY_WEIGHTS"] = str(work / "kit")
    parts = Parts(torch.device("cpu"))
    with parts.measure("networks loaded"):
        pipeline = AnimationPipeline.from_pretrained(work / "weights")
    with parts.measure("picture and video looked at"):
        reference = pipeline.prepare_reference(read_picture(work / "me.png"))
        motion = pipeline.estimate_motion(decode_video(work / "dance.mp4").frames_uint8)
    settings = AnimationOptions(
        num_inference_steps=2,
        window_frames=8,
        window_overlap=4,
        face_optimization="published",
        face_optimization_config=FaceOptimizationConfig(
            mode="published", start_step=1, num_steps=1, num_iterations=1
        ),
    )
    expected = pipeline.estimate_memory(len(motion.keypoints), settings)
    moments: list[tuple[str, int, float]] = []

    def note(progress: AnimationProgress) -> None:
        moments.append((progress.phase, progress.step, time.perf_counter()))

    with parts.measure("animated"):
        animation = pipeline.animate(reference, motion, settings, note)
    print("\n".join(lines_of(parts, {})))
    deviation = parts.found["animated"].peak_bytes / expected.peak_bytes - 1
    return {
        "parts": parts.rows(),
        "moments_s": [(phase, step, round(at - moments[0][2], 2)) for phase, step, at in moments],
        "frames": list(animation.frames_uint8.shape),
        "face_losses": [step.losses for step in animation.face_optimization],
        "peak_bytes": parts.found["animated"].peak_bytes,
        "estimated_bytes": expected.peak_bytes,
        "measured_against_estimate": round(deviation, 3),
    }


def train(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make one optimizer step of the published recipe where it fits, in the smallest size."""
    del work
    sizes = SMALL if options.tiny else FULL
    recipe = animator_1gpu()
    animator = replace(
        recipe.animator, unet=sizes.unet, pose_net=sizes.pose_net, face_encoder=sizes.face_encoder,
        width_px=64, height_px=64, num_frames=2,
    )  # fmt: skip
    smallest = replace(recipe, animator=animator, window=replace(recipe.window, num_frames=2))
    # One process: no gradient is exchanged, so there are no buffers of them.
    alone = estimate_training_memory(smallest)
    needs = {"published recipe": alone.peak_bytes - alone.gradients_bytes // 2}
    lean = replace(
        smallest,
        optimizer=replace(smallest.optimizer, ema_decay=None),
        scale=replace(smallest.scale, precision="float32"),
    )
    needs["without averages, float32"] = (
        estimate_training_memory(lean).peak_bytes
        - estimate_training_memory(lean).gradients_bytes // 2
    )
    free = available_memory_bytes()
    facts: dict[str, Any] = {"needs_bytes": needs, "free_bytes": free}
    for name, config in (("published recipe", smallest), ("without averages, float32", lean)):
        if needs[name] + options.margin_gib * 2**30 > free:
            print(f"{name}: needs {gib(needs[name])} GiB, {gib(free)} are free")
            continue
        parts = train_step(config, torch.device("cpu"), repeats=0)
        print("\n".join(lines_of(parts, {})))
        return {**facts, "ran": name, "parts": parts.rows(), "peak_bytes": parts.peak_bytes}
    return {**facts, "ran": None}


def _command(work: Path, *words: str) -> dict[str, Any]:
    """Run a command in a process of its own; tell its seconds and the largest resident size."""
    environment = {**os.environ, "ANIMARAY_WEIGHTS": str(work / "kit")}
    start = time.monotonic()
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "animaray.cli.main", *words],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = round(time.monotonic() - start, 1)
    if done.returncode:
        sys.exit(done.stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    facts: dict[str, Any] = {"command_s": seconds, "resident_peak_bytes": peak}
    if "--json" in words:
        facts["memory"] = json.loads(done.stdout)["plan"]["memory"]
    return facts


def main() -> None:
    """Run the steps, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for 22 GB")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the script")
    parser.add_argument(
        "--margin-gib", type=float, default=3.0, help="memory that the training leaves to others"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--step", choices=_STEPS, help="one step only; the others were run before")
    options = parser.parse_args()
    if options.step is None:
        options.work.mkdir(parents=True)
        try:
            for name in _STEPS:
                again = [
                    sys.executable,
                    "-m",
                    "benchmarks.costs.full_size_cpu",
                    "--work",
                    str(options.work),
                    "--step",
                    name,
                ]
                again += ["--tiny"] if options.tiny else []
                again += ["--margin-gib", str(options.margin_gib)]
                if subprocess.run(again, check=False).returncode:  # noqa: S603 - this script
                    sys.exit(f"{name} failed")
        finally:
            if not options.keep:
                shutil.rmtree(options.work)
        return
    steps = dict(zip(_STEPS, (kit, import_, plan, animate, train), strict=True))
    start = time.monotonic()
    facts = steps[options.step](options.work, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = {"step": options.step, "wall_s": round(time.monotonic() - start, 1), **facts}
    facts["resident_peak_gib"] = gib(peak)
    write_json_atomic(options.work / f"result-{options.step}.json", facts)
    for name, value in facts.items():
        is_size = name.endswith("_bytes") and isinstance(value, int)
        if name != "parts":
            print(f"  {name}: {f'{gib(value)} GiB' if is_size else value}", flush=True)


if __name__ == "__main__":
    main()
