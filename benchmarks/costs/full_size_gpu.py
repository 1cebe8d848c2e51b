"""The published model at full size on one GPU: seconds and memory of every part, in one call.

    python -m benchmarks.costs.full_size_gpu --out OUT     a GPU of the H200 class: ten minutes
    python -m benchmarks.costs.full_size_gpu --out OUT --tiny --device cpu    what its test runs

16 frames 576x1024: 25 steps without and with face optimization, in float32 and bfloat16, with
torch.compile and CUDA graphs on and off; then optimizer steps of the published recipe. Weights are
random and made on the device. The most telling cases come first: when the budget ends, the rest is
left out and named. OUT/results.json has all, OUT/measured.json the peaks for
`animaray estimate --measured OUT/measured.json`; both are written anew after every case.
"""

import argparse
import gc
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from animaray.evaluation.measured_memory import MeasuredPeak, write_measured
from animaray.platform.storage import write_json_atomic
from animaray.training.memory import estimate_training_memory
from animaray.training.recipes import animator_1gpu
from benchmarks.costs.full_size_parts import (
    Case,
    Model,
    Parts,
    animate,
    animator_config,
    estimate,
    gib,
    graphed,
    lines_of,
    train_step,
)
from benchmarks.rehearsal.sizes import FULL, SMALL, KitSizes

MODEL_TFLOP = 152.497
"""Of one training pass, 16 frames 576x1024, nothing computed twice (benchmarks/costs/tables.py)."""
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "B200": 2250.0}
"""Dense bfloat16, as their makers state."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is animated and trained."""

    sizes: KitSizes
    width_px: int
    height_px: int
    num_frames: int
    num_steps: int


PUBLISHED = Shape(sizes=FULL, width_px=576, height_px=1024, num_frames=16, num_steps=25)
TINY = Shape(sizes=SMALL, width_px=64, height_px=64, num_frames=4, num_steps=2)


class Session:
    """Runs cases until the budget ends, and keeps what they gave."""

    def __init__(self, out: Path, device: torch.device, shape: Shape, budget_s: float) -> None:
        self.out, self.device, self.shape = out, device, shape
        self._end = time.monotonic() + budget_s
        self.cases: list[dict[str, Any]] = []
        self.measured: list[MeasuredPeak] = []
        self.left_out: list[str] = []
        is_cuda = device.type == "cuda"
        self.machine = torch.cuda.get_device_name(device) if is_cuda else "CPU"

    def run(self, name: str, needs_s: float, work: Callable[[], dict[str, Any]]) -> None:
        """Run one case if it fits into what is left; a failure is a result, too."""
        if time.monotonic() + needs_s > self._end:
            self.left_out.append(name)
            return
        print(f"\n== {name} ({self._end - time.monotonic():.0f} s left)", flush=True)
        start = time.monotonic()
        try:
            facts = work()
        except Exception as error:  # noqa: BLE001 - the other cases are wanted all the same
            facts = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
            print(facts["failed"], flush=True)
        self.cases.append({"case": name, "wall_s": round(time.monotonic() - start, 1), **facts})
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.write()

    def write(self) -> None:
        """Write what there is so far."""
        shape = self.shape
        document = {
            "machine": self.machine,
            "torch": torch.__version__,
            "width_px": shape.width_px,
            "height_px": shape.height_px,
            "num_frames": shape.num_frames,
            "cases": self.cases,
            "left_out": self.left_out,
        }
        write_json_atomic(self.out / "results.json", document)
        write_measured(self.out / "measured.json", self.measured)

    def keep(self, work: str, mode: str, precision: str, peak_bytes: int) -> None:
        """Keep a peak for `animaray estimate`."""
        self.measured.append(
            MeasuredPeak(
                work="animation" if work == "animation" else "training",
                width_px=self.shape.width_px,
                height_px=self.shape.height_px,
                num_frames=self.shape.num_frames,
                mode=mode,
                precision=precision,
                peak_bytes=peak_bytes,
                on=f"{self.machine}, {time.strftime('%Y-%m-%d')}",
            )
        )


def animation(session: Session, model: Model, case: Case) -> dict[str, Any]:
    """Run one animation; keep its peak where every step of it ran."""
    parts = animate(model, case)
    expected = estimate(model, case)
    compared = {
        "conditioning encoded": expected.pose_bytes,
        "reference encoded": expected.codec_bytes,
        "face optimization": expected.face_bytes,
        "decoded": expected.codec_bytes,
    }
    print("\n".join(lines_of(parts, compared)))
    print(f"peak {gib(parts.peak_bytes)} GiB, estimated {gib(expected.peak_bytes)} GiB", flush=True)
    session.keep("animation", case.mode, case.precision, parts.peak_bytes)
    denoising, faces = (
        parts.found[name].seconds if name in parts.found else 0.0
        for name in ("denoising with all in it", "face optimization")
    )
    return {
        "parts": parts.rows(),
        "s_per_step": (denoising - faces) / case.num_steps,
        "face_s": faces,
        "peak_bytes": parts.peak_bytes,
        "estimated_bytes": expected.peak_bytes,
    }


