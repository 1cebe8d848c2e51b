"""Train a small temporal decoder on generated pictures, and show that plain crops mislead.

    OMP_NUM_THREADS=1 python -m benchmarks.quality.temporal_decoder train --out FILE --minutes 4
    OMP_NUM_THREADS=1 python -m benchmarks.quality.temporal_decoder compare --decoder FILE
    OMP_NUM_THREADS=1 python -m benchmarks.quality.temporal_decoder pack --decoder FILE --out FILE

The decoder has what Stable Video Diffusion's has (group norms over frame and clip, attention over
the frame in its middle block, convolutions over time), 32 channels and 2 pixels per latent cell.
Its latents are not learned: each cell's mean colour and its contrast. `compare` gives the cosine
of face gradients through windows, and through plainly cropped latents, to those through whole
frames. `pack` writes the decoder in half precision and some clips to one file for the tests
(tests/models/face/temporal_decoder.safetensors).
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.face.loss import (
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.windows import cell_boxes, face_boxes_px
from animaray.models.frames import to_frames
from animaray.models.perception.decoding.windowed_decoding import DecoderRecord, WindowedDecoder
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from animaray.models.perception.profiles import load_perception
from animaray.models.perception.protocols import IdentityEmbedder
from benchmarks.bundled_weights.render_cache import render_scene
from benchmarks.costs.face_optimization import PlainCrop, cosine

CELL_PX, SIZE_PX = 2, 64
FIRST_SCENE, FIRST_CLIP = 300_000, 900_000


def make_decoder() -> TemporalAutoencoderCodec:
    """Return the codec with random weights; its encoder is not used."""
    torch.manual_seed(0)
    return TemporalAutoencoderCodec(
        AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            layers_per_block=1,
            scaling_factor=1.0,
        )
    )


def encode(frames: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 4 h w"]:
    """Return each cell's mean colour and the deviation of its brightness, in units of about 1."""
    grey = frames.mean(dim=1, keepdim=True)
    mean, squares = nnf.avg_pool2d(grey, CELL_PX), nnf.avg_pool2d(grey.square(), CELL_PX)
    contrast = (squares - mean.square()).clamp(min=0).sqrt()
    return torch.cat([1.5 * nnf.avg_pool2d(frames, CELL_PX), 4 * contrast], dim=1)


def _small(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)


def train(out: Path, minutes: float) -> None:
    """Fit L1 on single pictures and on pairs of one scene, for some minutes of CPU time."""
    scenes = [
        to_frames(np.stack([_small(each.frame) for each in render_scene("train", scene)]))
        for scene in range(FIRST_SCENE, FIRST_SCENE + 60)
    ]
    codec = make_decoder()
    decoder = codec.autoencoder.decoder.requires_grad_()
    optimizer = torch.optim.Adam(decoder.parameters())
    rng, start, step = np.random.default_rng(0), time.process_time(), 0
    while (gone := (time.process_time() - start) / (60 * minutes)) < 1:
        frames = scenes[int(rng.integers(len(scenes)))][: 1 + step % 2]
        loss = (codec.decode(encode(frames)) - frames).abs().mean()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, 20 * gone) * (1 - gone) + 1e-5
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step}: L1 {loss.item():.3f}", flush=True)
    state = {name: value.contiguous() for name, value in decoder.state_dict().items()}
    save_file(state, out)
    print(f"{step} steps, {sum(value.numel() for value in state.values())} values")


def load(path: Path) -> TemporalAutoencoderCodec:
    """Return the codec with a trained decoder."""
    codec = make_decoder()
    state = {name: value.float() for name, value in load_file(path).items()}
    codec.autoencoder.decoder.load_state_dict(state)
    return codec


