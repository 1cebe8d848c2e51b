"""Show the learned alignment on clips that the aligner was not trained on."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from animaray.cli import figures
from animaray.datasets.reader import CurationDataset
from animaray.models.perception.protocols import PersonPose
from animaray.models.alignment.aligner import PoseAligner
from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.alignment.misalignment import Misalignment, MisalignmentConfig
from animaray.platform.media.picture import write_png
from animaray.training.aligner_pairs import read_pose_clips, split_clips
from animaray.training.launch import TrainResult
from animaray.training.recipes import aligner_demo_cpu

NUM_CLIPS = 2
NUM_FRAMES = 3
MILD = MisalignmentConfig(min_scale=0.6, max_scale=1.5, max_translation=0.2)
ORANGE, BLUE, WHITE = (217, 130, 43), (47, 111, 222), (245, 245, 245)
NAMES = {
    "dis_none": "none (scaled and centred)",
    "dis_procrustes_frame": "closed form, per frame",
    "dis_procrustes_clip": "closed form, one for the clip",
    "dis_learned_frame": "learned, per frame",
    "dis_learned_clip": "learned, one for the clip",
}


def write_alignment_picture(
    path: Path, dataset_dir: Path, run: TrainResult
) -> list[dict[str, Any]]:
    """Draw held-out frames before and after alignment; return the rows of the Dis table."""
    dataset = CurationDataset.open(dataset_dir)
    aligner = PoseAligner.from_pretrained(run.weights_dir)
    rows = [_row(dataset, clip_id, aligner) for clip_id in held_out_clips(dataset)[:NUM_CLIPS]]
    width = min(row.shape[1] for row in rows)
    write_png(path, np.concatenate([row[:, :width] for row in rows]))
    measured = next(row for row in reversed(run.metrics) if "dis_none" in row)
    return [{"name": text, "value": float(measured[name])} for name, text in NAMES.items()]


def held_out_clips(dataset: CurationDataset) -> list[str]:
    """Return the kept clips whose source video the aligner was not trained on."""
    config = aligner_demo_cpu()
    clips = read_pose_clips(dataset, config.policy)
    _, held_out = split_clips(clips, config.held_out_share, config.loop.seed)
    sources = set(held_out.groups)
    kept = dataset.clip_ids(config.policy)
    return [clip_id for clip_id in kept if dataset.clip(clip_id)["source_id"] in sources]


def _row(
    dataset: CurationDataset, clip_id: str, aligner: PoseAligner
) -> UInt8[np.ndarray, "height width 3"]:
    tracks = dataset.tracks(clip_id)
    decoded = dataset.decode_clip(clip_id)
    frames, times = decoded.frames_uint8, decoded.pts_s - decoded.pts_s[0]
    height, width = frames.shape[1:3]
    shown = np.linspace(1, len(tracks.pts_s) - 1, NUM_FRAMES).round().astype(int)

    def posed(poses: Any) -> PosedPicture:  # noqa: ANN401 - one index, or several
        return PosedPicture(
            keypoints=tracks.keypoints[poses],
            keypoint_confidence=tracks.keypoint_confidence[poses],
            width_px=width,
            height_px=height,
        )

    reference = posed(0)
    moved = Misalignment.of_seed("3", width / height, MILD).apply(posed(shown))
    aligned = align_clip("learned", reference, moved, aligner=aligner)
    panels = []
    for row, index in enumerate(shown):
        nearest = int(np.abs(times - tracks.pts_s[index]).argmin())
        picture = (frames[nearest] * 0.55).astype(np.uint8)
        before = figures.draw_skeleton(picture, PersonPose.of_frame(moved, row), ORANGE)
        truth = PersonPose.of_frame(tracks, int(index))
        after = figures.draw_skeleton(picture, truth, WHITE)
        after = figures.draw_skeleton(after, PersonPose.of_frame(aligned, row), BLUE)
        panels += [("driving pose", before), ("aligned, truth white", after)]
    return figures.side_by_side(panels, height_px=220)
