"""The parts of the published system as computations on the meta device, ready to be counted.

Sizes are the published ones, weights have shapes only, numbers are bfloat16 as on a GPU.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from diffusers.models.attention import TemporalBasicTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from animaray.models.diffusion.sampler import GuidedDenoiser
from animaray.models.face.loss import (
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.face.windows import cell_boxes, face_boxes_px
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import ActivationCheckpointing, AnimatorConfig
from animaray.models.networks.conditioning import EncodedConditioning
from animaray.models.networks.pose_net import PoseNet, PoseNetConfig
from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
from animaray.models.perception.paper.iresnet import IResNet, IResNetConfig
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec

DTYPE = torch.bfloat16
CONTEXT_TOKENS = 5
"""One image token and four face tokens."""
NUMBERS_TOLD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSize:
    """What is animated."""

    width_px: int = 576
    """Of the frames."""
    height_px: int = 1024
    """Of the frames."""
    num_frames: int = 16
    """Frames denoised together."""
    face_px: int = 96
    """Side of the face's box."""

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, height, width of the latents."""
        return self.num_frames, 4, self.height_px // 8, self.width_px // 8


def tensor(*shape: int) -> Tensor:
    """Return a tensor that has a shape only."""
    return torch.empty(*shape, device="meta", dtype=DTYPE)


def stock_unet(size: ClipSize, *, batch: int) -> Callable[[], object]:
    """Stable Video Diffusion's own U-Net without adapter, five context tokens.

    Args:
        size: The clip.
        batch: 2 runs both branches of guidance at once.
    """
    with _on_meta():
        unet = UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20), num_frames=25)
    unet = _frozen(unet)
    frames, _, height, width = size.latent_shape
    inputs = (
        tensor(batch, frames, 8, height, width),
        tensor(batch),
        tensor(batch, CONTEXT_TOKENS, 1024),
        tensor(batch, NUMBERS_TOLD),
    )
    return torch.no_grad()(lambda: unet(*inputs).sample)


def sampler_step(size: ClipSize) -> Callable[[], object]:
    """Our denoising step with guidance: both branches, one after the other."""
    with _on_meta():
        animator = Animator(AnimatorConfig.published())
    animator = _frozen(animator)
    frames, channels, height, width = size.latent_shape
    encoded = EncodedConditioning(
        image_tokens=tensor(1, 1, 1024),
        face_tokens=tensor(1, CONTEXT_TOKENS - 1, 1024),
        reference_latents=tensor(1, channels, height, width),
        pose_features=tensor(1, frames, 320, height, width),
    )
    denoise = GuidedDenoiser(
        animator,
        encoded,
        torch.full((frames,), 3.0),
        window_frames=frames,
        window_overlap=1,
        window_rule="published",
    )
    latents = tensor(1, frames, channels, height, width)
    return torch.no_grad()(lambda: denoise(latents, 1.0))


def training_step(
    size: ClipSize, mode: ActivationCheckpointing, *, stock: bool
) -> Callable[[], object]:
    """Forward and backward pass of one clip; gradients of all weights that can learn.

    Args:
        size: The clip.
        mode: What is computed again instead of stored.
        stock: Stable Video Diffusion's own U-Net instead of ours with the adapter.
    """
    unet: Any
    with _on_meta():
        if stock:
            unet = UNetSpatioTemporalConditionModel(
                num_attention_heads=(5, 10, 20, 20), num_frames=25
            )
        else:
            unet = Animator(AnimatorConfig.published()).unet
    unet = _to_meta(unet).train()
    if not stock:
        unet.recompute(mode)
    elif mode != "none":
        unet.enable_gradient_checkpointing()
        for block in unet.modules():
            # diffusers leaves its temporal blocks out.
            if mode == "all" and isinstance(block, TemporalBasicTransformerBlock):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    frames, _, height, width = size.latent_shape
    inputs = (
        tensor(1, frames, 8, height, width),
        tensor(1),
        tensor(1, CONTEXT_TOKENS, 1024),
        tensor(1, NUMBERS_TOLD),
    )
    weights = [weight for weight in unet.parameters() if weight.requires_grad]

    def step() -> object:
        output = unet(*inputs)
        output = output.sample if stock else output
        return torch.autograd.grad(output.sum(), weights)

    return step


def codec() -> TemporalAutoencoderCodec:
    """Stable Video Diffusion's autoencoder with shapes only."""
    with _on_meta():
        autoencoder = AutoencoderKLTemporalDecoder(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=2,
        )
    return TemporalAutoencoderCodec(_frozen(autoencoder))


