"""Where the files of a published model lie: the authors' `.pth` files and a diffusers folder.

    SRC/Animation/{unet,pose_net,face_encoder,glintr100_torch}.pth
    SRC/stable-video-diffusion-img2vid-xt/ (or SVD/)
        {unet,vae,image_encoder,scheduler,feature_extractor}/, model_index.json
    SRC/antelopev2/glintr100.onnx (or models/antelopev2/), where there is no glintr100_torch.pth

The cache of `animaray weights pull` has this form too.
"""

from dataclasses import dataclass
from pathlib import Path

from animaray.models.frozen.backbone_files import IMAGE_ENCODER_FILES, VAE_FILES, find_part
from animaray.platform.errors import WeightsError

ANIMATION_FOLDER = "Animation"
BACKBONE_FOLDER = "stable-video-diffusion-img2vid-xt"
NETWORKS = ("unet", "pose_net", "face_encoder")
ARC_FACE_FILE = "glintr100_torch.pth"

_ANIMATION_FOLDERS = (ANIMATION_FOLDER, ".", "checkpoints/Animation")
_BACKBONE_FOLDERS = (BACKBONE_FOLDER, "SVD", f"SVD/{BACKBONE_FOLDER}", ".", "checkpoints/SVD")
_ONNX_FILES = ("antelopev2/glintr100.onnx", "models/antelopev2/glintr100.onnx")


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFiles:
    """The files of one published model."""

    unet: Path
    pose_net: Path
    face_encoder: Path
    arc_face: Path | None
    """glintr100 as .pth or ONNX; None: none is there, and the registered one is used."""
    vae: Path
    image_encoder: Path
    unet_config: Path
    """config.json of the diffusers U-Net, which may be absent: then the published sizes hold."""
    scheduler_config: Path | None
    feature_extractor_config: Path | None


def find_published(source: Path, backbone: Path | None = None) -> PublishedFiles:
    """Find the files of a published model.

    Args:
        source: Folder of the authors' files.
        backbone: Diffusers folder of Stable Video Diffusion, if it lies elsewhere.

    Raises:
        WeightsError: A folder or file is missing; the message names every missing one.
    """
    if not source.is_dir():
        raise WeightsError(f"There is no folder {source} to import weights from.", reason="missing")
    animation = _folder(source, _ANIMATION_FOLDERS, "unet.pth")
    missing = [f"{name}.pth" for name in NETWORKS if not (animation / f"{name}.pth").is_file()]
    diffusers = backbone or _folder(source, _BACKBONE_FOLDERS, "vae")
    vae = find_part(diffusers / "vae", VAE_FILES)
    image_encoder = find_part(diffusers / "image_encoder", IMAGE_ENCODER_FILES)
    missing += [] if vae else [f"vae/{VAE_FILES[0]}"]
    missing += [] if image_encoder else [f"image_encoder/{IMAGE_ENCODER_FILES[0]}"]
    if missing or vae is None or image_encoder is None:
        raise WeightsError(
            f"{source} is no complete published model: {', '.join(missing)} not found (looked in "
            f"{animation} and {diffusers}).",
            fix="Fetch them: `animaray weights pull --profile paper`; docs/weights.md has the form "
            "of the folder. A diffusers folder elsewhere: --backbone FOLDER.",
            reason="missing",
        )
    arc_face = [animation / ARC_FACE_FILE, *(source / name for name in _ONNX_FILES)]
    return PublishedFiles(
        unet=animation / "unet.pth",
        pose_net=animation / "pose_net.pth",
        face_encoder=animation / "face_encoder.pth",
        arc_face=next((file for file in arc_face if file.is_file()), None),
        vae=vae,
        image_encoder=image_encoder,
        unet_config=diffusers / "unet" / "config.json",
        scheduler_config=_if_there(diffusers / "scheduler" / "scheduler_config.json"),
        feature_extractor_config=_if_there(
            diffusers / "feature_extractor" / "preprocessor_config.json"
        ),
    )


def _folder(source: Path, names: tuple[str, ...], sign: str) -> Path:
    """Return the first of the folders that has `sign` in it, or the first."""
    folders = [source / name for name in names]
    return next((folder for folder in folders if (folder / sign).exists()), folders[0])


def _if_there(file: Path) -> Path | None:
    return file if file.is_file() else None
