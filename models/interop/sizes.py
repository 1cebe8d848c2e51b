"""Sizes of a published model's networks, read from their files' shapes and configs; and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from animaray.models.networks.animator_config import AnimatorConfig, UNetConfig
from animaray.models.networks.face_encoder import FaceEncoder, FaceEncoderConfig
from animaray.models.networks.pose_net import PoseNet, PoseNetConfig
from animaray.models.networks.unet import AnimatorUNet
from animaray.models.perception.checkpoint_files import Shapes, shapes_of
from animaray.platform.errors import ConfigError, WeightsError
from animaray.platform.json_text import json_text

_STAGE_KERNEL = 4
"""PoseNet's halving convolutions are the ones with 4x4 kernels."""
_CROSS_ATTENTION = "CrossAttnDownBlockSpatioTemporal"
_PLAIN = "DownBlockSpatioTemporal"
SCHEDULER: Mapping[str, Any] = {
    "prediction_type": "v_prediction",
    "use_karras_sigmas": True,
    "timestep_type": "continuous",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}
"""What the sampler does, in a diffusers scheduler's words; other values are refused."""


def expected_shapes(config: AnimatorConfig, name: str) -> Shapes:
    """Return key and shape of each tensor of one of the published networks; allocates nothing.

    Args:
        name: unet, pose_net or face_encoder.
    """
    with torch.device("meta"):
        network: nn.Module
        if name == "unet":
            network = AnimatorUNet(config.unet)
        elif name == "pose_net":
            network = PoseNet(config.pose_net)
        else:
            network = FaceEncoder(config.face_encoder)
        return shapes_of(network.state_dict())


def unet_config(file: Path) -> UNetConfig:
    """Return the U-Net's sizes as a diffusers config.json has them, or the published ones.

    Args:
        file: config.json; where it is absent the published sizes hold.

    Raises:
        WeightsError: It is no JSON object, or describes another kind of U-Net.
    """
    if not file.is_file():
        return UNetConfig()
    data = _read_json(file)
    try:
        kinds = list(data["down_block_types"])
        levels = len(data["block_out_channels"])
        heads = data["num_attention_heads"]
        layers, cross = data["layers_per_block"], data["cross_attention_dim"]
        config = UNetConfig(
            in_channels=data["in_channels"],
            out_channels=data["out_channels"],
            block_out_channels=tuple(data["block_out_channels"]),
            num_attention_heads=(heads,) * levels if isinstance(heads, int) else tuple(heads),
            has_attention=tuple(kind == _CROSS_ATTENTION for kind in kinds),
            layers_per_block=layers if isinstance(layers, int) else _same(layers),
            cross_attention_dim=cross if isinstance(cross, int) else _same(cross),
            addition_time_embed_dim=data["addition_time_embed_dim"],
            num_frames=data["num_frames"],
            sample_size=data["sample_size"],
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise WeightsError(
            f"{file} does not describe a spatio-temporal U-Net: {error}.", reason="other"
        ) from error
    stock = json.loads(json_text(config.stock_settings()))
    differing = [
        key
        for key in ("down_block_types", "up_block_types", "projection_class_embeddings_input_dim")
        if data.get(key, stock[key]) != stock[key]
    ]
    if data.get("transformer_layers_per_block", 1) not in (1, [1] * levels):
        differing.append("transformer_layers_per_block")
    if differing or set(kinds) - {_CROSS_ATTENTION, _PLAIN}:
        names = ", ".join(differing) or "down_block_types"
        raise WeightsError(
            f"{file} describes another U-Net than Stable Video Diffusion's: see {names}.",
            reason="other",
        )
    return config


def pose_net_config(shapes: Shapes, file: Path) -> PoseNetConfig:
    """Return PoseNet's sizes, as its convolutions' shapes show them; else WeightsError.

    Args:
        shapes: Of the whole state dict.
        file: Where it came from, for the message.
    """
    layers = sorted(
        (int(key.split(".")[1]), shape)
        for key, shape in shapes.items()
        if key.startswith("conv_layers.") and key.endswith(".weight") and len(shape) == 4
    )
    projection = shapes.get("final_proj.weight", ())
    widths = tuple(shape[0] for _, shape in layers if shape[2] == _STAGE_KERNEL)
    if not widths or len(projection) != 4:
        _refuse(file, "PoseNet", "conv_layers.0.weight to final_proj.weight", shapes)
    return PoseNetConfig(stage_widths=widths, trunk_dim=projection[1], out_channels=projection[0])


def face_encoder_config(shapes: Shapes, file: Path) -> FaceEncoderConfig:
    """Return the Face Encoder's sizes, as its layers' shapes show them; else WeightsError.

    Args:
        shapes: Of the whole state dict.
        file: Where it came from, for the message.
    """
    try:
        cross = shapes["norm.weight"][0]
        layers = {key.split(".")[2] for key in shapes if key.startswith("fusion_model.layers.")}
        return FaceEncoderConfig(
            identity_dim=shapes["proj.0.weight"][1],
            image_embedding_dim=shapes["fusion_model.proj_in.weight"][1],
            cross_attention_dim=cross,
            num_tokens=shapes["proj.2.weight"][0] // cross,
            depth=len(layers),
        )
    except (KeyError, IndexError):
        _refuse(file, "the Face Encoder", "proj.0.weight to fusion_model.norm_out.bias", shapes)


def require_scheduler(file: Path) -> None:
    """Refuse a diffusers scheduler that does something else than the sampler.

    Raises:
        WeightsError: A setting differs; settings that are absent are not looked at.
    """
    data = _read_json(file)
    for key, value in SCHEDULER.items():
        if data.get(key, value) != value:
            raise WeightsError(
                f"{file} has {key} = {data[key]!r}, the published sampler {value!r}.",
                fix="Use the scheduler of Stable Video Diffusion; the sampler's own settings are "
                "given when animating.",
                reason="other",
            )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} is not valid JSON: {error}.", reason="damaged") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{file} is no JSON object.", reason="damaged")
    return data


def _same(values: list[int]) -> int:
    """Return the one value of a list; ValueError where they differ."""
    (value,) = set(values)
    return value


def _refuse(file: Path, network: str, keys: str, shapes: Shapes) -> NoReturn:
    """Raise that a state dict is of another network.

    Raises:
        WeightsError: Always.
    """
    raise WeightsError(
        f"Expected the state dict of {network} ({keys}) in {file}, got {len(shapes)} other keys "
        f"such as {min(shapes, default='none')}.",
        reason="other",
    )