def encode_frame(size: ClipSize) -> Callable[[], object]:
    """Pixels of one frame to latents."""
    autoencoder, frame = codec(), tensor(1, 3, size.height_px, size.width_px)
    return torch.no_grad()(lambda: autoencoder.encode(frame))


def decode_clip(size: ClipSize) -> Callable[[], object]:
    """Latents of the clip to pixels, all frames together."""
    autoencoder, latents = codec(), tensor(*size.latent_shape)
    return torch.no_grad()(lambda: autoencoder.decode(latents))


def decoder_gradient(size: ClipSize) -> Callable[[], object]:
    """Gradient through the whole decoder, without a recogniser."""
    autoencoder, latents = codec(), tensor(*size.latent_shape).requires_grad_()
    return lambda: torch.autograd.grad(autoencoder.decode(latents).sum(), latents)


def literal_gradient(size: ClipSize) -> Callable[[], object]:
    """One gradient of Algorithm 1: decoder on whole frames, ArcFace-100 on every face."""
    loss = FullFrameLoss(codec(), arcface(), [face(size)])
    latents = tensor(*size.latent_shape)
    return lambda: loss(latents)


def fast_gradient(size: ClipSize) -> Callable[[], object]:
    """One gradient of the `fast` mode with its default window."""
    decoder, config = codec().windowed(), FaceOptimizationConfig()
    latents = tensor(*size.latent_shape)
    decoding = WindowDecoding(
        decoder=decoder,
        downscale=8,
        record=decoder.record(latents[:1], size.num_frames),
        margin=config.window_margin_latents,
        multiple=config.window_multiple_latents,
    )
    loss = WindowLoss(decoding, arcface(), [face(size)])
    return lambda: loss(latents)


def fast_record(size: ClipSize) -> Callable[[], object]:
    """What `fast` decodes once per denoising step: one whole frame."""
    decoder, latents = codec().windowed(), tensor(*size.latent_shape)
    return lambda: decoder.record(latents[:1], size.num_frames)


def arcface_gradient(size: ClipSize) -> Callable[[], object]:
    """Embedding of every frame's aligned face, and its gradient."""
    embedder, crops = arcface(), tensor(size.num_frames, 3, 112, 112).requires_grad_()
    return lambda: torch.autograd.grad(embedder.embed_crops(crops).sum(), crops)


def image_encoder(size: ClipSize) -> Callable[[], object]:
    """CLIP ViT-H/14 on one picture."""
    del size
    config = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        projection_dim=1024,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
        hidden_act="gelu",
    )
    with _on_meta():
        network = CLIPVisionModelWithProjection(config)
    network = _frozen(network)
    pixels = tensor(1, 3, 224, 224)
    return torch.no_grad()(lambda: network(pixels).image_embeds)


def pose_net(size: ClipSize) -> Callable[[], object]:
    """PoseNet on all frames, once per clip."""
    with _on_meta():
        network = PoseNet(PoseNetConfig())
    network = _frozen(network)
    pictures = tensor(size.num_frames, 3, size.height_px, size.width_px)
    return torch.no_grad()(lambda: network(pictures))


def arcface() -> ArcFaceEmbedder:
    """ArcFace-100 with shapes only."""
    with _on_meta():
        embedder = ArcFaceEmbedder(IResNet(IResNetConfig()))
    return _frozen(embedder)


def face(size: ClipSize) -> VisibleFaces:
    """Return one face in the middle of every frame, its box at whole latent cells."""
    embedder = arcface()
    corner = np.array([size.width_px - size.face_px, size.height_px - size.face_px]) // 16 * 8
    points = embedder.template() * ((size.face_px - 1) / 111) + corner
    landmarks = np.repeat(points[None], size.num_frames, axis=0).astype(np.float32)
    boxes_px = face_boxes_px(landmarks, embedder)
    height, width = size.latent_shape[2:]
    return VisibleFaces(
        reference=tensor(embedder.embedding_dim),
        rows=np.arange(size.num_frames),
        landmarks=landmarks,
        boxes_px=boxes_px,
        boxes=cell_boxes(boxes_px, 8, (height, width)),
    )


@contextmanager
def _on_meta() -> Iterator[None]:
    with torch.device("meta"), warnings.catch_warnings():
        # Initialising weights without numbers: some layers say that nothing happens.
        warnings.simplefilter("ignore", UserWarning)
        yield


def _to_meta(network: Any) -> Any:  # noqa: ANN401 - any network; diffusers' are untyped
    """Move what a constructor made on the CPU all the same, and choose the type."""
    return nn.Module.to(network, torch.device("meta"), DTYPE)


def _frozen(network: Any) -> Any:  # noqa: ANN401 - any network; diffusers' are untyped
    return _to_meta(network).requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's signature
