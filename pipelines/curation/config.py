"""Configuration of the curation pipeline; every stage's own settings are nested here."""

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from animaray.models.pose.layouts import PoseLayout
from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.policy.policies import find_policy
from animaray.pipelines.stages.camera import CameraConfig
from animaray.pipelines.stages.clips import ClipsConfig
from animaray.pipelines.stages.cut_clip import CutClipConfig
from animaray.pipelines.stages.duplicates import DuplicatesConfig
from animaray.pipelines.stages.faces import FacesConfig
from animaray.pipelines.stages.pose import PoseConfig
from animaray.pipelines.stages.shot_detection import ShotsConfig
from animaray.pipelines.stages.text import TextConfig
from animaray.platform.errors import ConfigError
from animaray.platform.media.video import DecodeLimits

STORE_MEDIA = ("kept", "shipped", "all")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerNeeds:
    """What one process of each pool holds; Ray starts no more of them than fit on its nodes."""

    FORMERLY = MappingProxyType(
        {
            "look_num_gpus": "num_gpus",
            "look_memory_bytes": "measure_memory_bytes",
        }
    )
    read_memory_bytes: int = 768 * 1024**2
    """Main memory of a process that reads sources, with its decoder."""
    read_num_gpus: float = 0.0
    """Share of a GPU that it holds; only `shots.detector=transnetv2` has use for one."""
    measure_memory_bytes: int = 1536 * 1024**2
    """Main memory of a process that writes and looks at clips, with its decoder and networks
    (measured: docs/lab_log.md 2026-11-26)."""
    num_gpus: float = 0.0
    """Share of a GPU that it holds; above 0 the networks that can run there do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationConfig:
    """What to curate, who looks at it, and where it goes."""

    FORMERLY = MappingProxyType(
        {
            "sources_per_wave": "sources_per_batch",
            "skip_hopeless": "skip_lost",
            "skip_faceless": "skip_lost",
            "encode": "cut",
        }
    )
    """Settings of older files by the names they had, for the message that refuses them."""
    sources: tuple[str, ...] = ()
    """Folders, patterns, video files, lists, tar and Parquet files, addresses; never written."""
    output_dir: str | Path = "dataset"
    """Dataset folder, or its address in an object store; made, or gone on with."""
    profile: str = "permissive"
    """Perception profile."""
    pose_layout: PoseLayout = "openpose_18"
    """Least points of a stored pose. Profile paper always stores feet, face and hands, too;
    permissive looks for them with `whole_body_134`, which takes twice the time a pose."""
    policy: str = "standard"
    """Policy that decides what counts as kept in the summary: a name, or a policy file."""
    num_workers: int = 2
    """Processes that measure clips, and that read sources."""
    limit: int | None = None
    """Only the first so many files; None for all."""
    store_media: str = "shipped"
    """Which clips' videos are stored: kept (by this policy), shipped (by any shipped policy, so
    that changing the policy needs no second run) or all."""
    sources_per_commit: int = 4
    """Sources between two commits: what a kill can lose."""
    sources_per_batch: int = 500
    """Sources whose near-duplicates are looked for among themselves; earlier batches are known."""
    in_process_s: float = 60.0
    """Up to so much footage is curated in this process, seconds: starting Ray's workers would take
    longer. With RAY_ADDRESS or in an open session the workers are used always."""
    staging_dir: Path | None = None
    """Folder of each node for clips until they are shelved; none takes `_staging` in the dataset's
    folder, and for a dataset in an object store the node's folder for temporary files."""
    retry_failed: bool = False
    """Whether inputs that ended as failed are tried again."""
    skip_lost: bool = True
    """Whether a clip that every policy surely drops, as its source shows, is neither stored nor
    measured to the end."""
    acquire: AcquireConfig = field(default_factory=AcquireConfig)
    """How addresses are fetched and archives read."""
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What one file may cost."""
    needs: WorkerNeeds = field(default_factory=WorkerNeeds)
    """What one worker process holds."""
    shots: ShotsConfig = field(default_factory=ShotsConfig)
    """When a cut is a cut."""
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    """When two sources are one."""
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    """How long clips are."""
    cut: CutClipConfig = field(default_factory=CutClipConfig)
    """How clips are stored."""
    faces: FacesConfig = field(default_factory=FacesConfig)
    """How faces are sampled."""
    pose: PoseConfig = field(default_factory=PoseConfig)
    """How densely poses are estimated."""
    camera: CameraConfig = field(default_factory=CameraConfig)
    """How the background is followed."""
    text: TextConfig = field(default_factory=TextConfig)
    """Where burned-in text is looked for."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A value is out of range.
        """
        find_policy(self.policy)
        if not self.sources:
            raise ConfigError(
                "Expected at least one source; there is nothing to curate.",
                fix="Name folders, videos or addresses: animaray curate videos/ --out dataset",
            )
        if self.store_media not in STORE_MEDIA:
            raise ConfigError(
                f"Expected store_media to be one of {list(STORE_MEDIA)}, got {self.store_media}."
            )
        for name in ("num_workers", "sources_per_commit", "sources_per_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} >= 1, got {getattr(self, name)}.")
