"""Compare `fast` face optimization with `literal` on the generated world, with trained networks.

    OMP_NUM_THREADS=1 python -m benchmarks.quality.face_optimization_world gradients --clips 3
    OMP_NUM_THREADS=1 python -m benchmarks.quality.face_optimization_world clips --clips 4
    OMP_NUM_THREADS=1 python -m benchmarks.quality.face_optimization_world steps --clips 3

`gradients` takes the estimates of a run without optimization, and compares ten Adam steps of each
kind on them, judged by the full decoder. `clips` compares finished animations. `steps` compares
windows of denoising steps at an equal number of gradients. People and clips are none that the
bundled networks were trained on. Reference and driving clip show the same person (the clip's own
first frame), so the true frames are known: the face's distance to them shows over-optimization.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.animation.options import AnimationOptions
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.animation.result import Animation
from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.face.landmarks import landmarks_from_keypoints
from animaray.models.face.loss import (
    FaceLoss,
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.optimization import FaceOptimizationStep, optimize_latents
from animaray.models.face.optimization_config import (
    FaceOptimizationConfig,
    FaceOptimizationMode,
)
from animaray.models.face.windows import cell_boxes, cell_mask, face_boxes_px
from animaray.models.perception.decoding.windowed_decoding import DecoderRecord, windowed_decoder_of
from animaray.models.subjects.motion import Motion
from animaray.models.subjects.reference import Reference
from animaray.platform.errors import UsageError
from animaray.platform.weights.store import bundled_folder

FIRST_CLIP = 700_000
FPS, SIZE_PX, NUM_STEPS = 8.0, 192, 25
UPDATE_MARGINS = (0, 1)
"""Margins around the face that `gradients` compares."""
FRAMINGS = ("half", "close", "half", "full")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One clip to animate."""

    reference: Reference
    motion: Motion
    truth: np.ndarray
    name: str


def make_cases(pipeline: AnimationPipeline, count: int, num_frames: int) -> list[Case]:
    """Return clips of people who are found in every frame.

    Args:
        pipeline: Finds them.
        count: How many clips.
        num_frames: Length of each.
    """
    cases: list[Case] = []
    seed = FIRST_CLIP
    while len(cases) < count:
        framing = FRAMINGS[len(cases) % len(FRAMINGS)]
        spec = sample_clip_spec(
            seed, num_frames=num_frames, fps=FPS, framing=framing, camera_kind="static", effects=()
        )
        seed += 1
        if len(spec.person_seeds) != 1:
            continue
        frames = np.stack([_square(frame) for frame in render_clip(spec).frames_uint8])
        detector = pipeline.perception.face_detector
        if not all(len(detector.detect(frame)) == 1 for frame in frames):
            continue
        reference = pipeline.prepare_reference(frames[0])
        motion = pipeline.estimate_motion(frames)
        truth = reference.fit.apply_frames(frames)
        name = f"{framing} {seed - 1}"
        cases.append(Case(reference=reference, motion=motion, truth=truth, name=name))
    return cases


def _square(frame: np.ndarray) -> np.ndarray:
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    part = frame[top : top + side, left : left + side]
    return cv2.resize(part, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)


def run(
    pipeline: AnimationPipeline, case: Case, config: FaceOptimizationConfig
) -> tuple[Animation, float]:
    """Animate one clip; return it and the CPU seconds it took."""
    start = time.process_time()
    animation = pipeline.animate(
        case.reference,
        case.motion,
        AnimationOptions(
            seed=1, num_inference_steps=NUM_STEPS, alignment="none", face_optimization_config=config
        ),
    )
    return animation, time.process_time() - start


def background(animation: Animation, pipeline: AnimationPipeline) -> np.ndarray:
    """Return which pixels are at least two latent cells away from the face's crop."""
    embedder = pipeline.perception.identity_embedder
    landmarks, _ = landmarks_from_keypoints(
        animation.keypoints, animation.keypoint_confidence, embedder.template()
    )
    is_background = np.ones(animation.frames_uint8.shape[:3], bool)
    for frame in np.flatnonzero(np.isfinite(landmarks[:, 0, 0])):
        (left, top), (right, bottom) = face_boxes_px(landmarks[frame][None], embedder)[0]
        rows = slice(max(0, int(top) - 24), max(0, int(bottom) + 25))
        is_background[frame, rows, max(0, int(left) - 24) : max(0, int(right) + 25)] = False
    return is_background


