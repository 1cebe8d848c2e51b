"""Export a weights folder: the authors' `.pth` files, and a folder that diffusers loads."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import EulerDiscreteScheduler

from animaray.models.interop.importing import (
    FEATURE_EXTRACTOR_FILE,
    SCHEDULER_FILE,
    OnFile,
    write_state,
)
from animaray.models.interop.layout import (
    ANIMATION_FOLDER,
    ARC_FACE_FILE,
    BACKBONE_FOLDER,
    NETWORKS,
)
from animaray.models.interop.new_folder import new_folder
from animaray.models.interop.sizes import SCHEDULER, expected_shapes
from animaray.models.networks.animator_config import AnimatorConfig, UNetConfig
from animaray.models.networks.weights_folder import load_config
from animaray.models.perception.checkpoint_files import open_state, require_shapes, shapes_of
from animaray.models.perception.paper.backbone_files import IMAGE_ENCODER_FILES, VAE_FILES
from animaray.models.perception.paper.clip_preprocessing import CLIP_MEAN, CLIP_SIDE_PX, CLIP_STD
from animaray.models.perception.profiles import (
    IDENTITY_FOLDER,
    IMAGE_ENCODER_FOLDER,
    VAE_FOLDER,
)
from animaray.platform.errors import ConfigError
from animaray.platform.storage import write_json_atomic
from animaray.platform.weights.whole_files import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE

ADAPTER_KEY = ".processor."
"""In every key of the U-Net that Stable Video Diffusion's own class does not have."""
PIPELINE_PARTS = {
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "scheduler": ("diffusers", "EulerDiscreteScheduler"),
    "unet": ("diffusers", "UNetSpatioTemporalConditionModel"),
    "vae": ("diffusers", "AutoencoderKLTemporalDecoder"),
}
"""Library and class of each part of diffusers' Stable Video Diffusion pipeline."""


def export_published(
    folder: Path,
    out: Path,
    *,
    on_file: OnFile = lambda name: None,  # noqa: ARG005 - named in the type
) -> list[str]:
    """Write what `import_published` reads: `Animation/*.pth` and a diffusers folder.

    The diffusers U-Net is the animator's without the identity adapter, whose keys its class lacks.

    Args:
        on_file: Told each part's name.

    Returns:
        Parts of the diffusers pipeline that the weights folder does not have (it uses those of its
        perception profile).
    """
    config = load_config(folder / INDEX_FILE, AnimatorConfig)
    _refuse_what_does_not_fit(config)
    with new_folder(out) as target:
        for name in NETWORKS:
            file = folder / name / WEIGHTS_FILE
            _export_pth(name, file, target / ANIMATION_FOLDER / f"{name}.pth", on_file, config)
        identity = folder / IDENTITY_FOLDER / WEIGHTS_FILE
        if identity.is_file():
            _export_pth("identity", identity, target / ANIMATION_FOLDER / ARC_FACE_FILE, on_file)
        return _export_diffusers(folder, target / BACKBONE_FOLDER, config.unet, on_file)


def stock_keys(keys: list[str]) -> list[str]:
    """Return the keys of an animator's U-Net that diffusers' own class has."""
    return [key for key in keys if ADAPTER_KEY not in key]


def _refuse_what_does_not_fit(config: AnimatorConfig) -> None:
    """Refuse models that the published layout cannot describe.

    Raises:
        ConfigError: The model has a part or a setting that the layout has no place for.
    """
    extras = {
        "reference attention": config.reference_attention is not None,
        f"adapter mode {config.unet.adapter_mode!r}": config.unet.adapter_mode != "distribution",
        f"adapter scale {config.unet.adapter_scale}": config.unet.adapter_scale != 1.0,
        f"identity scale {config.face_encoder.identity_scale}": (
            config.face_encoder.identity_scale != 1.0
        ),
    }
    found = [name for name, is_there in extras.items() if is_there]
    if found:
        raise ConfigError(
            f"The published layout has no place for {', '.join(found)}.",
            fix="Only models of the published form can be exported; share others as the weights "
            "folder they are.",
        )


def _export_pth(
    name: str, file: Path, target: Path, on_file: OnFile, config: AnimatorConfig | None = None
) -> None:
    on_file(f"{name}: {target.name}")
    state = open_state(file)
    if config is not None:
        what = f"The weights of {file} and {name}"
        require_shapes(shapes_of(state), expected_shapes(config, name), what)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(OrderedDict(sorted(state.items())), target)


def _export_diffusers(folder: Path, target: Path, config: UNetConfig, on_file: OnFile) -> list[str]:
    on_file(f"diffusers: {target.name}")
    state = open_state(folder / "unet" / WEIGHTS_FILE)
    stock = {key: state[key] for key in stock_keys(list(state))}
    write_state(target / "unet" / WEIGHTS_FILE, stock)
    write_json_atomic(target / "unet" / CONFIG_FILE, unet_json(config))
    absent = []
    parts = ((VAE_FOLDER, VAE_FILES[0]), (IMAGE_ENCODER_FOLDER, IMAGE_ENCODER_FILES[0]))
    for part, name in parts:
        if not (folder / part / name).is_file():
            absent.append(part)
            continue
        (target / part).mkdir()
        for each in (CONFIG_FILE, name):
            shutil.copyfile(folder / part / each, target / part / each)
    _copy_or_write(folder, target, SCHEDULER_FILE, scheduler_json())
    _copy_or_write(folder, target, FEATURE_EXTRACTOR_FILE, feature_extractor_json())
    index: dict[str, Any] = {
        "_class_name": "StableVideoDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
    }
    write_json_atomic(target / "model_index.json", index | PIPELINE_PARTS)
    return absent


def _copy_or_write(folder: Path, target: Path, name: str, published: dict[str, Any]) -> None:
    if not (folder / name).is_file():
        write_json_atomic(target / name, published)
        return
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / name, target / name)


def unet_json(config: UNetConfig) -> dict[str, Any]:
    """Return the config.json from which diffusers loads the U-Net."""
    return {"_class_name": "UNetSpatioTemporalConditionModel", **config.stock_settings()}


def scheduler_json() -> dict[str, Any]:
    """Return the published scheduler's config.json."""
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
        **SCHEDULER,
    )
    settings: dict[str, Any] = json.loads(scheduler.to_json_string())
    return settings


def feature_extractor_json() -> dict[str, Any]:
    """Return the config.json of the picture processor that diffusers' pipeline wants."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": CLIP_SIDE_PX, "width": CLIP_SIDE_PX},
        "size": {"shortest_edge": CLIP_SIDE_PX},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
