"""The demo's drawn people moved by parts, with the world's own keypoints and mattes.

Beside the network's clip it shows what moving the picture's pixels alone gives where the person is
known exactly.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.cli.demo.choice import Pair
from animaray.cli.demo.run import DemoSettings
from animaray.datasets.reader import CurationDataset
from animaray.datasets.world.clips import ClipSpec, render_matte
from animaray.datasets.world.library import plan_world, read_truth
from animaray.datasets.world.truth import ClipTruth
from animaray.models.parts.options import MIN_LONG_SIDE_PX
from animaray.models.parts.keypoint_puppet import KeypointPuppet
from animaray.models.alignment.aligner import PoseAligner
from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.pose.body_pose import BodyPose
from animaray.platform.media.picture import read_picture


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """The rendered video of a clip."""

    truth: ClipTruth
    spec: ClipSpec
    first_frame: int
    """Where the clip begins."""

    @classmethod
    def of(cls, settings: DemoSettings, clip_id: str) -> "_Source":
        clip = CurationDataset.open(settings.dataset_dir).clip(clip_id)
        path = settings.videos_dir / Path(clip["file_name"]).name
        number = re.findall(r"\d+", path.stem)[-1]
        _, spec = plan_world(settings.num_videos, seed=settings.seed)[int(number) - 1]
        return cls(
            truth=read_truth(path.with_suffix(".truth.json")),
            spec=spec,
            first_frame=round(clip["start_s"] * spec.fps),
        )

    def posed(self, frames: list[int]) -> PosedPicture:
        """Return the true keypoints of some frames, counted from the clip's beginning."""
        last = len(self.truth.frames) - 1
        people = [
            self.truth.frames[min(self.first_frame + frame, last)].persons[0] for frame in frames
        ]
        width, height = self.truth.size
        return PosedPicture(
            keypoints=np.stack([person.keypoints for person in people]).astype(np.float32),
            keypoint_confidence=np.stack([person.keypoint_visible for person in people]).astype(
                np.float32
            ),
            width_px=width,
            height_px=height,
        )

    def matte(self, frame: int) -> Float32[np.ndarray, "height width"]:
        """Return the person's true opacity."""
        alpha = render_matte(self.spec, self.first_frame + frame)
        return alpha.astype(np.float32) / 255.0


def move_by_parts(
    settings: DemoSettings,
    pair: Pair,
    reference: Path,
    aligner: PoseAligner | None,
    *,
    num_frames: int,
    fps: float,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Return the reference picture moved by the driving clip's true keypoints.

    Args:
        settings: Of a demo on generated people, whose pictures were not replaced by the user's.
        pair: Whose picture, whose motion.
        reference: The picture.
        aligner: Moves the driving pose onto the person, as for the network.
        num_frames: Length of the result.
        fps: Its frame rate.
    """
    own = _Source.of(settings, pair.reference.clip_id)
    driver = _Source.of(settings, pair.driving.clip_id)
    frame = pair.reference.best_frame
    still = own.posed([frame])
    seen = PosedPicture(
        keypoints=still.keypoints[0],
        keypoint_confidence=still.keypoint_confidence[0],
        width_px=still.width_px,
        height_px=still.height_px,
    )
    motion = driver.posed([round(index * driver.spec.fps / fps) for index in range(num_frames)])
    pose = align_clip("procrustes" if aligner is None else "learned", seen, motion, aligner=aligner)
    puppet = KeypointPuppet(
        read_picture(reference),
        [BodyPose(keypoints=seen.keypoints, confidence=seen.keypoint_confidence)],
        [own.matte(frame)],
        least_side_px=MIN_LONG_SIDE_PX,
    )
    return np.stack(
        [
            puppet.move([BodyPose(keypoints=points, confidence=certain)]).picture_uint8
            for points, certain in zip(pose.keypoints, pose.keypoint_confidence, strict=True)
        ]
    )
