"""What `animaray dataset encode` may be told, and what the animator of a profile wants of it."""

from dataclasses import dataclass

from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig:
    """What to encode, and how."""

    data_dir: str = "dataset"
    """Curated dataset: a folder, or an address in an object store."""
    policy: str = "standard"
    """Whose kept clips are encoded."""
    profile: str | None = None
    """Perception profile whose codec and encoders are used; None: that of the curation. Under
    another one the identities are measured anew, on the training frames."""
    width_px: int = 192
    """Width of the training frame."""
    height_px: int = 192
    """Height of the training frame."""
    fps: float = 8.0
    """Frame rate of training."""
    reference_noise: float = 0.0
    """Noise on the pixels of reference pictures, in frames of [-1, 1], before the codec: the
    animator's `noise_aug_strength`. Each frame is then encoded twice."""
    mirrored_copies: bool = False
    """Whether every clip is encoded a second time, mirrored left to right."""
    crop_text: bool = False
    """Whether the training frame leaves out burned-in text. A clip is skipped where that would cut
    the person, too, or where text was not looked for."""
    max_face_gap_s: float = 0.75
    """Longest time between two face detections that is bridged by interpolation."""
    num_workers: int = 2
    """Actors that each hold the encoders."""
    clips_per_shard: int = 4
    """Clips per task of a worker and per file: what a killed run encodes again at most, per worker.
    Above 65,536 clips tasks grow, so that there are at most 16,384."""
    max_shard_mb: int = 256
    """A shard ends before its clips take more than this, megabytes."""
    frames_per_call: int = 8
    """Frames that an encoder gets at once."""
    clips_per_call: int = 1
    """Clips whose frames go through the encoders together. Above 1 pays on a GPU with many frames
    per call and short clips; on a CPU it gains nothing. Results may then differ by rounding."""
    num_gpus_per_worker: float = 0.0
    """GPUs that each actor holds; above 0 the encoders run there, below 1 actors share one."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        if self.num_gpus_per_worker < 0:
            raise ConfigError(
                f"encode.num_gpus_per_worker must not be below 0, got {self.num_gpus_per_worker}."
            )
        if not 0 <= self.reference_noise <= 1:
            raise ConfigError(
                f"encode.reference_noise must be in [0, 1], got {self.reference_noise}."
            )
        for name in (
            "width_px", "height_px", "num_workers", "clips_per_shard", "max_shard_mb",
            "frames_per_call", "clips_per_call", "fps",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ConfigError(f"encode.{name} must be above 0, got {getattr(self, name)}.")


def encode_recipe(profile: str) -> EncodeConfig:
    """Return what the shipped animator of a profile is trained on: its frame size and rate.

    generated and permissive fit the small animator and two CPU cores; paper fits the published
    one, and its encoders want a GPU.
    """
    is_paper = profile == "paper"
    animator = AnimatorConfig.published() if is_paper else AnimatorConfig.generated()
    return EncodeConfig(
        profile=profile,
        width_px=animator.width_px,
        height_px=animator.height_px,
        fps=animator.fps,
        reference_noise=animator.noise_aug_strength,
        num_workers=1 if is_paper else 2,
        num_gpus_per_worker=1.0 if is_paper else 0.0,
    )