def switched(model: Model, case: Case, how: str) -> dict[str, Any]:
    """Run a short animation plainly, compiled or as a CUDA graph; the first run is the start."""
    unet: Any = model.animator.unet
    if how == "compiled":
        unet.compile()
    start = time.monotonic()
    with graphed(unet) if how == "graphed" else nullcontext():
        animate(model, replace(case, num_steps=1))
        first_s = time.monotonic() - start
        parts = animate(model, case)
    unet._compiled_call_impl = None  # noqa: SLF001 - nn.Module has no other way back
    step_s = parts.found["denoising with all in it"].seconds / case.num_steps
    print(f"{how}: first run {first_s:.1f} s, then {step_s:.3f} s a step", flush=True)
    return {
        "s_per_step": step_s,
        "first_run_s": first_s,
        "peak_bytes": parts.peak_bytes,
    }


def training(session: Session) -> dict[str, Any]:
    """Make optimizer steps of the published recipe."""
    shape, recipe = session.shape, animator_1gpu()
    config = replace(
        recipe,
        animator=animator_config(shape.sizes, shape.width_px, shape.height_px, shape.num_frames),
        window=replace(recipe.window, num_frames=shape.num_frames),
    )
    parts: Parts = train_step(config, session.device)
    expected = estimate_training_memory(config)
    steps = parts.found["steps"]
    step_s = steps.seconds / steps.calls
    session.keep("training", config.activation_checkpointing, "bf16", parts.peak_bytes)
    peak = next((v for name, v in PEAK_TFLOPS.items() if name in session.machine), None)
    is_published = shape == PUBLISHED
    facts = {
        "parts": parts.rows(),
        "s_per_step": step_s,
        "samples_per_s": config.scale.micro_batch_size / step_s,
        "mfu": MODEL_TFLOP / step_s / peak if peak and is_published else None,
        "peak_bytes": parts.peak_bytes,
        "estimated_bytes": expected.peak_bytes,
    }
    print("\n".join(lines_of(parts, {})))
    print(
        f"{facts['samples_per_s']:.3f} samples/s, MFU {facts['mfu']}, peak "
        f"{gib(parts.peak_bytes)} GiB, estimated {gib(expected.peak_bytes)} GiB",
        flush=True,
    )
    return facts


def run_all(session: Session) -> None:
    """Run the cases, the most telling first."""
    shape, device = session.shape, session.device
    session.run("training, published recipe", 60, lambda: training(session))
    config = animator_config(shape.sizes, shape.width_px, shape.height_px, shape.num_frames)
    model = Model.random(shape.sizes, config, device)
    plain = Case(num_frames=shape.num_frames, num_steps=shape.num_steps)
    half = replace(plain, precision="bf16")
    # Two of the published mode's 21 optimized steps tell its memory and the seconds of a gradient.
    few = replace(half, num_steps=2, mode="published", optimized_steps=2)
    short = replace(half, num_steps=min(4, shape.num_steps))
    session.run(half.name, 30, lambda: animation(session, model, half))
    session.run(few.name, 60, lambda: animation(session, model, few))
    fast = replace(half, mode="fast")
    session.run(fast.name, 60, lambda: animation(session, model, fast))
    session.run("plain U-Net, bf16", 15, lambda: switched(model, short, "plain"))
    if device.type == "cuda":
        session.run("CUDA graph, bf16", 20, lambda: switched(model, short, "graphed"))
    session.run(plain.name, 80, lambda: animation(session, model, plain))
    whole = replace(half, mode="published")
    session.run(whole.name, 120, lambda: animation(session, model, whole))
    if device.type == "cuda":
        session.run("torch.compile, bf16", 120, lambda: switched(model, short, "compiled"))
    single = replace(few, precision="float32")
    session.run(single.name, 60, lambda: animation(session, model, single))


def main() -> None:
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, for the test")
    parser.add_argument("--budget-s", type=float, default=540.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shape = TINY if options.tiny else PUBLISHED
    session = Session(options.out, torch.device(options.device), shape, options.budget_s)
    run_all(session)
    session.write()
    print(f"\nleft out for lack of time: {', '.join(session.left_out) or 'nothing'}")


if __name__ == "__main__":
    main()
