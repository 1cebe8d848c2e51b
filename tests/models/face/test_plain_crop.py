"""The negative control: a plain crop of the latents misleads where a window does not.

The decoder is a small one of Stable Video Diffusion's class (norms over frame and clip, attention
over the frame, convolutions over time), trained by benchmarks/quality/temporal_decoder.py;
its file also has the clips.
"""

from pathlib import Path

import numpy as np
import pytest
from diffusers import AutoencoderKLTemporalDecoder
from safetensors.torch import load_file
from torch.nn import functional

from animaray.models.face.loss import (
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.face.windows import cell_boxes, face_boxes_px
from animaray.models.perception.decoding.windowed_decoding import DecoderRecord
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from animaray.models.perception.profiles import load_perception

TRAINED = Path(__file__).with_name("temporal_decoder.safetensors")
MARGIN = FaceOptimizationConfig().window_margin_latents


class PlainCrop:
    """Decodes cropped latents as if they were a frame."""

    shares_window, needs_record, receptive_margin = True, False, 0

    def __init__(self, codec):
        self.codec = codec

    def record(self, latents, num_frames):
        raise NotImplementedError

    def decode_window(self, windows, window, record):  # noqa: ARG002
        left, top = ((window.core_corners - window.corners)[0] * self.codec.downscale).tolist()
        height, width = (self.codec.downscale * side for side in window.core_size)
        return self.codec.decode(windows)[..., top : top + height, left : left + width]


@pytest.fixture(scope="module")
def embedder():
    return load_perception("generated", num_threads=1).identity_embedder


@pytest.fixture(scope="module")
def tensors():
    return {name: value.float() for name, value in load_file(TRAINED).items()}


@pytest.fixture(scope="module")
def codec(tensors):
    autoencoder = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        layers_per_block=1,
        scaling_factor=1.0,
    )
    start = "decoder."
    state = {name.removeprefix(start): tensors[name] for name in tensors if name.startswith(start)}
    autoencoder.decoder.load_state_dict(state)
    return TemporalAutoencoderCodec(autoencoder)


def losses_of(clip, tensors, codec, embedder):
    """Return a clip's latents, and the loss by whole frames, by window and by plain crop."""
    latents, landmarks = tensors["latents"][clip], tensors["landmarks"][clip].numpy()
    size = tuple(latents.shape[-2:])
    boxes_px = face_boxes_px(landmarks, embedder)
    face = VisibleFaces(
        reference=tensors["references"][clip],
        rows=np.arange(len(landmarks)),
        landmarks=landmarks,
        boxes_px=boxes_px,
        boxes=cell_boxes(boxes_px, codec.downscale, size),
    )
    windowed = codec.windowed()
    decoders = {
        "window": (windowed, windowed.record(latents, len(latents))),
        "plain": (PlainCrop(codec), DecoderRecord()),
    }
    losses = {"whole": FullFrameLoss(codec, embedder, [face])}
    for name, (decoder, record) in decoders.items():
        decoding = WindowDecoding(
            decoder=decoder, downscale=codec.downscale, record=record, margin=MARGIN, multiple=1
        )
        losses[name] = WindowLoss(decoding, embedder, [face])
    window = losses["window"].plan(face, latents)
    assert window.size[0] * window.size[1] < 0.5 * size[0] * size[1]
    return latents, losses


@pytest.mark.parametrize("clip", [0, 1])
def test_a_plain_crop_fails_the_bar_that_a_window_keeps(clip, tensors, codec, embedder):
    latents, losses = losses_of(clip, tensors, codec, embedder)
    values, gradients = zip(*(losses[name](latents) for name in losses), strict=True)
    cosines = [
        functional.cosine_similarity(gradient.flatten(), gradients[0].flatten(), dim=0).item()
        for gradient in gradients
    ]
    assert cosines[1] >= 0.97
    assert cosines[2] < 0.9
    # The plain crop is wrong about the loss itself, too.
    errors = [abs(value - values[0]) for value in values]
    assert errors[1] < 0.2 * errors[2]
