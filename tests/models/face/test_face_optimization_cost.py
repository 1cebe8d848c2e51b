"""Operations and memory of one face gradient at full size, counted without weights or hardware."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn

from animaray.models.face.loss import (
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.face.windows import cell_boxes, face_boxes_px
from animaray.models.perception.paper.iresnet import IResNet, IResNetConfig
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from benchmarks.costs.operation_counts import count_operations

TERA, GIB = 1e12, 2**30
FRAMES, HEIGHT, WIDTH, FACE_PX = 16, 72, 128, 96
UNET_CLIP_TFLOP = 25 * 103.3 + 111.1 + 3.0  # Euler 25 with guidance, final decode, the rest


class ArcFace(nn.Module):
    name, embedding_dim, crop_height_px, crop_width_px = "iresnet-100", 512, 112, 112

    def __init__(self):
        super().__init__()
        self.network = IResNet(IResNetConfig())

    def template(self):
        points = [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]
        return np.array(points, np.float32)

    def embed(self, frame, landmarks):
        raise NotImplementedError

    def embed_crops(self, crops):
        return nn.functional.normalize(self.network(crops), dim=1)


@pytest.fixture(scope="module")
def full_size():
    with torch.device("meta"):
        autoencoder = AutoencoderKLTemporalDecoder(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=2,
        )
        embedder = ArcFace()
        reference = torch.empty(512, dtype=torch.bfloat16)
        latents = torch.empty(FRAMES, 4, HEIGHT, WIDTH, dtype=torch.bfloat16)
    codec = TemporalAutoencoderCodec(autoencoder).to("meta", torch.bfloat16)
    embedder = embedder.to(torch.bfloat16).requires_grad_(False).eval()
    # A 96 px face whose box does not start at a whole latent cell: it touches 13 x 13 cells.
    landmarks = (embedder.template() * (FACE_PX - 1) / 111 + np.array([467, 243])).astype("f4")
    landmarks = np.repeat(landmarks[None], FRAMES, axis=0)
    boxes_px = face_boxes_px(landmarks, embedder)
    boxes = cell_boxes(boxes_px, 8, (HEIGHT, WIDTH))
    assert (boxes[0, 1] - boxes[0, 0]).tolist() == [13, 13]
    face = VisibleFaces(
        reference=reference,
        rows=np.arange(FRAMES),
        landmarks=landmarks,
        boxes_px=boxes_px,
        boxes=boxes,
    )
    return codec, embedder, latents, face


def test_a_literal_gradient_costs_what_the_plan_says(full_size):
    codec, embedder, latents, face = full_size
    loss = FullFrameLoss(codec, embedder, [face])
    counts = count_operations(lambda: loss(latents))
    assert counts.flops / TERA == pytest.approx(225.7, rel=0.001)
    assert counts.peak_bytes / GIB == pytest.approx(179.6, rel=0.01)


def test_a_fast_gradient_is_far_cheaper(full_size):
    codec, embedder, latents, face = full_size
    settings = FaceOptimizationConfig()
    decoder = codec.windowed()
    recorded = count_operations(lambda: decoder.record(latents[:1], FRAMES))
    loss = WindowLoss(
        WindowDecoding(
            decoder=decoder,
            downscale=codec.downscale,
            record=decoder.record(latents[:1], FRAMES),
            margin=settings.window_margin_latents,
            multiple=settings.window_multiple_latents,
        ),
        embedder,
        [face],
    )
    counts = count_operations(lambda: loss(latents))
    assert counts.flops / TERA <= 7.0
    assert counts.peak_bytes / GIB <= 2.2
    gradient, record = counts.flops / TERA, recorded.flops / TERA
    assert UNET_CLIP_TFLOP + 10 * (10 * gradient + record) <= 3500
