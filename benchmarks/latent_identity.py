"""Identity gradients without the codec's decoder: a head on latents, and a small decoder.

    OMP_NUM_THREADS=1 python benchmarks/latent_identity.py train --out /tmp/latent --minutes 5
    OMP_NUM_THREADS=1 python benchmarks/latent_identity.py gradients --networks /tmp/latent
    OMP_NUM_THREADS=1 python benchmarks/latent_identity.py clips --networks /tmp/latent

Both are distilled from the generated codec's decoder and recogniser on faces of other people than
those they are tried on, and compared with `literal` and `fast` on the generated world. `clips` uses
them with a guard: the true loss is computed before and after each denoising step's iterations, and
where it did not fall, the step is done anew with true gradients.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from face_optimization_world import (
    NUM_STEPS,
    CapturingRun,
    Case,
    background,
    facts,
    make_cases,
    visible_faces,
)
from latent_identity_networks import (
    LatentIdentity,
    SmallDecoder,
    disturb,
    joined,
    label,
    render_windows,
    sample_places,
    train_decoder,
    train_head,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from animaray.models.alignment.alignment import AlignedPose
from animaray.models.animation.options import AnimationOptions
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.animation.result import Animation
from animaray.models.animation.run import AnimationParts, AnimationRun
from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.face.loss import (
    FaceLoss,
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
    identity_distances,
)
from animaray.models.face.optimization import FaceOptimizer, optimize_latents
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.face.windows import cell_mask
from animaray.models.perception.decoding.windowed_decoding import DecoderRecord, StagedDecoder
from animaray.models.perception.face_sampling import align_frames
from animaray.models.perception.profiles import load_codec, load_perception
from animaray.models.perception.protocols import IdentityEmbedder
from animaray.platform.weights.store import bundled_folder

STEPS = (10, 17, 19, 21)
SETTINGS = FaceOptimizationConfig()


class HeadLoss:
    """The head's idea of the loss; implements FaceLoss."""

    def __init__(self, head: LatentIdentity, faces: list[VisibleFaces]) -> None:
        self._head, self._faces = head, faces

    def __call__(self, latents: Tensor) -> tuple[float, Tensor]:
        """See FaceLoss."""
        size = int(latents.shape[-2]), int(latents.shape[-1])
        num_faces = sum(len(face.rows) for face in self._faces)
        with torch.enable_grad():
            leaf = latents.detach().requires_grad_()
            total = torch.zeros(())
            for face in self._faces:
                found = self._head(leaf[face.rows], *sample_places(face.landmarks, size))
                total = total + (1 - found @ face.reference).abs().sum() / num_faces
            (gradient,) = torch.autograd.grad(total, leaf)
        return float(total.detach()), gradient


