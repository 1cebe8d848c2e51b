"""The published model with random weights, part by part: seconds and peak memory of each.

`full_size_gpu.py` and `full_size_cpu.py` call it. Networks are made on the device itself; nothing
is read from a disk.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from animaray.models.animation.memory import MemoryEstimate, estimate_memory
from animaray.models.diffusion.sampler import sample
from animaray.models.diffusion.sampler_config import SamplerConfig, StepInfo
from animaray.models.face.optimization import FaceOptimizer, FaceTarget
from animaray.models.face.optimization_config import (
    FaceOptimizationConfig,
    FaceOptimizationMode,
)
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
from animaray.models.perception.paper.clip_image_encoder import ClipImageEncoder
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from animaray.training.animator import AnimatorObjective, select_trainable
from animaray.training.animator_batches import AnimatorBatch
from animaray.training.configs import AnimatorTrainingConfig
from animaray.training.ema import Ema
from animaray.training.engines import make_engine
from animaray.training.train_loop import learning_rate
from benchmarks.rehearsal.random_networks import random_network
from benchmarks.rehearsal.sizes import KitSizes

FACE_SHARE = 1 / 6
"""Side of the face against the shorter side of the frame, as the estimate assumes."""
_SAMPLE_S = 0.02


@dataclass
class Part:
    """What one part of an animation or a training took."""

    name: str
    seconds: float = 0.0
    peak_bytes: int = 0
    """Largest sum that was held, weights included."""
    above_bytes: int = 0
    """Of it, above what was held when the part began."""
    calls: int = 0


@dataclass
class _Held:
    """Memory around a block."""

    before: int
    peak: int


class Parts:
    """All parts of one run, by name; parts may lie in one another.

    On a GPU memory is what PyTorch's tensors hold. On a CPU it is the process's own pages, looked
    at 50 times a second; mapped files are left out.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.found: dict[str, Part] = {}
        self._open: list[_Held] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the block to a part."""
        part = self.found.setdefault(name, Part(name=name))
        self._look(starts_anew=True)
        held = _Held(before=self._now(), peak=self._now())
        self._open.append(held)
        with self._watched():
            start = time.perf_counter()
            yield
            _wait(self.device)
            part.seconds += time.perf_counter() - start
        self._look(starts_anew=True)
        self._open.remove(held)
        part.calls += 1
        part.peak_bytes = max(part.peak_bytes, held.peak)
        part.above_bytes = max(part.above_bytes, held.peak - held.before)

    @property
    def peak_bytes(self) -> int:
        """The largest of all."""
        return max(part.peak_bytes for part in self.found.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return plain data."""
        return [vars(part) for part in self.found.values()]

    def _now(self) -> int:
        is_cuda = self.device.type == "cuda"
        return torch.cuda.memory_allocated(self.device) if is_cuda else own_pages()

    def _look(self, *, starts_anew: bool = False) -> None:
        """Bring the peaks of all open blocks up to date."""
        if self.device.type == "cuda":
            _wait(self.device)
            found = torch.cuda.max_memory_allocated(self.device)
            if starts_anew:
                torch.cuda.reset_peak_memory_stats(self.device)
        else:
            found = own_pages()
        for held in self._open:
            held.peak = max(held.peak, found)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Look again and again: a CPU's peak is kept by nobody else."""
        if self.device.type == "cuda" or len(self._open) > 1:
            yield
            return
        done = threading.Event()

        def look() -> None:
            while not done.wait(_SAMPLE_S):
                self._look()

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def own_pages() -> int:
    """Return the bytes of memory of this process that are no mapped files."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def animator_config(sizes: KitSizes, width_px: int, height_px: int, frames: int) -> AnimatorConfig:
    """Return the published configuration in these sizes."""
    return replace(
        AnimatorConfig.published(),
        unet=sizes.unet,
        pose_net=sizes.pose_net,
        face_encoder=sizes.face_encoder,
        width_px=width_px,
        height_px=height_px,
        num_frames=frames,
    )


@dataclass
class Model:
    """All networks of the published model on one device."""

    config: AnimatorConfig
    animator: Animator
    codec: TemporalAutoencoderCodec
    image_encoder: ClipImageEncoder
    embedder: ArcFaceEmbedder
    device: torch.device

    @classmethod
    def random(cls, sizes: KitSizes, config: AnimatorConfig, device: torch.device) -> "Model":
        """Make the networks on the device."""
        torch.manual_seed(0)
        with torch.device(device):
            animator = Animator(config)
            vae, clip, face = (
                random_network(name, sizes) for name in ("vae", "image_encoder", "arc_face")
            )
        for layer in (animator.pose_net.final_proj, animator.face_encoder.fusion_model.proj_out):
            torch.nn.init.normal_(layer.weight, std=0.02)
        return cls(
            config=config,
            animator=animator.requires_grad_(requires_grad=False).eval(),
            codec=TemporalAutoencoderCodec(vae),
            image_encoder=ClipImageEncoder(clip.requires_grad_(requires_grad=False)),
            embedder=ArcFaceEmbedder(face).to(device),
            device=device,
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One animation."""

    num_frames: int = 16
    num_steps: int = 25
    mode: FaceOptimizationMode = "off"
    num_gradients: int | None = None
    """In each optimized step; None: the mode's own."""
    optimized_steps: int | None = None
    """Denoising steps that are optimized; None: the mode's own."""
    precision: str = "float32"

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.num_steps} steps, faces {self.mode}, {self.precision}"