def render_faces(
    seed: int, num_frames: int, embedder: IdentityEmbedder, reference: np.ndarray
) -> tuple[Tensor, VisibleFaces] | None:
    """Return latents of a rendered clip and its face; None where no frame shows a small one.

    Args:
        seed: Of the clip.
        num_frames: Its length.
        embedder: Has the template.
        reference: Unit embedding of whom the face is to resemble.
    """
    spec = sample_clip_spec(
        seed, num_frames=num_frames, fps=8.0, framing="full", camera_kind="static", effects=()
    )
    clip = render_clip(spec)
    people = [frame.persons for frame in clip.truth.frames]
    if any(len(each) != 1 or not each[0].face_visible for each in people):
        return None
    height, width = clip.frames_uint8.shape[1:3]
    scale = np.array([SIZE_PX / width, SIZE_PX / height])
    landmarks = np.stack([each[0].landmarks * scale for each in people]).astype(np.float32)
    boxes_px = face_boxes_px(landmarks, embedder)
    cells = SIZE_PX // CELL_PX
    boxes = cell_boxes(boxes_px, CELL_PX, (cells, cells))
    if (boxes[:, 1].max(axis=0) - boxes[:, 0].min(axis=0)).max() > cells // 3:
        return None
    face = VisibleFaces(
        reference=torch.from_numpy(reference),
        rows=np.arange(num_frames),
        landmarks=landmarks,
        boxes_px=boxes_px,
        boxes=boxes,
    )
    return encode(to_frames(np.stack([_small(frame) for frame in clip.frames_uint8]))), face


def render_clips(
    count: int, embedder: IdentityEmbedder
) -> Iterator[tuple[str, Tensor, VisibleFaces]]:
    """Return names, latents and faces of clips of two frames, each with a target of its own.

    Args:
        count: How many.
        embedder: Has the template.
    """
    rng = np.random.default_rng(1)
    for seed in range(FIRST_CLIP, FIRST_CLIP + 20 * count):
        direction = rng.normal(size=embedder.embedding_dim).astype(np.float32)
        found = render_faces(seed, 2, embedder, direction / np.linalg.norm(direction))
        if found is not None and count:
            count -= 1
            yield str(seed), *found


def compare(path: Path, count: int) -> None:
    """Print the cosines for some clips of two frames."""
    codec = load(path)
    embedder = load_perception("generated", num_threads=1).identity_embedder
    windowed = codec.windowed()
    print(f"receptive margin {windowed.receptive_margin} cells")
    print("| clip | cells | loss | margin | all recorded | one recorded | plain crop |")
    for name, latents, face in render_clips(count, embedder):
        loss, full = FullFrameLoss(codec, embedder, [face])(latents)
        side = int((face.boxes[:, 1].max(axis=0) - face.boxes[:, 0].min(axis=0)).max())
        for margin in (2, 4):
            cosines = []
            decoders: list[tuple[WindowedDecoder, DecoderRecord]] = [
                (windowed, windowed.record(latents, 2)),
                (windowed, windowed.record(latents[:1], 2)),
                (PlainCrop(codec), DecoderRecord()),
            ]
            for decoder, record in decoders:
                decoding = WindowDecoding(
                    decoder=decoder, downscale=CELL_PX, record=record, margin=margin, multiple=1
                )
                part = WindowLoss(decoding, embedder, [face])(latents)[1]
                cosines.append(f"{cosine(part, full):.3f}")
            columns = [name, str(side), f"{loss:.3f}", str(margin), *cosines]
            print("| " + " | ".join(columns) + " |", flush=True)


def pack(path: Path, out: Path, count: int) -> None:
    """Write the decoder, and latents, landmarks and targets of some clips, to one file."""
    embedder = load_perception("generated", num_threads=1).identity_embedder
    tensors = {f"decoder.{name}": value.half() for name, value in load_file(path).items()}
    clips = list(render_clips(count, embedder))
    tensors["latents"] = torch.stack([latents for _, latents, _ in clips]).half()
    tensors["landmarks"] = torch.from_numpy(np.stack([face.landmarks for *_, face in clips]))
    tensors["references"] = torch.stack([face.reference for *_, face in clips])
    save_file(tensors, out)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "compare", "pack"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--clips", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part == "train":
        train(args.out, args.minutes)
    elif args.part == "compare":
        compare(args.decoder, args.clips)
    else:
        pack(args.decoder, args.out, args.clips)


if __name__ == "__main__":
    main()
