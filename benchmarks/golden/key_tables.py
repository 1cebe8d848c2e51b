"""Key tables `keys_<network>.json`: names and shapes of the published full-size weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from animaray.models.networks.face_encoder import FaceEncoder
from animaray.models.networks.pose_net import PoseNet, PoseNetConfig
from animaray.models.networks.unet import AnimatorUNet
from animaray.models.perception.paper.iresnet import IResNet, IResNetConfig
from animaray.platform.errors import DatasetError
from benchmarks.golden.networks import face_encoder_config, unet_config_of
from benchmarks.golden.vectors import Check

Keys = dict[str, tuple[int, ...]]


def is_key_table(path: Path) -> bool:
    """Return whether a file is called like a key table."""
    return path.is_file() and path.name.startswith("keys_") and path.suffix == ".json"


def check_key_table(path: Path, table: dict[str, Any]) -> list[Check]:
    """Compare a table with the keys and shapes of our module, built without memory.

    Args:
        path: The file; its name says which network.
        table: Its content: `config`, `keys`, `num_keys` and `num_params`.

    Raises:
        DatasetError: The network is unknown or the table is broken.
    """
    name = path.stem.removeprefix("keys_")
    build = _NETWORKS.get(name)
    if build is None:
        raise DatasetError(
            f"Key table {path}: unknown network `{name}`.",
            fix=f"Known: {', '.join(_NETWORKS)}.",
            reason="golden_vector",
        )
    try:
        expected: Keys = {key: tuple(shape) for key, shape in table["keys"].items()}
        with torch.device("meta"):
            network = build(table["config"], expected)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"Key table {path}: no network of ours can be built from it: {error!r}.",
            reason="golden_vector",
        ) from error
    state = network.state_dict()
    ours: Keys = {key: tuple(value.shape) for key, value in state.items()}
    differing = sorted(key for key in ours.keys() & expected.keys() if ours[key] != expected[key])
    problems = {
        "missing": sorted(expected.keys() - ours.keys()),
        "not expected": sorted(ours.keys() - expected.keys()),
        "of another shape": differing,
    }
    notes = [f"{len(keys)} {what}: {keys[0]} ..." for what, keys in problems.items() if keys]
    checks = [_check(path, f"{len(expected)} keys and shapes", not notes, "; ".join(notes))]
    # Buffers (running statistics) are no parameters.
    parameters = sum(parameter.numel() for parameter in network.parameters())
    for what, got in (("num_keys", len(ours)), ("num_params", parameters)):
        if what in table:
            note = "" if got == table[what] else f"ours: {got:,}"
            checks.append(_check(path, f"{what} {table[what]:,}", got == table[what], note))
    return checks


def _check(path: Path, name: str, passed: bool, note: str) -> Check:  # noqa: FBT001
    return Check(
        vector=path.stem,
        name=name,
        deviation=None,
        tolerance="exact",
        used_share=None,
        passed=passed,
        note=note,
    )


def _face_encoder(config: dict[str, Any], keys: Keys) -> nn.Module:
    empty = {key: torch.empty(0) for key in keys}
    return FaceEncoder(face_encoder_config(config, empty))


def _recogniser(config: dict[str, Any], keys: Keys) -> nn.Module:
    del keys
    sizes = IResNetConfig(blocks=tuple(config["layers"]), embedding_dim=config["num_features"])
    return IResNet(sizes)


_NETWORKS: dict[str, Callable[[dict[str, Any], Keys], nn.Module]] = {
    "unet": lambda config, _: AnimatorUNet(unet_config_of(config)),
    "pose_net": lambda config, _: PoseNet(
        PoseNetConfig(out_channels=config["noise_latent_channels"])
    ),
    "face_encoder": _face_encoder,
    "face_extractor_r100": _recogniser,
    "vae": lambda config, _: AutoencoderKLTemporalDecoder(**config),
    "image_encoder": lambda config, _: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)),
}
