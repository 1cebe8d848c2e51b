"""Compare `fast` face optimization with `literal`: counted at full size, and timed on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.costs.face_optimization counted
    OMP_NUM_THREADS=1 python -m benchmarks.costs.face_optimization decoder --case 256   # 10 GiB
    OMP_NUM_THREADS=1 python -m benchmarks.costs.face_optimization decoder --case 384   # 15 GiB

`counted` needs no weights and no hardware. `decoder` times one gradient of each kind through the
full-size decoder of Stable Video Diffusion with random weights, warm, in one run; CPU seconds of
one thread. benchmarks/quality/face_optimization_world.py measures quality with trained networks.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float32
from torch import Tensor, nn

from animaray.models.face.loss import (
    FaceLoss,
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.windows import cell_boxes, face_boxes_px
from animaray.models.perception.decoding.windowed_decoding import DecoderRecord, DecodeWindow
from animaray.models.perception.paper.iresnet import IResNet, IResNetConfig
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from benchmarks.costs.operation_counts import OperationCounts, count_operations

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]],
    np.float32,
)  # fmt: skip
"""Where ArcFace's aligned crops have the five landmarks (insightface)."""
UNET_TFLOP, NUM_STEPS, REST_TFLOP, FINAL_DECODE_TFLOP = 103.3, 25, 3.0, 111.1
"""Cost model of one clip of 16 frames, 576x1024: one guided U-Net step, Euler steps, the rest."""


