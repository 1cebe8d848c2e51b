"""Networks of the published form with seeded random weights, one at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from animaray.models.networks.face_encoder import FaceEncoder
from animaray.models.networks.pose_net import PoseNet
from animaray.models.networks.unet import AnimatorUNet
from animaray.models.perception.paper.backbone_files import make_autoencoder, make_image_encoder
from animaray.models.perception.paper.iresnet import CROP_PX, IResNet, IResNetConfig
from benchmarks.rehearsal.sizes import KitSizes

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NAMES = ("unet", "pose_net", "face_encoder", "vae", "image_encoder", "arc_face")
"""Of the networks of a published model."""


def random_network(name: str, sizes: KitSizes, *, seed: int = 0) -> Any:  # noqa: ANN401 - of six kinds
    """Return one network, in evaluation mode, on PyTorch's default device.

    Layers that a fresh published network starts at zero have learned something here.

    Args:
        name: One of `NAMES`.
        sizes: How large.
        seed: Same seed, same numbers.
    """
    torch.manual_seed(seed + NAMES.index(name))
    makers: Mapping[str, Callable[[], nn.Module]] = {
        "unet": lambda: AnimatorUNet(sizes.unet),
        "pose_net": lambda: _with_learned(PoseNet(sizes.pose_net), "final_proj"),
        "face_encoder": lambda: _with_learned(
            FaceEncoder(sizes.face_encoder), "fusion_model.proj_out"
        ),
        # Rounded to what a file in half precision holds.
        "vae": lambda: make_autoencoder(sizes.vae).half().float(),
        "image_encoder": lambda: make_image_encoder(sizes.image_encoder).half().float(),
        "arc_face": lambda: measured_iresnet(sizes.arc_face),
    }
    return makers[name]().eval()


def measured_iresnet(config: IResNetConfig) -> IResNet:
    """Return a recogniser whose norms have measured pictures, as trained ones have.

    Its raw embeddings are then about as long as ArcFace's: the root of their dimension, 22.6.

    Args:
        config: Sizes.
    """
    network = IResNet(config)
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(_smooth_pictures(8))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def _with_learned(network: nn.Module, name: str) -> nn.Module:
    nn.init.normal_(network.get_submodule(name).get_parameter("weight"), std=0.1)
    return network


def _smooth_pictures(count: int) -> torch.Tensor:
    """Return aligned crops of the smoothness of faces, in [-1, 1]."""
    coarse = torch.rand(count, 3, 14, 14) * 2 - 1
    return nn.functional.interpolate(coarse, size=(CROP_PX, CROP_PX), mode="bilinear")
