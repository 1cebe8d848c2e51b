import json

import pytest
from safetensors.torch import load_file

from animaray.models.networks.unet import UNetConfig


@pytest.fixture(scope="session")
def golden(golden_data):
    """Return a reader of golden vectors: name -> (config, tensors, weights)."""

    def read(name):
        folder = golden_data / name
        config = json.loads((folder / "config.json").read_text())
        file, weights_file = folder / "io.safetensors", folder / "state_dict.safetensors"
        tensors = load_file(file) if file.exists() else {}
        weights = load_file(weights_file) if weights_file.exists() else {}
        return config, tensors, {key: value.float() for key, value in weights.items()}

    return read


@pytest.fixture(scope="session")
def golden_keys(golden_data):
    """Return a reader of the published models' key tables: name -> {key: shape}."""
    return lambda name: json.loads((golden_data / f"keys_{name}.json").read_text())["keys"]


@pytest.fixture(scope="session")
def golden_unet_config():
    """Return a function from the vectors' U-Net settings to our config."""

    def build(settings):
        return UNetConfig(
            block_out_channels=tuple(settings["block_out_channels"]),
            num_attention_heads=tuple(settings["num_attention_heads"]),
            has_attention=tuple("CrossAttn" in kind for kind in settings["down_block_types"]),
            layers_per_block=settings["layers_per_block"],
            cross_attention_dim=settings["cross_attention_dim"],
            addition_time_embed_dim=settings["addition_time_embed_dim"],
            num_frames=settings["num_frames"],
            sample_size=settings["sample_size"],
        )

    return build