def facts(
    animation: Animation, plain: Animation, case: Case, is_background: np.ndarray
) -> dict[str, float]:
    """Return identity, distance of the face to the truth, and background change to `plain`."""
    own, truth = (frames.astype(np.float32) for frames in (animation.frames_uint8, case.truth))
    change = own - plain.frames_uint8
    has_background = bool(is_background.any())
    return {
        "csim": float(np.nanmean(animation.identity_similarity)),
        "face l1 to truth": float(np.abs(own - truth)[~is_background].mean()),
        "background change": float(np.sqrt((change[is_background] ** 2).mean()))
        if has_background
        else 0.0,
        "gradients": float(sum(len(entry.losses) for entry in animation.face_optimization)),
    }


def compare(
    pipeline: AnimationPipeline,
    cases: Sequence[Case],
    configs: Mapping[str, FaceOptimizationConfig],
) -> None:
    """Print, for each way of optimizing, the means over the clips."""
    sums: dict[str, list[dict[str, float]]] = {}
    for case in cases:
        plain, seconds = run(pipeline, case, FaceOptimizationConfig(mode="off"))
        is_background = background(plain, pipeline)
        sums.setdefault("off", []).append(
            facts(plain, plain, case, is_background) | {"cpu s": seconds}
        )
        for name, config in configs.items():
            animation, seconds = run(pipeline, case, config)
            row = facts(animation, plain, case, is_background) | {"cpu s": seconds}
            sums.setdefault(name, []).append(row)
            print(f"  {case.name}: {name}: {_text(row)}", flush=True)
    columns = list(next(iter(sums.values()))[0])
    print(f"| {len(cases)} clips of {len(cases[0].truth)} frames | " + " | ".join(columns) + " |")
    for name, rows in sums.items():
        means = {key: float(np.mean([row[key] for row in rows])) for key in columns}
        print(f"| {name} | " + " | ".join(f"{means[key]:.4g}" for key in columns) + " |")


def _text(row: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in row.items())


def clips(pipeline: AnimationPipeline, cases: Sequence[Case]) -> None:
    """Compare the modes' own settings."""
    modes: tuple[FaceOptimizationMode, ...] = ("literal", "fast")
    compare(pipeline, cases, {mode: FaceOptimizationConfig(mode=mode) for mode in modes})


def steps(pipeline: AnimationPipeline, cases: Sequence[Case], mode: str) -> None:
    """Compare windows of denoising steps at a hundred gradients each (0-20: 21 steps, 105)."""
    base = FaceOptimizationConfig(mode="literal" if mode == "literal" else "fast")
    budgets = {
        "0-9": (0, 10, 10), "5-14": (5, 10, 10), "10-19": (10, 10, 10), "0-20": (0, 21, 5),
        "0-19": (0, 20, 5),
    }  # fmt: skip
    configs = {
        f"{mode} {name}, {iterations} each": replace(
            base,
            start_step=start,
            num_steps=count,
            num_iterations=iterations,
            stop_below_gain=0.0,
        )
        for name, (start, count, iterations) in budgets.items()
    }
    compare(pipeline, cases, configs)


def budgets(pipeline: AnimationPipeline, cases: Sequence[Case]) -> None:
    """Compare how many gradients are worth their cost, in the steps `fast` works at."""
    configs = {}
    for start, count, iterations in (
        (10, 10, 3), (10, 5, 3), (15, 5, 3), (15, 5, 6), (17, 5, 3), (20, 5, 3),
    ):  # fmt: skip
        configs[f"fast {start}-{start + count - 1}, {iterations} each"] = FaceOptimizationConfig(
            start_step=start, num_steps=count, num_iterations=iterations, stop_below_gain=0.0
        )
    compare(pipeline, cases, configs)