def window_loss(
    decoder: StagedDecoder, embedder: IdentityEmbedder, faces: list[VisibleFaces]
) -> WindowLoss:
    """Return `fast`'s loss through one decoder or another."""
    decoding = WindowDecoding(
        decoder=decoder,
        downscale=8,
        record=DecoderRecord(),
        margin=SETTINGS.window_margin_latents,
        multiple=SETTINGS.window_multiple_latents,
    )
    return WindowLoss(decoding, embedder, faces)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What `train` made."""

    head: LatentIdentity
    decoder: SmallDecoder

    @classmethod
    def load(cls, folder: Path) -> "Networks":
        """Load both from a folder."""
        networks = cls(head=LatentIdentity(), decoder=SmallDecoder())
        for name in ("head", "decoder"):
            network: nn.Module = getattr(networks, name)
            network.load_state_dict(load_file(folder / f"{name}.safetensors"))
            network.eval().requires_grad_(False)  # noqa: FBT003 - PyTorch's
        return networks

    def loss(self, name: str, embedder: IdentityEmbedder, faces: list[VisibleFaces]) -> FaceLoss:
        """Return the loss that one of them sees."""
        if name == "head":
            return HeadLoss(self.head, faces)
        return window_loss(self.decoder.windowed(), embedder, faces)


def train(out: Path, minutes: float, count: int) -> None:
    """Render faces, label them, train both networks.

    The head is trained twice: the second time also with latents that its own optimization led to.

    Args:
        out: Folder to write.
        minutes: CPU time of each network.
        count: Rendered faces.
    """
    out.mkdir(parents=True, exist_ok=True)
    codec, generator = load_codec("generated"), torch.Generator().manual_seed(0)
    embedder = load_perception("generated", num_threads=1).identity_embedder
    start = time.process_time()
    clean, landmarks = render_windows(codec, count)
    print(f"{count} faces rendered: {time.process_time() - start:.0f} CPU s", flush=True)
    whose = label(clean, landmarks, torch.zeros(count, 128), codec, embedder).embeddings
    references = whose[torch.randperm(count, generator=generator)]
    windows = torch.cat([disturb(clean, generator) for _ in range(2)])
    twice = np.concatenate([landmarks, landmarks])
    samples = label(windows, twice, torch.cat([references, references]), codec, embedder)
    print(f"labelled: {time.process_time() - start:.0f} CPU s", flush=True)
    head, decoder = LatentIdentity(), SmallDecoder()
    print("head:", train_head(head, samples, 30 * minutes), "steps", flush=True)
    moved = windows.clone()
    places = sample_places(twice, (16, 16))
    for rows in torch.split(torch.arange(len(moved)), 64):
        part = [each[rows] for each in places]
        moved[rows] = _optimized_by(head, moved[rows], part, samples.references[rows])
    is_new = torch.rand(len(moved), generator=generator) < 0.5
    references = samples.references[is_new]
    more = label(moved[is_new], twice[is_new.numpy()], references, codec, embedder)
    samples = joined(samples, more)
    print("head:", train_head(head, samples, 30 * minutes), "steps", flush=True)
    steps = train_decoder(decoder, samples, embedder, 60 * minutes)
    print(f"decoder: {steps} steps; {time.process_time() - start:.0f} CPU s in all", flush=True)
    for name, network in (("head", head), ("decoder", decoder)):
        save_file(network.state_dict(), out / f"{name}.safetensors")


def _optimized_by(
    head: LatentIdentity, windows: Tensor, places: Sequence[Tensor], references: Tensor
) -> Tensor:
    """Return latents after some of Adam's steps along the head's gradients."""

    def loss(latents: Tensor) -> tuple[float, Tensor]:
        leaf = latents.detach().requires_grad_()
        total = -(head(leaf, *places) * references).sum()
        return float(total.detach()), torch.autograd.grad(total, leaf)[0]

    count = int(torch.randint(2, 8, ()))
    return optimize_latents(windows, loss, learning_rate=0.1, num_iterations=count)[0]


def gradients(pipeline: AnimationPipeline, cases: Sequence[Case], networks: Networks) -> None:
    """Compare single gradients, and ten Adam steps, on estimates of runs without optimization."""
    codec, embedder = pipeline.codec, pipeline.perception.identity_embedder
    parts = AnimationParts(
        animator=pipeline.animator, aligner=None, codec=codec,
        image_encoder=pipeline.image_encoder, perception=pipeline.perception,
    )  # fmt: skip
    print("| clip, step | gradients by | cosine | loss at the start | after ten | share of drop "
          "| background | CPU ms a gradient |")  # fmt: skip
    for case in cases:
        options = AnimationOptions(seed=1, num_inference_steps=NUM_STEPS, alignment="none")
        capturing = CapturingRun(parts, [(case.reference, case.motion)], options, None)
        capturing.steps = STEPS
        animation = capturing.animate()
        is_background = torch.from_numpy(background(animation, pipeline))[:, None]
        for index, latents in capturing.capture.estimates.items():
            face = visible_faces(case, animation, pipeline, latents)
            mask = torch.zeros_like(latents[:, :1])
            mask[face.rows] = cell_mask(face.boxes, 0, tuple(latents.shape[-2:])).float()
            literal = FullFrameLoss(codec, embedder, [face])
            losses: dict[str, tuple[FaceLoss, Tensor | None]] = {
                "literal": (literal, None),
                "fast": (window_loss(codec.windowed(), embedder, [face]), mask),  # type: ignore[attr-defined]
                "small decoder": (networks.loss("decoder", embedder, [face]), mask),
                "head": (networks.loss("head", embedder, [face]), mask),
            }
            _compare_gradients(
                f"{case.name}, {index}", latents, losses, codec.decode, is_background
            )


def _compare_gradients(
    name: str,
    latents: Tensor,
    losses: dict[str, tuple[FaceLoss, Tensor | None]],
    decode: Callable[[Tensor], Tensor],
    is_background: Tensor,
) -> None:
    literal = losses["literal"][0]
    start, full = literal(latents)
    ends: dict[str, float] = {}
    changes: dict[str, float] = {}
    for kind, (loss, mask) in losses.items():
        begin = time.process_time()
        gradient = loss(latents)[1]
        milliseconds = 1000 * (time.process_time() - begin)
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), full.flatten(), dim=0)
        end, _ = optimize_latents(
            latents, loss, learning_rate=0.1, num_iterations=10, update_mask=mask
        )
        ends[kind] = literal(end)[0]
        with torch.no_grad():
            change = (decode(end) - decode(latents)).square().mean(dim=1, keepdim=True)
        changes[kind] = float(change[is_background].mean().sqrt())
        drop = (start - ends[kind]) / (start - ends["literal"])
        print(
            f"| {name} | {kind} | {float(cosine):.3f} | {start:.3f} | {ends[kind]:.3f} "
            f"| {drop:.2f} | {changes[kind] / changes['literal']:.3f} | {milliseconds:.0f} |",
            flush=True,
        )


class GuardedOptimizer(FaceOptimizer):
    """Cheap gradients, true ones in steps where these did not lower the true loss."""

    cheap: Callable[[list[VisibleFaces]], FaceLoss]

    def _loss(
        self, faces: list[VisibleFaces], record: DecoderRecord, *, is_whole: bool = False
    ) -> FaceLoss:
        self._true = super()._loss(faces, record, is_whole=is_whole)
        return self.cheap(faces) if self._is_cheap else self._true

    def __call__(self, denoised: Tensor, step: StepInfo) -> Tensor:
        """Return the estimate with faces nearer to the references'."""
        self._is_cheap, self._true = True, None
        result = super().__call__(denoised, step)
        if self._true is None:
            return result
        before, after = (self._value(each[0]) for each in (denoised, result))
        self.guarded.append(after < before)
        if after < before:
            return result
        self._is_cheap = False
        return super().__call__(denoised, step)

    def _value(self, latents: Tensor) -> float:
        """Return the true loss; forward only, as no gradient is asked for."""
        embedder, total, count = self._embedder, 0.0, 0
        size = embedder.crop_height_px, embedder.crop_width_px
        with torch.no_grad():
            for index in range(len(self._targets)):
                face = self._visible(index, latents)
                if face is not None:
                    frames = self._codec.decode(latents[face.rows]).clamp(-1, 1)
                    marks = torch.from_numpy(face.landmarks)
                    crops = align_frames(frames, marks, embedder.template(), size)
                    total += float(identity_distances(embedder, crops, face.reference).sum())
                    count += len(face.rows)
        return total / max(count, 1)