def animate(model: Model, case: Case) -> Parts:
    """Animate noise with the product's own sampler and face optimization; measure each part."""
    config, device, parts = model.config, model.device, Parts(model.device)
    generator = torch.Generator().manual_seed(0)
    frame = torch.rand(1, 3, config.height_px, config.width_px, generator=generator).to(device)
    is_half = case.precision == "bf16"
    half = torch.autocast(device.type, torch.bfloat16, enabled=is_half)
    with torch.no_grad():
        with parts.measure("reference encoded"), half:
            reference = model.codec.encode(frame * 2 - 1).float()
        with parts.measure("image embedded"), half:
            image = model.image_encoder.encode(frame * 2 - 1)
        poses = torch.zeros(1, case.num_frames, 3, config.height_px, config.width_px, device=device)
        conditioning = Conditioning(
            reference_latents=reference,
            image_embedding=image,
            identity_embedding=torch.randn(1, config.identity_dim, device=device),
            pose_images=poses,
        )
        with parts.measure("conditioning encoded"), half:
            encoded = model.animator.encode_conditioning(conditioning)
    optimizer = _face_optimizer(model, case)

    def correct(denoised: Tensor, step: StepInfo) -> Tensor:
        with parts.measure("face optimization"), half:
            return optimizer(denoised, step) if optimizer else denoised

    settings = SamplerConfig(
        num_inference_steps=case.num_steps,
        window_frames=case.num_frames,
        window_overlap=min(4, case.num_frames - 1),
        use_bfloat16=is_half,
    )
    with parts.measure("denoising with all in it"):
        latents = sample(
            model.animator,
            encoded,
            case.num_frames,
            settings,
            functools.partial(torch.randn, generator=generator),
            correct if optimizer else None,
        )
    with torch.no_grad(), parts.measure("decoded"), half:
        for chunk in torch.split(latents[0], model.codec.decode_frames):
            model.codec.decode(chunk)
    return parts


def _face_optimizer(model: Model, case: Case) -> FaceOptimizer | None:
    if case.mode == "off":
        return None
    config, embedder = model.config, model.embedder
    side = min(config.width_px, config.height_px) * FACE_SHARE
    corner = np.array([(config.width_px - side) / 2, config.height_px / 8])
    points = embedder.template() * ((side - 1) / 111) + corner
    unit = np.zeros(embedder.embedding_dim, np.float32)
    unit[0] = 1.0
    target = FaceTarget(
        reference_embedding=unit,
        landmarks=np.repeat(points[None], case.num_frames, axis=0).astype(np.float32),
    )
    settings: dict[str, Any] = {"num_iterations": case.num_gradients}
    if case.optimized_steps is not None:
        settings |= {"start_step": 0, "num_steps": case.optimized_steps}
    faces = FaceOptimizationConfig(mode=case.mode, **settings)
    return FaceOptimizer(model.codec, embedder, [target], faces)


