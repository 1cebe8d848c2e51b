"""A whole published model in small: the authors' files, and a folder that diffusers wrote."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from animaray.models.networks.animator_config import UNetConfig
from animaray.models.networks.face_encoder import FaceEncoder, FaceEncoderConfig
from animaray.models.networks.pose_net import PoseNet, PoseNetConfig
from animaray.models.networks.unet import AnimatorUNet

UNET = UNetConfig(
    block_out_channels=(32, 32),
    num_attention_heads=(1, 2),
    has_attention=(True, False),
    layers_per_block=1,
    cross_attention_dim=64,
    addition_time_embed_dim=8,
    num_frames=4,
    sample_size=8,
)
POSE_NET = PoseNetConfig(stage_widths=(4, 8, 8), trunk_dim=8, out_channels=32)
FACE_ENCODER = FaceEncoderConfig(
    identity_dim=16, image_embedding_dim=64, cross_attention_dim=64, depth=2
)
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "use_karras_sigmas": True,
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "steps_offset": 1,
}


def make_networks(onnx_iresnet):
    torch.manual_seed(0)
    networks = SimpleNamespace(
        unet=AnimatorUNet(UNET),
        pose_net=PoseNet(POSE_NET),
        face_encoder=FaceEncoder(FACE_ENCODER),
        vae=AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            sample_size=64,
        ),
        image_encoder=CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=224,
                patch_size=112,
                projection_dim=64,
                hidden_act="gelu",
            )
        ),
        arc_face=onnx_iresnet.random_iresnet(),
    )
    # Fresh published networks put out zero; these have learned something.
    for network in (networks.pose_net.final_proj, networks.face_encoder.fusion_model.proj_out):
        torch.nn.init.normal_(network.weight, std=0.1)
    for network in vars(networks).values():
        network.eval()
    return networks


def write_published(networks, folder: Path, *, is_half=True) -> Path:
    animation, backbone = folder / "Animation", folder / "stable-video-diffusion-img2vid-xt"
    animation.mkdir(parents=True)
    for name in ("unet", "pose_net", "face_encoder"):
        torch.save(getattr(networks, name).state_dict(), animation / f"{name}.pth")
    torch.save(networks.arc_face.state_dict(), animation / "glintr100_torch.pth")
    stock = UNetSpatioTemporalConditionModel(**UNET.stock_settings())
    stock.save_pretrained(backbone / "unet")
    variant = "fp16" if is_half else None
    networks.vae.save_pretrained(backbone / "vae", variant=variant)
    networks.image_encoder.save_pretrained(backbone / "image_encoder")
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(backbone / "scheduler")
    extractor = backbone / "feature_extractor" / "preprocessor_config.json"
    extractor.parent.mkdir()
    extractor.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor"}))
    return folder


@pytest.fixture(scope="session")
def networks(onnx_iresnet):
    """Return every network of a small published model, ready to compare with."""
    return make_networks(onnx_iresnet)


@pytest.fixture(scope="session")
def published(networks, tmp_path_factory):
    """Return the folder of its files; do not write to it."""
    return write_published(networks, tmp_path_factory.mktemp("published") / "source")


@pytest.fixture
def own_published(networks, tmp_path):
    """Return a copy of its files that a test may spoil."""
    return write_published(networks, tmp_path / "source")


@pytest.fixture(scope="session")
def weights_folder(published, tmp_path_factory):
    """Return the imported weights folder; do not write to it."""
    from animaray.models.published.importing import ImportOptions, import_published

    out = tmp_path_factory.mktemp("imported") / "weights"
    import_published(published, out, ImportOptions(width_px=64, height_px=64))
    return out