class _Capture:
    """Keeps the estimates of some steps; stands where the optimizer stands."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.history: list[FaceOptimizationStep] = []
        self.estimates: dict[int, Tensor] = {}
        self._steps = steps

    def __call__(self, denoised: Tensor, step: StepInfo) -> Tensor:
        if step.step_index in self._steps:
            self.estimates[step.step_index] = denoised[0].clone()
        return denoised


class CapturingPipeline(AnimationPipeline):
    """A pipeline that keeps the estimates of some steps and optimizes nothing."""

    steps: Sequence[int] = (5, 10, 17)

    def face_optimizer(self, *_: object) -> _Capture:  # type: ignore[override]
        """Return what stands where the optimizer stands."""
        self.capture = _Capture(self.steps)
        return self.capture


def visible_faces(
    case: Case, animation: Animation, pipeline: AnimationPipeline, latents: Tensor
) -> VisibleFaces:
    """Return where the driving pose says that the face is.

    Args:
        case: Whose face.
        animation: Has the aligned pose.
        pipeline: Has the recogniser and the codec.
        latents: Of the clip, for their size.
    """
    embedder, codec = pipeline.perception.identity_embedder, pipeline.codec
    landmarks, _ = landmarks_from_keypoints(
        animation.keypoints, animation.keypoint_confidence, embedder.template()
    )
    rows = np.flatnonzero(np.isfinite(landmarks[:, 0, 0]))
    boxes_px = face_boxes_px(landmarks[rows], embedder)
    size = int(latents.shape[-2]), int(latents.shape[-1])
    return VisibleFaces(
        reference=torch.from_numpy(case.reference.identity_embedding),
        rows=rows,
        landmarks=landmarks[rows],
        boxes_px=boxes_px,
        boxes=cell_boxes(boxes_px, codec.downscale, size),
    )


def gradients(pipeline: AnimationPipeline, cases: Sequence[Case]) -> None:
    """Compare gradients and ten Adam steps on the estimates of runs without optimization.

    Args:
        pipeline: The bundled one.
        cases: Clips.

    Raises:
        UsageError: The codec cannot decode windows.
    """
    codec, embedder = pipeline.codec, pipeline.perception.identity_embedder
    settings, decoder = FaceOptimizationConfig(), windowed_decoder_of(codec)
    if decoder is None:
        raise UsageError(f"Codec {codec.name} cannot decode windows.")
    capturing = CapturingPipeline(
        pipeline.animator, None, codec, pipeline.image_encoder, pipeline.perception
    )
    heads = [f"margin {m}: fast | share of drop | background" for m in UPDATE_MARGINS]
    print("| clip, step | cosine | loss | after ten: literal | " + " | ".join(heads) + " |")
    for case in cases:
        options = AnimationOptions(seed=1, num_inference_steps=NUM_STEPS, alignment="none")
        animation = capturing.animate(case.reference, case.motion, options)
        is_background = torch.from_numpy(background(animation, pipeline))[:, None]
        for index, latents in capturing.capture.estimates.items():
            size = int(latents.shape[-2]), int(latents.shape[-1])
            face = visible_faces(case, animation, pipeline, latents)
            literal = FullFrameLoss(codec, embedder, [face])
            decoding = WindowDecoding(
                decoder=decoder, downscale=codec.downscale,
                record=DecoderRecord(), margin=settings.window_margin_latents,
                multiple=settings.window_multiple_latents,
            )  # fmt: skip
            fast = WindowLoss(decoding, embedder, [face])
            start, full = literal(latents)
            trials: list[tuple[FaceLoss, Tensor | None]] = [(literal, None)]
            for margin in UPDATE_MARGINS:
                mask = torch.zeros_like(latents[:, :1])
                mask[face.rows] = cell_mask(face.boxes, margin, size).float()
                trials.append((fast, mask))
            ends, changes = [], []
            for loss, update_mask in trials:
                end, _ = optimize_latents(
                    latents, loss, learning_rate=0.1, num_iterations=10, update_mask=update_mask
                )
                ends.append(literal(end)[0])
                with torch.no_grad():
                    change = codec.decode(end) - codec.decode(latents)
                of_pixels = change.square().mean(dim=1, keepdim=True)
                changes.append(float(of_pixels[is_background].mean().sqrt()))
            cosine = _cosine(fast(latents)[1], full)
            cells = [f"{case.name}, {index}", f"{cosine:.4f}", f"{start:.3f}", f"{ends[0]:.3f}"]
            for end_loss, change_of in zip(ends[1:], changes[1:], strict=True):
                drop = (start - end_loss) / (start - ends[0])
                cells += [f"{end_loss:.3f}", f"{drop:.2f}", f"{change_of / changes[0]:.3f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("gradients", "clips", "steps", "budgets"))
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--animator", type=Path, default=bundled_folder() / "animator")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--mode", choices=("fast", "literal"), default="fast")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = AnimationPipeline.from_pretrained(args.animator)
    cases = make_cases(pipeline, args.clips, args.frames)
    if args.part == "gradients":
        gradients(pipeline, cases)
    elif args.part == "clips":
        clips(pipeline, cases)
    elif args.part == "steps":
        steps(pipeline, cases, args.mode)
    elif args.part == "budgets":
        budgets(pipeline, cases)


if __name__ == "__main__":
    main()
