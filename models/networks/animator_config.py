"""Sizes of the whole animator, and its three recipes: generated, published, tiny."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from animaray.models.networks.face_encoder import FaceEncoderConfig
from animaray.models.networks.identity_adapter import AdapterMode
from animaray.models.networks.pose_net import PoseNetConfig
from animaray.models.networks.reference_attention import ReferenceAttentionConfig
from animaray.models.networks.warped_reference import WarpedReferenceConfig
from animaray.models.pose.layouts import PoseLayout
from animaray.platform.errors import ConfigError

ActivationCheckpointing = Literal["none", "spatial", "all"]
"""`spatial`: what diffusers' own option recomputes (residual blocks and spatial transformer
blocks); `all`: the temporal transformer blocks too."""
IdentityInput = Literal["unit", "raw", "raw_bgr"]
"""What a Face Encoder is given: the recogniser's unit vector; its raw output, as published models
were trained; or that of a picture with red and blue exchanged, as the published inference scripts
do by mistake (training never does)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """Sizes of the U-Net; the defaults are Stable Video Diffusion's (img2vid-xt)."""

    in_channels: int = 8
    """Noisy latents and reference latents, concatenated on channels."""
    out_channels: int = 4
    """Channels of the latents."""
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each resolution level, multiples of 32; each level halves the resolution."""
    num_attention_heads: tuple[int, ...] = (5, 10, 20, 20)
    """Attention heads of each level."""
    has_attention: tuple[bool, ...] = (True, True, True, False)
    """Which levels attend (spatially and over time); the middle block always does."""
    layers_per_block: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    cross_attention_dim: int = 1024
    """Width of the context tokens."""
    addition_time_embed_dim: int = 256
    """Width of the embedding of each of the three numbers (frame rate, motion, noise)."""
    num_frames: int = 25
    """Frames the network was made for; it accepts other numbers."""
    sample_size: int = 96
    """Latent width it was made for; informative only."""
    num_face_tokens: int = 4
    """Tokens at the end of the context that belong to the face."""
    adapter_mode: AdapterMode = "distribution"
    """How face and image attention are merged; the other modes are ablations."""
    adapter_scale: float = 1.0
    """Weight of the face branch; 0 gives plain Stable Video Diffusion."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together.

        Raises:
            ConfigError: A tuple has another number of levels, or a width is no multiple of 32.
        """
        levels = len(self.block_out_channels)
        for name in ("num_attention_heads", "has_attention"):
            if len(getattr(self, name)) != levels:
                raise ConfigError(
                    f"`{name}` must have one entry per level ({levels}), got {getattr(self, name)}."
                )
        if any(width % 32 for width in self.block_out_channels):
            raise ConfigError(
                "`block_out_channels` must be multiples of 32 (group norm has 32 groups), "
                f"got {self.block_out_channels}."
            )

    def stock_settings(self) -> dict[str, Any]:
        """Return the constructor arguments of diffusers' class (also its config.json)."""
        own = {"has_attention", "num_face_tokens", "adapter_mode", "adapter_scale"}
        settings = {key: value for key, value in asdict(self).items() if key not in own}
        kinds = ["CrossAttn" if attends else "" for attends in self.has_attention]
        return settings | {
            "down_block_types": tuple(f"{kind}DownBlockSpatioTemporal" for kind in kinds),
            "up_block_types": tuple(f"{kind}UpBlockSpatioTemporal" for kind in reversed(kinds)),
            "projection_class_embeddings_input_dim": 3 * self.addition_time_embed_dim,
            "transformer_layers_per_block": 1,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatorConfig:
    """What is needed to build an animator and to prepare its inputs."""

    OLD_NAMES: ClassVar[dict[str, str]] = {"moved_reference": "warped_reference"}
    """Settings and networks that folders of older versions hold under another name."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    """The denoising network."""
    pose_net: PoseNetConfig = field(default_factory=PoseNetConfig)
    """The encoder of pose pictures."""
    face_encoder: FaceEncoderConfig = field(default_factory=FaceEncoderConfig)
    """The encoder of the identity embedding."""
    reference_attention: ReferenceAttentionConfig | None = None
    """Pose-guided attention to the reference; None as published."""
    warped_reference: WarpedReferenceConfig | None = None
    """Takes the reference warped to every frame, its body parts moved; None as published."""
    pose_layout: PoseLayout = "openpose_18"
    """What pose pictures show: the body, or also hands and face (`whole_body_134`), as published.
    Training and animating both draw what stands here."""
    profile: str = "paper"
    """Perception profile whose codec and encoders the model was trained with."""
    width_px: int = 576
    """Width of frames and pose pictures."""
    height_px: int = 1024
    """Height of frames and pose pictures."""
    keep_aspect: bool = True
    """Cut a window of this aspect out of reference pictures; False stretches them to this size,
    as the released code does."""
    num_frames: int = 16
    """Frames per training window, and the default tile of the sampler."""
    fps: float = 6.0
    """Frame rate of training clips."""
    sigma_data: float = 1.0
    """Standard deviation of the latents."""
    fps_id: float = 6.0
    """Frame rate as told to the network (the backbone wants fps - 1)."""
    motion_bucket_id: float = 127.0
    """Motion strength as told to the network."""
    noise_aug_strength: float = 0.02
    """Noise added to the reference frame before encoding, also told to the network."""
    reference_latent_scale: float = 1.0
    """Factor on the (scaled) reference latents before they enter the U-Net. Stable Video
    Diffusion wants unscaled reference latents: 1 / 0.18215."""
    identity_input: IdentityInput = "unit"
    """What the Face Encoder is given."""
    image_embedding_of: Literal["frame", "picture"] = "frame"
    """What the image encoder sees at inference: the frame that is animated, or, as published, the
    whole picture that the user gave. In training it sees the frame, as published."""
    unconditional: Literal["published", "as_trained"] = "published"
    """What guidance's second branch drops: `published` drops image, reference, face and pose;
    `as_trained` drops only what conditioning dropout drops (image and reference)."""

    @property
    def residual_std(self) -> float:
        """Standard deviation of what is denoised: latents, or their difference to warped ones."""
        return (
            self.sigma_data if self.warped_reference is None else self.warped_reference.residual_std
        )

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together.

        Raises:
            ConfigError: Widths of neighbouring parts differ, or a size is not divisible.
        """
        pairs = {
            "unet.in_channels": (self.unet.in_channels, 2 * self.unet.out_channels),
            "pose_net.out_channels": (self.pose_net.out_channels, self.unet.block_out_channels[0]),
            "face_encoder.num_tokens": (self.face_encoder.num_tokens, self.unet.num_face_tokens),
            "face_encoder.cross_attention_dim": (
                self.face_encoder.cross_attention_dim,
                self.unet.cross_attention_dim,
            ),
            "face_encoder.image_embedding_dim": (
                self.face_encoder.image_embedding_dim,
                self.unet.cross_attention_dim,
            ),
        }
        for name, (value, expected) in pairs.items():
            if value != expected:
                raise ConfigError(f"Setting `{name}` must be {expected} here, got {value}.")
        for name in ("width_px", "height_px"):
            if getattr(self, name) % self.downscale:
                raise ConfigError(
                    f"Setting `{name}` must be a multiple of {self.downscale}, "
                    f"got {getattr(self, name)}."
                )

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.unet.out_channels

    @property
    def identity_dim(self) -> int:
        """Length of the identity embedding."""
        return self.face_encoder.identity_dim

    @property
    def image_embedding_dim(self) -> int:
        """Length of the image embedding."""
        return self.face_encoder.image_embedding_dim

    @property
    def downscale(self) -> int:
        """Pixels per latent along one axis."""
        return int(2 ** len(self.pose_net.stage_widths))

    @classmethod
    def published(cls) -> "AnimatorConfig":
        """Return the published model on Stable Video Diffusion, 576 x 1024."""
        return cls(
            reference_latent_scale=1 / 0.18215,
            identity_input="raw",
            image_embedding_of="picture",
            pose_layout="whole_body_134",
        )

    @classmethod
    def generated(
        cls,
        *,
        profile: str = "generated",
        latent_channels: int = 4,
        identity_dim: int = 128,
        image_embedding_dim: int = 256,
    ) -> "AnimatorConfig":
        """Return the small model that two CPU cores train within minutes, 192 x 192.

        Args:
            profile: Perception profile of codec and encoders.
            latent_channels: Channels of that profile's codec.
            identity_dim: Length of its identity embeddings.
            image_embedding_dim: Length of its image embeddings, a multiple of 64.
        """
        return cls(
            unet=UNetConfig(
                in_channels=2 * latent_channels,
                out_channels=latent_channels,
                block_out_channels=(64, 64, 96),
                num_attention_heads=(2, 2, 3),
                has_attention=(False, True, True),
                layers_per_block=1,
                cross_attention_dim=image_embedding_dim,
                addition_time_embed_dim=32,
                num_frames=8,
                sample_size=24,
            ),
            pose_net=PoseNetConfig(stage_widths=(16, 32, 64), trunk_dim=96, out_channels=64),
            face_encoder=FaceEncoderConfig(
                identity_dim=identity_dim,
                image_embedding_dim=image_embedding_dim,
                cross_attention_dim=image_embedding_dim,
                depth=1,
                identity_scale=identity_dim**0.5,
            ),
            reference_attention=ReferenceAttentionConfig(),
            warped_reference=WarpedReferenceConfig(),
            profile=profile,
            width_px=192,
            height_px=192,
            num_frames=8,
            fps=8.0,
            fps_id=8.0,
            noise_aug_strength=0.0,
            unconditional="as_trained",
        )

    @classmethod
    def tiny(cls) -> "AnimatorConfig":
        """Return a model of under a million parameters for tests, 32 x 32."""
        return cls(
            unet=UNetConfig(
                block_out_channels=(32, 32),
                num_attention_heads=(1, 2),
                has_attention=(True, False),
                layers_per_block=1,
                cross_attention_dim=32,
                addition_time_embed_dim=8,
                num_frames=4,
                sample_size=4,
            ),
            pose_net=PoseNetConfig(stage_widths=(4, 8, 8), trunk_dim=8, out_channels=32),
            face_encoder=FaceEncoderConfig(
                identity_dim=16,
                image_embedding_dim=32,
                cross_attention_dim=32,
                depth=1,
                head_dim=16,
                identity_scale=4.0,
            ),
            reference_attention=ReferenceAttentionConfig(width=8, num_heads=1, num_frequencies=2),
            warped_reference=WarpedReferenceConfig(width=8),
            profile="generated",
            width_px=32,
            height_px=32,
            num_frames=4,
            fps=8.0,
            fps_id=8.0,
            noise_aug_strength=0.0,
            unconditional="as_trained",
        )