class ArcFaceEmbedder(nn.Module):
    """IResNet behind the embedder's interface; weights are whatever the network has."""

    def __init__(self, config: IResNetConfig) -> None:
        super().__init__()
        self.name, self.embedding_dim = "iresnet", config.embedding_dim
        self.crop_height_px = self.crop_width_px = 112
        self.network = IResNet(config)

    def template(self) -> Float32[np.ndarray, "5 2"]:
        """Return ArcFace's template."""
        return ARCFACE_TEMPLATE.copy()

    def embed(self, frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Not needed here."""
        raise NotImplementedError

    def embed_crops(self, crops: Tensor) -> Tensor:
        """Return unit embeddings."""
        return nnf.normalize(self.network(crops), dim=1)


class PlainCrop:
    """The negative control: decode the cropped latents as if they were a frame."""

    shares_window, needs_record, receptive_margin = True, False, 0

    def __init__(self, codec: TemporalAutoencoderCodec) -> None:
        self._codec = codec

    def record(self, latents: Tensor, num_frames: int) -> DecoderRecord:
        """Nothing is recorded."""
        del latents, num_frames
        return DecoderRecord()

    def decode_window(self, windows: Tensor, window: DecodeWindow, record: DecoderRecord) -> Tensor:
        """Decode the crop, return the core."""
        del record
        left, top = ((window.core_corners - window.corners)[0] * self._codec.downscale).tolist()
        height, width = (self._codec.downscale * side for side in window.core_size)
        return self._codec.decode(windows)[..., top : top + height, left : left + width]


@dataclass(frozen=True, kw_only=True)
class FullSize:
    """The full-size networks and a clip's latents."""

    codec: TemporalAutoencoderCodec
    embedder: ArcFaceEmbedder
    latents: Tensor
    face: VisibleFaces

    def literal(self) -> FullFrameLoss:
        """Return Algorithm 1's loss."""
        return FullFrameLoss(self.codec, self.embedder, [self.face])

    def fast(self, record: DecoderRecord, margin: int, multiple: int = 8) -> WindowLoss:
        """Return the windowed loss."""
        decoding = WindowDecoding(
            decoder=self.codec.windowed(), downscale=8, record=record, margin=margin,
            multiple=multiple,
        )  # fmt: skip
        return WindowLoss(decoding, self.embedder, [self.face])

    def plain(self, margin: int) -> WindowLoss:
        """Return the negative control."""
        decoding = WindowDecoding(
            decoder=PlainCrop(self.codec), downscale=8, record=DecoderRecord(), margin=margin,
            multiple=1,
        )  # fmt: skip
        return WindowLoss(decoding, self.embedder, [self.face])


def make_full_size(  # noqa: PLR0913 - one case of the tables
    *,
    num_frames: int,
    height_px: int,
    width_px: int,
    face_px: int,
    arcface: IResNetConfig,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FullSize:
    """Build networks with random weights and a clip with a centred face.

    Args:
        num_frames: Length of the clip.
        height_px: Of the frames.
        width_px: Of the frames.
        face_px: Side of the face's box, which starts at a whole latent cell.
        arcface: Size of the recogniser.
        device: `cpu`, or `meta` to count only.
        dtype: Of networks and latents.
    """
    with torch.device(device):
        autoencoder = AutoencoderKLTemporalDecoder(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=2,
        )
        embedder = ArcFaceEmbedder(arcface)
        if device != "meta":
            _calibrate(embedder.network)
        latents = torch.randn(num_frames, 4, height_px // 8, width_px // 8, dtype=dtype)
        reference = nnf.normalize(torch.randn(embedder.embedding_dim, dtype=dtype), dim=0)
    codec = TemporalAutoencoderCodec(autoencoder).to(device, dtype)
    embedder = embedder.to(device, dtype).requires_grad_(False).eval()  # noqa: FBT003
    corner = np.array([(width_px - face_px) // 16 * 8, (height_px - face_px) // 16 * 8])
    # The footprint's outermost sampled pixels are the box's own.
    points = ARCFACE_TEMPLATE * ((face_px - 1) / 111) + corner
    landmarks = np.repeat(points[None], num_frames, axis=0).astype(np.float32)
    boxes_px = face_boxes_px(landmarks, embedder)
    face = VisibleFaces(
        reference=reference,
        rows=np.arange(num_frames),
        landmarks=landmarks,
        boxes_px=boxes_px,
        boxes=cell_boxes(boxes_px, 8, (height_px // 8, width_px // 8)),
    )
    return FullSize(codec=codec, embedder=embedder, latents=latents, face=face)


@torch.no_grad()
def _calibrate(network: IResNet) -> None:
    """Fit the norms' statistics to noise pictures, so that random embeddings vary."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    coarse = torch.rand(16, 3, 14, 14) * 2 - 1
    network.train()(nnf.interpolate(coarse, size=112, mode="bicubic"))
    network.eval()


def count_gradient(case: FullSize, loss: FaceLoss) -> OperationCounts:
    """Return the cost of one gradient, recogniser included."""
    return count_operations(lambda: loss(case.latents))


def clip_tflop(gradient_tflop: float, record_tflop: float, num_steps: int, num_iter: int) -> float:
    """Return the cost of a whole clip by the cost model.

    Args:
        gradient_tflop: Of one gradient.
        record_tflop: Of one record.
        num_steps: Optimized denoising steps.
        num_iter: Gradients in each.
    """
    plain = NUM_STEPS * UNET_TFLOP + REST_TFLOP + FINAL_DECODE_TFLOP
    return plain + num_steps * (num_iter * gradient_tflop + record_tflop)


def counted() -> None:
    """Print the counts for 16 frames 576x1024 with a 96-pixel face, ArcFace-100, bfloat16."""
    case = make_full_size(
        num_frames=16, height_px=576, width_px=1024, face_px=96, arcface=IResNetConfig(),
        device="meta", dtype=torch.bfloat16,
    )  # fmt: skip
    decoder = case.codec.windowed()
    recorded = count_operations(lambda: decoder.record(case.latents[:1], 16))
    record = decoder.record(case.latents[:1], 16)
    record_tflop = recorded.flops / 1e12
    print(f"record of one frame: {record_tflop:.2f} TFLOP, {recorded.peak_bytes / 2**30:.2f} GiB")
    print("| gradient | window | TFLOP | GiB | operators | clip, 10x10 | clip, 5x3 |")
    rows: list[tuple[str, str, OperationCounts, float]] = []
    for margin in (0, 2, 4, 6, 13, 18):
        loss = case.fast(record, margin)
        window = loss.plan(case.face, case.latents)
        counts = count_gradient(case, loss)
        rows.append((f"fast, margin {margin}", f"{window.size}", counts, record_tflop))
    rows.append(("literal", "whole", count_gradient(case, case.literal()), 0.0))
    for name, window_text, counts, of_record in rows:
        tflop = counts.flops / 1e12
        clips = [clip_tflop(tflop, of_record, *budget) for budget in ((10, 10), (5, 3))]
        print(
            f"| {name} | {window_text} | {tflop:.2f} | {counts.peak_bytes / 2**30:.2f} | "
            f"{counts.num_operators} | {clips[0]:,.0f} | {clips[1]:,.0f} |"
        )


def timed(function: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float]:
    """Return a result and the median CPU seconds of some repeats."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return result, statistics.median(seconds)


def cosine(first: Tensor, second: Tensor) -> float:
    """Return the cosine between two gradients."""
    return float(nnf.cosine_similarity(first.double().flatten(), second.double().flatten(), dim=0))


def decoder(case_name: str, margins: list[int], repeats: int) -> None:
    """Time gradients through the full-size decoder, and compare them with the full one."""
    num_frames, height, width = {"256": (4, 256, 256), "384": (2, 384, 512)}[case_name]
    torch.manual_seed(0)
    case = make_full_size(
        num_frames=num_frames, height_px=height, width_px=width, face_px=64,
        arcface=IResNetConfig(blocks=(3, 4, 14, 3)),
    )  # fmt: skip
    windowed = case.codec.windowed()
    start = time.process_time()
    one_frame = windowed.record(case.latents[:1], num_frames)
    seconds_one = time.process_time() - start
    start = time.process_time()
    all_frames = windowed.record(case.latents, num_frames)
    seconds_all = time.process_time() - start
    print(f"{num_frames} frames {width}x{height}, 64 px face, ArcFace-50, random weights, fp32")
    print(f"record of one frame: {seconds_one:.1f} CPU s, of all: {seconds_all:.1f}", flush=True)
    full, full_seconds = timed(lambda: case.literal()(case.latents)[1], 1)
    print(f"literal: {full_seconds:.1f} CPU s")
    print("| gradient | CPU s | literal / this | cosine to literal |", flush=True)
    for margin in margins:
        for name, loss, count in (
            ("fast, record of one frame", case.fast(one_frame, margin), repeats),
            ("fast, record of all frames", case.fast(all_frames, margin), 1),
            ("plain crop", case.plain(margin), 1),
        ):
            gradient, seconds = timed(lambda loss=loss: loss(case.latents)[1], count)  # type: ignore[misc]
            print(
                f"| {name}, margin {margin} | {seconds:.2f} | {full_seconds / seconds:.1f}x | "
                f"{cosine(gradient, full):.4f} |",
                flush=True,
            )


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("counted", "decoder"))
    parser.add_argument("--case", choices=("256", "384"), default="256")
    parser.add_argument("--margins", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part == "counted":
        counted()
    else:
        decoder(args.case, args.margins, args.repeats)


if __name__ == "__main__":
    main()
