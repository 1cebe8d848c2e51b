"""Write a folder of checkpoints under the published names: what a team with GPUs brings.

    OUT/Animation/{unet,pose_net,face_encoder,glintr100_torch}.pth
    OUT/stable-video-diffusion-img2vid-xt/   diffusers' folder, half precision, written by diffusers
    OUT/antelopev2.zip, antelopev2/          SCRFD's stand-in and glintr100.onnx
    OUT/DWPose/{yolox_l,dw-ll_ucoco_384}.onnx
    OUT/scaled_online.pth, packages/         stand-ins for CoTracker's weights and package
    OUT/own_weights.json                     says that none of it is what its name says

Weights are random, detectors see generated people (`looking_detectors`). The networks are made and
written one after the other: at full size 10 GB of memory are enough.
"""

import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn

from animaray.models.interop.exporting import (
    PIPELINE_PARTS,
    feature_extractor_json,
    stock_keys,
)
from animaray.models.interop.layout import ANIMATION_FOLDER, ARC_FACE_FILE, BACKBONE_FOLDER
from animaray.platform.storage import sha256_file, write_json_atomic
from animaray.platform.weights.archive import unpack_folder
from animaray.platform.weights.own import OwnFile, write_own_weights
from animaray.platform.weights.table import WEIGHTS
from benchmarks.rehearsal.looking_detectors import write_looking_dwpose, write_looking_scrfd
from benchmarks.rehearsal.onnx_iresnet import write_onnx
from benchmarks.rehearsal.random_networks import random_network
from benchmarks.rehearsal.sizes import KitSizes

PACKAGES = Path(__file__).parent / "packages"
"""Holds the stand-in for the package cotracker: a folder for PYTHONPATH."""
NOTE = "a stand-in of benchmarks/rehearsal with random weights; not the published file"
_HASHED_BELOW_BYTES = 1 << 30
_SCHEDULER = {
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
"""Of Stable Video Diffusion's own folder; published-model.md, section 6."""


def write_kit(
    out: Path,
    sizes: KitSizes,
    *,
    seed: int = 0,
    on_part: Callable[[str], None] = lambda name: None,  # noqa: ARG005 - named in the type
) -> Path:
    """Write every file; `ANIMARAY_WEIGHTS=OUT` then serves profile paper.

    Args:
        out: New folder.
        sizes: How large the networks are.
        seed: Of their weights.
        on_part: Told what is made next.
    """
    out.mkdir(parents=True)
    write_networks(out, lambda name: random_network(name, sizes, seed=seed), sizes, on_part=on_part)
    on_part("detectors")
    _write_antelope(out)
    write_looking_dwpose(out / "DWPose")
    _write_cotracker(out)
    write_own_weights(out, _own_files(out))
    return out


def write_networks(
    out: Path,
    make: Callable[[str], Any],
    sizes: KitSizes,
    *,
    on_part: Callable[[str], None] = lambda name: None,  # noqa: ARG005 - named in the type
) -> None:
    """Write the authors' files, the diffusers folder and the recogniser, and no detectors.

    Args:
        out: Folder to write to.
        make: Gives each network of `random_networks.NAMES`, once.
        sizes: Of the networks.
        on_part: Told what is made next.
    """
    animation, backbone = out / ANIMATION_FOLDER, out / BACKBONE_FOLDER
    animation.mkdir(parents=True, exist_ok=True)
    on_part("unet")
    unet = make("unet").state_dict()
    _save(unet, animation / "unet.pth")
    _write_stock_unet(unet, sizes, backbone / "unet")
    del unet
    for name in ("pose_net", "face_encoder"):
        on_part(name)
        _save(make(name).state_dict(), animation / f"{name}.pth")
    for name in ("vae", "image_encoder"):
        on_part(name)
        # A copy: the networks of tests are compared with later.
        deepcopy(make(name)).half().save_pretrained(backbone / name, variant="fp16")
    on_part("arc_face")
    arc_face = make("arc_face")
    _save(arc_face.state_dict(), animation / ARC_FACE_FILE)
    write_onnx(arc_face, out / "antelopev2" / "glintr100.onnx")
    EulerDiscreteScheduler(**_SCHEDULER).save_pretrained(backbone / "scheduler")
    extractor = backbone / "feature_extractor" / "preprocessor_config.json"
    extractor.parent.mkdir()
    write_json_atomic(extractor, feature_extractor_json())
    index = {"_class_name": "StableVideoDiffusionPipeline", **PIPELINE_PARTS}
    write_json_atomic(backbone / "model_index.json", index)


def _save(state: Mapping[str, torch.Tensor], file: Path) -> None:
    torch.save(OrderedDict(state), file)


def _write_stock_unet(unet: Mapping[str, torch.Tensor], sizes: KitSizes, folder: Path) -> None:
    """Write the backbone's own U-Net in half precision: the same numbers without the adapter."""
    with torch.device("meta"):
        stock: Any = UNetSpatioTemporalConditionModel(**sizes.unet.stock_settings())
    half = {key: unet[key].half() for key in stock_keys(list(unet))}
    stock.load_state_dict(half, assign=True)
    stock.save_pretrained(folder, variant="fp16")


def _write_antelope(out: Path) -> None:
    """Add the face detector, pack the folder as it is published and unpack it as `pull` does."""
    folder, archive = out / "antelopev2", out / "antelopev2.zip"
    write_looking_scrfd(folder / "scrfd_10g_bnkps.onnx")
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.iterdir()):
            packed.write(file, f"antelopev2/{file.name}")
    shutil.rmtree(folder)
    unpack_folder(WEIGHTS["paper/antelopev2"], archive, folder)


def _write_cotracker(out: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), out / "scaled_online.pth")
    shutil.copytree(
        PACKAGES, out / "packages", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )


def _own_files(out: Path) -> dict[str, OwnFile]:
    """Return what own_weights.json says about each registered file that was written."""
    found = {}
    for entry in WEIGHTS.values():
        for name in (entry.file, *entry.published_as):
            file = out / name
            if file.is_dir():
                found[entry.id] = OwnFile(note=NOTE)
            elif file.is_file():
                size = file.stat().st_size
                sha256 = sha256_file(file) if size < _HASHED_BELOW_BYTES else None
                found[entry.id] = OwnFile(note=NOTE, size_bytes=size, sha256=sha256)
    return found
