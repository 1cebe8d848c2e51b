"""Stable Video Diffusion's frozen parts from a diffusers folder: its VAE and its image encoder.

Configs are read by a closed list of settings, so that no file decides which code runs; weights are
safetensors or plain state dicts, and every key must fit.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from animaray.models.perception.checkpoint_files import Shapes, fill_network, open_state, shapes_of
from animaray.platform.errors import WeightsError
from animaray.platform.weights.whole_files import CONFIG_FILE

VAE_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
"""Names under which a diffusers part may lie, best first."""
UNET_FILES = VAE_FILES
"""The U-Net is such a part, too."""
IMAGE_ENCODER_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")
"""Names under which a transformers part may lie, best first."""
OLD_IMAGE_ENCODER_KEYS = ("vision_model.embeddings.position_ids",)
"""A counter that old transformers stored, and that nothing needs."""

VAE_CONFIG: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}
"""Settings of the published VAE."""
IMAGE_ENCODER_CONFIG: Mapping[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_channels": 3,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 1024,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
"""Settings of the published image encoder, CLIP ViT-H/14."""
_INERT = {
    "architectures", "attention_dropout", "dropout", "dtype", "initializer_factor",
    "initializer_range", "model_type", "torch_dtype", "transformers_version",
}  # fmt: skip
"""Settings of transformers that change nothing in inference."""


def read_part_config(folder: Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part's settings: the published ones, replaced by those of its config.json if any.

    Args:
        folder: Holds config.json, or not.
        defaults: Every setting that is known, with its published value.

    Raises:
        WeightsError: The file is no JSON object, or has settings that are not known.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        return dict(defaults)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} is not valid JSON: {error}.", reason="damaged") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{file} is no JSON object.", reason="damaged")
    given = {key: value for key, value in data.items() if not key.startswith("_")}
    unknown = sorted(set(given) - set(defaults) - _INERT)
    if unknown:
        raise WeightsError(
            f"{file} has settings that animaray does not know: {', '.join(unknown)}.",
            fix="Use the config.json that Stable Video Diffusion was published with.",
            reason="other",
        )
    known = {key: given.get(key, value) for key, value in defaults.items()}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}


def make_autoencoder(config: Mapping[str, Any]) -> AutoencoderKLTemporalDecoder:
    """Build the VAE with random weights."""
    return AutoencoderKLTemporalDecoder(**config)


def make_image_encoder(config: Mapping[str, Any]) -> CLIPVisionModelWithProjection:
    """Build the image encoder with random weights."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


def vae_shapes(config: Mapping[str, Any]) -> Shapes:
    """Return key and shape of each tensor of the VAE; nothing is allocated."""
    with torch.device("meta"):
        return shapes_of(make_autoencoder(config).state_dict())


def image_encoder_shapes(config: Mapping[str, Any]) -> Shapes:
    """Return key and shape of each tensor of the image encoder; nothing is allocated."""
    with torch.device("meta"):
        return shapes_of(make_image_encoder(config).state_dict())


def find_part(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the weights file of a part's folder, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def load_autoencoder(file: Path) -> AutoencoderKLTemporalDecoder:
    """Return the VAE of a weights file, with the config.json beside it or the published one.

    A missing, damaged or other file raises WeightsError.
    """
    network = make_autoencoder(read_part_config(file.parent, VAE_CONFIG))
    fill_network(network, open_state(file), f"The weights of {file} and the VAE")
    return _frozen(network)


def load_image_encoder_network(file: Path) -> CLIPVisionModelWithProjection:
    """Return the image encoder of a weights file, with the config.json beside it.

    A missing, damaged or other file raises WeightsError.
    """
    network = make_image_encoder(read_part_config(file.parent, IMAGE_ENCODER_CONFIG))
    fill_network(
        network,
        open_state(file),
        f"The weights of {file} and the image encoder",
        may_be_there=OLD_IMAGE_ENCODER_KEYS,
    )
    return _frozen(network)


def _frozen(network: nn.Module) -> Any:  # noqa: ANN401 - diffusers' and transformers' classes
    return network.requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's signature