class _GuardedRun(AnimationRun):
    cheap: Callable[[list[VisibleFaces]], FaceLoss]

    def _make_optimizer(self, poses: Sequence[AlignedPose]) -> FaceOptimizer | None:
        optimizer = super()._make_optimizer(poses)
        if optimizer is not None:
            optimizer.__class__ = GuardedOptimizer
            optimizer.cheap, optimizer.guarded = self.cheap, []  # type: ignore[attr-defined]
            self.made = optimizer
        return optimizer


def clips(pipeline: AnimationPipeline, cases: Sequence[Case], networks: Networks) -> None:
    """Compare finished animations at `fast`'s own noise levels."""
    embedder = pipeline.perception.identity_embedder
    parts = AnimationParts(
        animator=pipeline.animator, aligner=None, codec=pipeline.codec,
        image_encoder=pipeline.image_encoder, perception=pipeline.perception,
    )  # fmt: skip
    print("| clip | gradients by | CSIM | face L1 | background | gradients | steps the guard let "
          "pass | CPU s |")  # fmt: skip
    for case in cases:
        plain: Animation | None = None
        for name, kind, iterations in (
            ("off", "", 0), ("fast", "", 3), ("small decoder", "decoder", 3), ("head", "head", 3),
            ("small decoder, ten", "decoder", 10), ("head, ten", "head", 10),
        ):  # fmt: skip
            config = FaceOptimizationConfig(
                mode="fast" if iterations else "off", num_iterations=iterations or None
            )
            options = AnimationOptions(
                seed=1, num_inference_steps=NUM_STEPS, alignment="none",
                face_optimization_config=config,
            )  # fmt: skip
            cast = [(case.reference, case.motion)]
            run = (_GuardedRun if kind else AnimationRun)(parts, cast, options, None)
            if isinstance(run, _GuardedRun):
                run.cheap = lambda faces, kind=kind: networks.loss(kind, embedder, faces)  # type: ignore[misc]
            begin = time.process_time()
            animation = run.animate()
            seconds = time.process_time() - begin
            plain = plain or animation
            row = facts(animation, plain, case, background(plain, pipeline))
            passed = run.made.guarded if isinstance(run, _GuardedRun) else []  # type: ignore[attr-defined]
            print(
                f"| {case.name} | {name} | {row['csim']:.3f} | {row['face l1 to truth']:.2f} | "
                f"{row['background change']:.2f} | {row['gradients']:.0f} | "
                f"{sum(passed)} of {len(passed)} | {seconds:.1f} |",
                flush=True,
            )


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "gradients", "clips"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--faces", type=int, default=1200)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--animator", type=Path, default=bundled_folder() / "animator")
    parser.add_argument("--frames", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.part == "train":
        train(args.out, args.minutes, args.faces)
        return
    pipeline = AnimationPipeline.from_pretrained(args.animator)
    cases = make_cases(pipeline, args.clips, args.frames)
    networks = Networks.load(args.networks)
    (gradients if args.part == "gradients" else clips)(pipeline, cases, networks)


if __name__ == "__main__":
    main()