def estimate(model: Model, case: Case) -> MemoryEstimate:
    """Return what the product estimates for a case before it starts."""
    config = model.config
    return estimate_memory(config, case.num_frames, config.width_px, config.height_px, case.mode)


def train_step(config: AnimatorTrainingConfig, device: torch.device, *, repeats: int = 2) -> Parts:
    """Make optimizer steps of a training on random clips; the first one is a part of its own.

    Args:
        config: A recipe; batches of its micro batch, one pass a step.
        device: Where.
        repeats: Steps after the first.

    Raises:
        ArithmeticError: A gradient is not finite.
    """
    parts, animator_settings = Parts(device), config.animator
    torch.manual_seed(0)
    with parts.measure("networks made"):
        with torch.device(device):
            animator = Animator(animator_settings).train()
        select_trainable(animator, config.trainable)
        animator.unet.recompute(config.activation_checkpointing)
        objective = AnimatorObjective(animator, config.loss, config.scale.precision)
        engine = make_engine(objective, config.optimizer, config.scale, num_passes=1)
        average = (
            Ema(objective, config.optimizer.ema_decay, rank=0, world_size=1)
            if config.optimizer.ema_decay is not None
            else None
        )
    batch = _random_batch(config).to(device)
    for index in range(1 + repeats):
        with parts.measure("first step" if index == 0 else "steps"):
            measured = engine.forward(batch, index, is_last_pass=True)
            engine.backward(measured.loss)
            norm = engine.step(learning_rate(index, config.optimizer, config.loop.num_steps))
            if average is not None:
                average.update(index)
        if not np.isfinite(norm):
            raise ArithmeticError(f"The gradient's norm is {norm}.")
    return parts


def _random_batch(config: AnimatorTrainingConfig) -> AnimatorBatch:
    animator, count = config.animator, config.scale.micro_batch_size
    frames, scale = config.window.num_frames, animator.downscale
    height, width = animator.height_px // scale, animator.width_px // scale
    return AnimatorBatch(
        latents=torch.randn(count, frames, animator.latent_channels, height, width),
        face_mask=torch.zeros(count, frames, 1, height, width),
        conditioning=Conditioning(
            reference_latents=torch.randn(count, animator.latent_channels, height, width),
            image_embedding=torch.randn(count, animator.image_embedding_dim),
            identity_embedding=torch.randn(count, animator.identity_dim),
            pose_images=torch.zeros(count, frames, 3, animator.height_px, animator.width_px),
        ),
    )


@contextmanager
def graphed(unet: Any) -> Iterator[None]:  # noqa: ANN401 - diffusers' network
    """Replay the U-Net as a CUDA graph inside the block; equal inputs give equal outputs."""
    plain: Callable[..., Tensor] = unet.forward
    captured: dict[int, tuple[Any, list[Tensor], Tensor]] = {}

    def forward(*inputs: Tensor | None) -> Tensor:
        given = [each for each in inputs if each is not None]
        if len(given) not in captured:
            captured[len(given)] = _capture(plain, given)
        graph, places, output = captured[len(given)]
        for place, value in zip(places, given, strict=True):
            place.copy_(value)
        graph.replay()
        return output.clone()

    unet.forward = forward
    try:
        yield
    finally:
        del unet.forward


def _capture(
    plain: Callable[..., Tensor], inputs: list[Tensor]
) -> tuple[Any, list[Tensor], Tensor]:
    places = [value.clone() for value in inputs]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch's own
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            plain(*places)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = plain(*places)
    return graph, places, output


def gib(value: float) -> float:
    """Return bytes as GiB, two digits."""
    return round(value / 2**30, 2)


def lines_of(parts: Parts, compared: Mapping[str, int]) -> list[str]:
    """Return a table: seconds, peak and what was estimated for the same part."""
    rows = [f"{'part':28s} {'s':>9s} {'calls':>6s} {'peak GiB':>9s} {'above':>8s} {'estimate':>9s}"]
    for part in parts.found.values():
        wanted = compared.get(part.name)
        rows.append(
            f"{part.name:28s} {part.seconds:9.3f} {part.calls:6d} {gib(part.peak_bytes):9.2f} "
            f"{gib(part.above_bytes):8.2f} {'' if wanted is None else f'{gib(wanted):9.2f}'}"
        )
    return rows


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
