"""Import a published model, or the backbone to train one from, strictly and file by file.

Each file is mapped from the disk, compared key by key with its network, and copied as safetensors
in its own precision; no network is built with weights. The folder gets its name when it is whole.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from animaray.models.animation.pipeline import PerceptionChoice
from animaray.models.interop.fresh import (
    SEED,
    fresh_face_encoder_config,
    fresh_pose_net_config,
    fresh_state,
    with_fresh_adapter,
)
from animaray.models.interop.layout import (
    NETWORKS,
    PublishedFiles,
    find_backbone,
    find_published,
)
from animaray.models.interop.new_folder import new_folder
from animaray.models.interop.sizes import (
    expected_shapes,
    face_encoder_config,
    pose_net_config,
    require_scheduler,
    unet_config,
)
from animaray.models.networks.animator import network_config
from animaray.models.networks.animator_config import AnimatorConfig, UNetConfig
from animaray.models.networks.face_encoder import FaceEncoderConfig
from animaray.models.networks.pose_net import PoseNetConfig
from animaray.models.networks.weights_folder import save_config
from animaray.models.perception.checkpoint_files import (
    Shapes,
    open_state,
    require_shapes,
    shapes_of,
)
from animaray.models.perception.paper.arc_face import iresnet_config, read_arc_face
from animaray.models.perception.paper.backbone_files import (
    IMAGE_ENCODER_CONFIG,
    IMAGE_ENCODER_FILES,
    OLD_IMAGE_ENCODER_KEYS,
    VAE_CONFIG,
    VAE_FILES,
    image_encoder_shapes,
    read_part_config,
    vae_shapes,
)
from animaray.models.perception.profiles import (
    IDENTITY_FOLDER,
    IMAGE_ENCODER_FOLDER,
    VAE_FOLDER,
)
from animaray.models.perception.protocols import ChannelOrder
from animaray.platform.disk import check_room
from animaray.platform.errors import ConfigError, WeightsError
from animaray.platform.json_text import json_text
from animaray.platform.storage import write_bytes_atomic, write_json_atomic
from animaray.platform.weights.whole_files import (
    CONFIG_FILE,
    INDEX_FILE,
    PERCEPTION_FILE,
    WEIGHTS_FILE,
)

OnFile = Callable[[str], None]
"""Told the name of each part before it is read or written."""
SCHEDULER_FILE = "scheduler/scheduler_config.json"
FEATURE_EXTRACTOR_FILE = "feature_extractor/preprocessor_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """What the files do not say."""

    width_px: int = 576
    """Width of frames; the published weights were trained at 576x1024 and 512x512."""
    height_px: int = 1024
    """Height of frames."""
    channel_order: ChannelOrder = "rgb"
    """Colours that the recogniser is shown for the Face Encoder: `rgb` is right and what training
    did; `bgr` repeats the published inference scripts."""


def import_published(
    source: Path,
    out: Path,
    options: ImportOptions | None = None,
    *,
    backbone: Path | None = None,
    on_file: OnFile = lambda name: None,  # noqa: ARG005 - named in the type
) -> AnimatorConfig:
    """Write the weights folder of a published model; `AnimationPipeline.from_pretrained` loads it.

    A file that is missing, damaged, holds code or does not fit raises WeightsError, and nothing is
    left at `out`.

    Args:
        source: Folder of the authors' files, see `layout`.
        options: Frame size and colours.
        backbone: Diffusers folder of Stable Video Diffusion, if it lies outside `source`.
        on_file: Told each part's name.
    """
    with new_folder(out) as target:
        files = find_published(source, backbone)
        return _Import(files, target, options or ImportOptions(), on_file).run()


def import_backbone(
    folder: Path,
    out: Path,
    options: ImportOptions | None = None,
    *,
    on_file: OnFile = lambda name: None,  # noqa: ARG005 - named in the type
) -> AnimatorConfig:
    """Write the weights folder that a training starts from: stock Stable Video Diffusion.

    PoseNet, Face Encoder and identity adapter are fresh (see `fresh`); errors are those of
    `import_published`.

    Args:
        folder: Diffusers folder of Stable Video Diffusion, in half or single precision.
        options: Frame size and colours.
        on_file: Told each part's name.
    """
    with new_folder(out) as target:
        return _Import(find_backbone(folder), target, options or ImportOptions(), on_file).run()


class _Import:
    """One import in progress."""

    def __init__(
        self, files: PublishedFiles, target: Path, options: ImportOptions, on_file: OnFile
    ) -> None:
        self.files, self.target, self.options, self.on_file = files, target, options, on_file
        self.log: dict[str, Any] = {}

    def run(self) -> AnimatorConfig:
        files, target = self.files, self.target
        check_room(target, files.total_bytes, "The weights folder")
        vae = read_part_config(files.vae.parent, VAE_CONFIG)
        image_encoder = read_part_config(files.image_encoder.parent, IMAGE_ENCODER_CONFIG)
        config = self._config(vae, image_encoder)
        for name in NETWORKS:
            write_state(target / name / WEIGHTS_FILE, self._network(name, config))
            save_config(target / name / CONFIG_FILE, network_config(config, name))
        self._part(VAE_FOLDER, files.vae, vae_shapes(vae), VAE_FILES[0])
        write_json_atomic(target / VAE_FOLDER / CONFIG_FILE, vae_json(vae))
        self._part(
            IMAGE_ENCODER_FOLDER,
            files.image_encoder,
            image_encoder_shapes(image_encoder),
            IMAGE_ENCODER_FILES[0],
            OLD_IMAGE_ENCODER_KEYS,
        )
        write_json_atomic(
            target / IMAGE_ENCODER_FOLDER / CONFIG_FILE, image_encoder_json(image_encoder)
        )
        self._identity(config)
        self._settings()
        save_config(target / INDEX_FILE, config)
        save_config(target / PERCEPTION_FILE, PerceptionChoice(profile=config.profile))
        write_json_atomic(target / "import.json", {"files": self.log})
        return config

    def _network(self, name: str, config: AnimatorConfig) -> dict[str, Tensor]:
        """Return the state dict of one of the animator's networks, from its file or fresh."""
        file: Path | None = getattr(self.files, name)
        if file is None:
            self.on_file(f"{name}: fresh")
            self.log[name] = {"fresh": True, "seed": SEED}
            return fresh_state(config, name)
        state = self._read(name, file)
        expected = expected_shapes(config, name)
        if name == "unet" and self.files.is_stock:
            state = with_fresh_adapter(state, expected)
        require_shapes(shapes_of(state), expected, f"The weights of {file} and {name}")
        return state

    def _config(self, vae: Mapping[str, Any], image_encoder: Mapping[str, Any]) -> AnimatorConfig:
        """Return the animator's configuration, with every size that the files show.

        Raises:
            WeightsError: The files are of models of different sizes.
            ConfigError: The frame size that was asked for is impossible.
        """
        files, options = self.files, self.options
        unet = unet_config(files.unet_config)
        try:
            config = replace(
                AnimatorConfig.published(),
                unet=unet,
                pose_net=self._pose_net_config(unet),
                face_encoder=self._face_encoder_config(unet, image_encoder["projection_dim"]),
                reference_latent_scale=1 / float(vae["scaling_factor"]),
                identity_input="raw" if options.channel_order == "rgb" else "raw_bgr",
                width_px=options.width_px,
                height_px=options.height_px,
            )
        except ConfigError as error:
            if "multiple" in error.message:
                raise
            raise WeightsError(
                f"The files are of models of different sizes: {error.message}", reason="other"
            ) from error
        pairs = {
            "latent channels": (vae["latent_channels"], config.latent_channels),
            "reduction": (2 ** (len(vae["block_out_channels"]) - 1), config.downscale),
            "image embedding": (image_encoder["projection_dim"], config.image_embedding_dim),
        }
        for name, (found, expected) in pairs.items():
            if found != expected:
                raise WeightsError(
                    f"The files are of models of different sizes: {name} is {found} in the "
                    f"diffusers folder and {expected} in the animator's own networks.",
                    reason="other",
                )
        return config

    def _pose_net_config(self, unet: UNetConfig) -> PoseNetConfig:
        file = self.files.pose_net
        if file:
            return pose_net_config(shapes_of(open_state(file)), file)
        return fresh_pose_net_config(unet)

    def _face_encoder_config(self, unet: UNetConfig, image_embedding_dim: int) -> FaceEncoderConfig:
        file = self.files.face_encoder
        if file:
            return face_encoder_config(shapes_of(open_state(file)), file)
        return fresh_face_encoder_config(unet, image_embedding_dim)

    def _identity(self, config: AnimatorConfig) -> None:
        """Copy or convert the recogniser, where its file is there.

        Raises:
            WeightsError: It gives embeddings of another length than the Face Encoder takes.
        """
        file = self.files.arc_face
        if file is None:
            return
        self.on_file(f"{IDENTITY_FOLDER}: {file.name}")
        state = read_arc_face(file)
        shapes = shapes_of(state)
        iresnet = iresnet_config(shapes, file)
        if iresnet.embedding_dim != config.identity_dim:
            raise WeightsError(
                f"{file} gives {iresnet.embedding_dim} numbers, and the Face Encoder takes "
                f"{config.identity_dim}.",
                reason="other",
            )
        write_state(self.target / IDENTITY_FOLDER / WEIGHTS_FILE, state)
        save_config(self.target / IDENTITY_FOLDER / CONFIG_FILE, iresnet)
        self._note(IDENTITY_FOLDER, file)

    def _settings(self) -> None:
        scheduler = self.files.scheduler_config
        if scheduler is not None:
            require_scheduler(scheduler)
            write_bytes_atomic(self.target / SCHEDULER_FILE, scheduler.read_bytes())
        extractor = self.files.feature_extractor_config
        if extractor is not None:
            write_bytes_atomic(self.target / FEATURE_EXTRACTOR_FILE, extractor.read_bytes())

    def _part(
        self,
        name: str,
        file: Path,
        shapes: Shapes,
        file_name: str,
        may_be_there: Collection[str] = (),
    ) -> None:
        state = self._read(name, file)
        what = f"The weights of {file} and {name}"
        require_shapes(shapes_of(state), shapes, what, may_be_there=may_be_there)
        kept = {key: value for key, value in state.items() if key not in may_be_there}
        write_state(self.target / name / file_name, kept)

    def _read(self, name: str, file: Path) -> dict[str, Tensor]:
        self.on_file(f"{name}: {file.name}")
        self._note(name, file)
        return open_state(file)

    def _note(self, name: str, file: Path) -> None:
        self.log[name] = {"file": file.name, "bytes": file.stat().st_size}


def write_state(file: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, straight from where its tensors are mapped."""
    file.parent.mkdir(parents=True, exist_ok=True)
    dense = {key: value.contiguous() for key, value in state.items()}
    save_file(dense, file, metadata={"format": "pt"})


def vae_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config.json from which diffusers loads the VAE."""
    return {"_class_name": "AutoencoderKLTemporalDecoder", **_plain(config)}


def image_encoder_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config.json from which transformers loads the image encoder."""
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        **_plain(config),
    }


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json_text(dict(config)))
    return plain
