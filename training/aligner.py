"""Train the pose aligner on the keypoints of kept clips.

Command: animaray train aligner --data DATASET --out RUN
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from animaray.datasets.reader import CurationDataset
from animaray.models.alignment.aligner import AlignerConfig, PoseAligner
from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.alignment.methods import AlignmentMethod, TransformScope
from animaray.models.alignment.misalignment import Misalignment, alignment_loss, random_similarity
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.platform.errors import ConfigError, PoseError
from animaray.platform.progress import StageProgress
from animaray.platform.storage import write_json_atomic
from animaray.training.aligner_pairs import (
    PairConfig,
    PoseClips,
    PosePairs,
    draw_pairs,
    read_pose_clips,
    split_clips,
)
from animaray.training.batch_order import noise_seed
from animaray.training.configs import (
    LoopConfig,
    OptimizerConfig,
    ScaleConfig,
    initial_folder,
    refuse_initial,
)
from animaray.training.launch import TrainResult, launch
from animaray.training.train_loop import Measured

BUNDLED_ALIGNER = "generated/aligner"
"""Registry id of the weights that the demo's training starts from."""
_EVALUATED_FRAMES = 16
_EVALUATED_DRAWS = 4
_EVALUATED_HEIGHT_PX = 1024
_WAYS: dict[str, tuple[AlignmentMethod, TransformScope]] = {
    "none": ("none", "clip"),
    "procrustes_frame": ("procrustes", "frame"),
    "procrustes_clip": ("procrustes", "clip"),
    "learned_frame": ("learned", "frame"),
    "learned_clip": ("learned", "clip"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignerTrainingConfig:
    """Everything that decides what an aligner training does."""

    data_dir: str
    """Curated dataset."""
    run_dir: str
    """Run folder to write or resume."""
    policy: str = "standard"
    """Whose kept clips are used."""
    aligner: AlignerConfig = field(default_factory=AlignerConfig)
    """Architecture; must equal that of `init_from` when that is given."""
    init_from: str | None = None
    """Weights folder or registry id to start from; None starts as the closed form."""
    held_out_share: float = 0.2
    """Share of source videos that are only evaluated on."""
    pairs: PairConfig = field(default_factory=PairConfig)
    """How pairs are changed."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    loop: LoopConfig
    """Length and checkpoints."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Workers; the aligner is small, so DDP in float32."""

    def __post_init__(self) -> None:
        """Refuse a share outside (0, 1).

        Raises:
            ConfigError: `held_out_share` is out of range.
        """
        if not 0.0 < self.held_out_share < 1.0:
            raise ConfigError(f"held_out_share must be in (0, 1), got {self.held_out_share}.")


class AlignerObjective(nn.Module):
    """Distance of aligned keypoints to the truth, as one module call."""

    def __init__(self, aligner: PoseAligner) -> None:
        super().__init__()
        self.aligner = aligner

    def forward(self, pairs: PosePairs, noise_seed: int) -> Measured:
        """Return the loss; all randomness is in the pairs already."""
        del noise_seed
        output = self.aligner(
            pairs.reference, pairs.reference_confidence, pairs.driving, pairs.driving_confidence
        )
        return Measured(loss=alignment_loss(output.aligned, pairs.target, pairs.visible), sums={})


class AlignerTask:
    """What the shared loop needs to train an aligner."""

    def __init__(self, config: AlignerTrainingConfig, clips: PoseClips) -> None:
        torch.manual_seed(config.loop.seed)
        self._config = config
        self._clips, self.held_out = split_clips(clips, config.held_out_share, config.loop.seed)
        self.objective = AlignerObjective(load_initial_aligner(config))

    def make_batch(self, positions: range) -> PosePairs:
        """Return the pairs of these items, on the CPU."""
        seed = noise_seed(self._config.loop.seed, positions.start)
        generator = torch.Generator().manual_seed(seed)
        return draw_pairs(self._clips, len(positions), self._config.pairs, generator)

    def to_device(self, batch: PosePairs, device: torch.device) -> PosePairs:
        """Move a batch."""
        return batch.to(device)

    def evaluate(self) -> dict[str, float]:
        """Return the mean distance on held-out clips for every way of aligning."""
        aligner = copy.deepcopy(self.objective.aligner).to("cpu").eval()
        figures = evaluate_alignment(aligner, self.held_out, self._config.pairs)
        return {f"dis_{name}": value for name, value in figures.items()}

    def export(self, folder: Path) -> None:
        """Write the aligner's weights folder."""
        self.objective.aligner.save_pretrained(folder)
        write_json_atomic(folder / "held_out.json", self.evaluate())


def make_aligner_task(config: AlignerTrainingConfig) -> AlignerTask:
    """Read the clips and build what a configuration trains."""
    return AlignerTask(
        config, read_pose_clips(CurationDataset.open(config.data_dir), config.policy)
    )


def train_aligner(
    config: AlignerTrainingConfig, progress: StageProgress | None = None
) -> TrainResult:
    """Train the aligner on Ray Train workers; the same configuration again resumes.

    Args:
        config: What to train; recipes are in animaray.training.recipes.
        progress: Row to advance; None shows an own row.

    Raises:
        DatasetError: The dataset has too few clips with poses.
        RunError: The run folder belongs to another configuration, or training failed.
        MachineError: The Ray session is too small.
    """
    clips = read_pose_clips(CurationDataset.open(config.data_dir), config.policy)
    split_clips(clips, config.held_out_share, config.loop.seed)  # refuse before workers start
    return launch(make_aligner_task, config, progress)


def load_initial_aligner(config: AlignerTrainingConfig) -> PoseAligner:
    """Return the aligner to start from, in training mode."""
    if config.init_from is None:
        return PoseAligner(config.aligner).train()
    aligner = PoseAligner.from_pretrained(initial_folder(config.init_from))
    if aligner.config != config.aligner:
        refuse_initial(config.init_from, "aligner")
    return aligner.train()


def evaluate_alignment(
    aligner: PoseAligner, clips: PoseClips, pairs: PairConfig
) -> dict[str, float]:
    """Misalign held-out clips and return the mean distance left, by way of aligning.

    Each clip's frames are moved by one random similarity, as in the MisAlign benchmarks; the
    reference is another frame of the clip. Distances are in picture heights, over keypoints that
    were detected.

    Args:
        aligner: In evaluation mode, on the CPU.
        clips: Clips that were not trained on.
        pairs: Only `misalignment` is used.
    """
    generator = torch.Generator().manual_seed(0)
    distances: dict[str, list[float]] = {name: [] for name in _WAYS}
    for clip in range(len(clips.length)):
        for _ in range(_EVALUATED_DRAWS):
            reference, driving, target, visible = _misaligned_clip(clips, clip, pairs, generator)
            results = {}
            for name, (method, scope) in _WAYS.items():
                try:
                    aligned = align_clip(method, reference, driving, aligner=aligner, scope=scope)
                except PoseError:
                    break  # the two show no common keypoints: no way of aligning can be judged
                distance = np.linalg.norm(aligned.keypoints - target, axis=-1)
                results[name] = float((distance * visible).sum() / max(visible.sum(), 1))
            if len(results) == len(_WAYS):
                for name, value in results.items():
                    distances[name].append(value / reference.height_px)
    return {name: float(np.mean(values)) for name, values in distances.items() if values}


def _misaligned_clip(
    clips: PoseClips, clip: int, pairs: PairConfig, generator: torch.Generator
) -> tuple[PosedPicture, PosedPicture, np.ndarray, np.ndarray]:
    """Return reference, misaligned driving clip, its true place (pixels) and what is visible."""
    first, length = int(clips.first[clip]), int(clips.length[clip])
    shown = torch.randint(length, (1,), generator=generator)
    frames = torch.linspace(0, length - 1, min(_EVALUATED_FRAMES, length)).long()
    frames = frames[frames != shown]
    aspect = clips.aspect[clip : clip + 1]
    width_px = round(_EVALUATED_HEIGHT_PX * float(aspect))

    def posed(place: Tensor) -> PosedPicture:
        return PosedPicture(
            keypoints=(clips.keypoints[place] * _EVALUATED_HEIGHT_PX).numpy(),
            keypoint_confidence=clips.confidence[place].numpy(),
            width_px=width_px,
            height_px=_EVALUATED_HEIGHT_PX,
        )

    moved = Misalignment(random_similarity(aspect, pairs.misalignment, generator))
    truth = posed(first + frames)
    visible = truth.keypoint_confidence >= VISIBLE_CONFIDENCE
    return posed(first + shown[0]), moved.apply(truth), truth.keypoints, visible
