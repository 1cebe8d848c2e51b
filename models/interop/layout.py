"""Where the files of a published model lie: the authors' `.pth` files and a diffusers folder.

    SRC/Animation/{unet,pose_net,face_encoder,glintr100_torch}.pth
    SRC/stable-video-diffusion-img2vid-xt/ (or SVD/)
        {unet,vae,image_encoder,scheduler,feature_extractor}/, model_index.json
    SRC/antelopev2/glintr100.onnx (or models/antelopev2/), where there is no glintr100_torch.pth

The cache of `animaray weights pull` has this form too. A diffusers folder alone is the start of a
training: its U-Net stands where the authors' would.
"""

from dataclasses import dataclass
from pathlib import Path

from animaray.models.perception.paper.backbone_files import (
    IMAGE_ENCODER_FILES,
    UNET_FILES,
    VAE_FILES,
    find_part,
)
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
    """The files of one published model, or of the backbone that one is trained from."""

    unet: Path
    pose_net: Path | None
    """None: the backbone alone; a fresh one is made."""
    face_encoder: Path | None
    """None: as for `pose_net`."""
    arc_face: Path | None
    """glintr100 as .pth or ONNX; None: none is there, and the registered one is used."""
    vae: Path
    image_encoder: Path
    unet_config: Path
    """config.json of the diffusers U-Net, which may be absent: then the published sizes hold."""
    scheduler_config: Path | None
    feature_extractor_config: Path | None

    @property
    def is_stock(self) -> bool:
        """Whether the U-Net is the backbone's own, without identity adapter."""
        return self.pose_net is None

    @property
    def total_bytes(self) -> int:
        """Size of the files of weights, which is about that of the weights folder."""
        files = (self.unet, self.pose_net, self.face_encoder, self.arc_face, self.vae)
        return sum(file.stat().st_size for file in (*files, self.image_encoder) if file is not None)


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
    frozen, not_there = _find_frozen(diffusers)
    missing += not_there
    if missing:
        raise WeightsError(
            f"{source} is no complete published model: {', '.join(missing)} not found (looked in "
            f"{animation} and {diffusers}).",
            fix="Fetch them: `animaray weights pull --profile paper`; docs/weights.md has the form "
            "of the folder. A diffusers folder elsewhere: --backbone FOLDER.",
            reason="missing",
        )
    arc_face = [animation / ARC_FACE_FILE, *(source / name for name in _ONNX_FILES)]
    networks = {name: animation / f"{name}.pth" for name in NETWORKS}
    found = next((file for file in arc_face if file.is_file()), None)
    return _with_settings(diffusers, frozen, networks, found)


def find_backbone(folder: Path) -> PublishedFiles:
    """Find the files of stock Stable Video Diffusion, to start a training from.

    Args:
        folder: Its diffusers folder, or one that holds it.

    Raises:
        WeightsError: A folder or file is missing; the message names every missing one.
    """
    if not folder.is_dir():
        raise WeightsError(f"There is no folder {folder} to import weights from.", reason="missing")
    diffusers = _folder(folder, (".", *_BACKBONE_FOLDERS), "vae")
    frozen, missing = _find_frozen(diffusers)
    unet = find_part(diffusers / "unet", UNET_FILES)
    if missing or unet is None:
        missing = [*([] if unet else [f"unet/{UNET_FILES[0]}"]), *missing]
        raise WeightsError(
            f"{folder} is no complete Stable Video Diffusion: {', '.join(missing)} not found "
            f"(looked in {diffusers}).",
            fix="Fetch it: `animaray weights pull paper/stable-video-diffusion/unet "
            "paper/stable-video-diffusion/vae paper/stable-video-diffusion/image_encoder`.",
            reason="missing",
        )
    return _with_settings(diffusers, frozen, {"unet": unet}, None)


def _find_frozen(diffusers: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the weights of VAE and image encoder, and the names of those that are not there."""
    names = {"vae": VAE_FILES, "image_encoder": IMAGE_ENCODER_FILES}
    found = {part: find_part(diffusers / part, files) for part, files in names.items()}
    missing = [f"{part}/{names[part][0]}" for part, file in found.items() if file is None]
    return {part: file for part, file in found.items() if file is not None}, missing


def _with_settings(
    diffusers: Path, frozen: dict[str, Path], networks: dict[str, Path], arc_face: Path | None
) -> PublishedFiles:
    return PublishedFiles(
        unet=networks["unet"],
        pose_net=networks.get("pose_net"),
        face_encoder=networks.get("face_encoder"),
        arc_face=arc_face,
        vae=frozen["vae"],
        image_encoder=frozen["image_encoder"],
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
