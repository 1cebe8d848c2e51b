import json
from pathlib import Path

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from animaray.models.interop.exporting import stock_keys, unet_json
from animaray.models.interop.sizes import (
    expected_shapes,
    face_encoder_config,
    pose_net_config,
    unet_config,
)
from animaray.models.networks.animator_config import AnimatorConfig, UNetConfig
from animaray.models.networks.face_encoder import FaceEncoderConfig
from animaray.models.networks.pose_net import PoseNetConfig
from animaray.models.perception.paper.backbone_files import (
    IMAGE_ENCODER_CONFIG,
    VAE_CONFIG,
    image_encoder_shapes,
    read_part_config,
    vae_shapes,
)


@pytest.fixture(scope="module")
def keys(golden_data):
    def read(name):
        table = json.loads((golden_data / f"keys_{name}.json").read_text())["keys"]
        return {key: tuple(shape) for key, shape in table.items()}

    return read


@pytest.mark.parametrize("name", ["unet", "pose_net", "face_encoder"])
def test_import_expects_exactly_the_published_keys(keys, name):
    assert expected_shapes(AnimatorConfig.published(), name) == keys(name)


def test_frozen_parts_have_exactly_the_published_keys(keys):
    assert vae_shapes(VAE_CONFIG) == keys("vae")
    assert image_encoder_shapes(IMAGE_ENCODER_CONFIG) == keys("image_encoder")


def test_published_shapes_give_the_published_sizes(keys):
    assert pose_net_config(keys("pose_net"), Path("a.pth")) == PoseNetConfig()
    assert face_encoder_config(keys("face_encoder"), Path("a.pth")) == FaceEncoderConfig()


def test_published_unet_config_gives_the_published_sizes(golden_data, tmp_path):
    settings = json.loads((golden_data / "keys_unet.json").read_text())["config"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert unet_config(tmp_path / "config.json") == UNetConfig()
    (tmp_path / "config.json").write_text(json.dumps(unet_json(UNetConfig())))
    assert unet_config(tmp_path / "config.json") == UNetConfig()
    assert unet_config(tmp_path / "absent.json") == UNetConfig()


def test_exported_unet_has_exactly_the_keys_of_diffusers_class(keys):
    published = keys("unet")
    with torch.device("meta"):
        stock = UNetSpatioTemporalConditionModel(**UNetConfig().stock_settings()).state_dict()
    assert sorted(stock_keys(list(published))) == sorted(stock)
    assert len(stock) == 1428
    assert all(tuple(stock[key].shape) == published[key] for key in stock)


def test_absent_part_config_means_the_published_one(tmp_path):
    assert read_part_config(tmp_path, VAE_CONFIG) == dict(VAE_CONFIG)
