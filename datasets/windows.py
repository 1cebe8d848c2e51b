"""Training windows by random access: frames of one clip with the poses and faces seen in them.

A window is `num_frames` frames, `stride` apart, and one reference frame outside it. Only the span
that it covers is decoded; nothing else of the clip is.

References:
    StableAnimator's training loader (reference published-model.md, section 10): up to
    (frames - 1) * 4 + 1 frames of a clip, evenly spread, the reference from the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from animaray.datasets.frame_sampling import even_window
from animaray.datasets.reader import CurationDataset
from animaray.platform.errors import DatasetError
from animaray.platform.media.video_window import read_frames
from animaray.platform.media.video_window_decord import read_frames_by_decord
from animaray.platform.storage import content_id


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipWindow:
    """Some frames of one clip, in pixels of the clip's own frames."""

    clip_id: str
    frame_index: Int64[np.ndarray, " frames"]
    """Which frames of the clip."""
    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    """RGB."""
    pts_s: Float64[np.ndarray, " frames"]
    """Times, seconds from the clip's first frame."""
    keypoints: Float32[np.ndarray, "frames 18 2"]
    """The main person's keypoints of the nearest pose."""
    keypoint_confidence: Float32[np.ndarray, "frames 18"]
    """In [0, 1]; 0 where nobody was found."""
    face_boxes: Float32[np.ndarray, "frames 4"]
    """Left, top, right, bottom; meaningless where not valid."""
    face_valid: Bool[np.ndarray, " frames"]
    """Whether the face's box is known."""
    further_points: Float32[np.ndarray, "frames 116 3"] | None
    """Feet, face and hands of the nearest pose; None where curation did not look for them."""


class TrainingWindows:
    """Windows of the clips that a policy keeps."""

    def __init__(
        self,
        dataset: CurationDataset,
        *,
        policy: str = "standard",
        num_frames: int = 16,
        stride: int = 4,
        decoder: Literal["pyav", "decord"] = "pyav",
    ) -> None:
        """Open the kept clips of a dataset.

        Args:
            stride: Frames from one of a window to the next.
            decoder: What reads the stored clips; pyav needs less CPU (window_decoders.py in
                benchmarks), decord is the optional package decord2.

        Raises:
            DatasetError: A size is below one, or no kept clip has a frame beside a window.
        """
        if num_frames < 1 or stride < 1:
            raise DatasetError(
                f"Expected num_frames and stride of at least 1, got {num_frames} and {stride}."
            )
        self._dataset = dataset
        self._read_frames = read_frames if decoder == "pyav" else read_frames_by_decord
        self.num_frames = num_frames
        self.stride = stride
        facts = dataset.table("clips", ["clip_id", "num_frames"])
        lengths = dict(zip(*(column.to_pylist() for column in facts.columns), strict=True))
        kept = dataset.clip_ids(policy)
        # One frame more than the window, or there is no reference beside it.
        self._lengths = {clip: lengths[clip] for clip in kept if lengths[clip] > num_frames}
        self.clip_ids = sorted(self._lengths)
        """Clips with room for a window and a reference, sorted."""
        self.too_short = tuple(clip for clip in kept if clip not in self._lengths)
        """Kept clips without room; they are never read."""
        if not self.clip_ids:
            raise DatasetError(
                f"None of the {len(kept)} kept clips has more than {num_frames} frames.",
                fix="Ask for fewer frames, or for another policy.",
                reason="too_short",
            )

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clip_ids)

    def read(self, clip_id: str, frame_index: Sequence[int]) -> ClipWindow:
        """Return frames of a clip, in the given order.

        Raises:
            DatasetError: There is no such clip, or its video was not stored.
        """
        video = self._dataset.media_bytes(clip_id)
        frames, pts_s = self._read_frames(video, frame_index)
        tracks = self._dataset.tracks(clip_id)
        if len(tracks.pts_s) == 0:
            raise DatasetError(
                f"Nobody looked for poses in clip {clip_id}.",
                fix="Choose a policy that asks for poses.",
                reason="no_poses",
            )
        nearest = tracks.nearest_pose(pts_s)
        fps = self._dataset.clip(clip_id)["fps"]
        boxes, is_known = tracks.boxes_at(np.asarray(frame_index) / fps, fps)
        return ClipWindow(
            clip_id=clip_id,
            frame_index=np.asarray(frame_index, dtype=np.int64),
            frames_uint8=frames,
            pts_s=pts_s,
            keypoints=tracks.keypoints[nearest],
            keypoint_confidence=tracks.keypoint_confidence[nearest],
            face_boxes=boxes,
            face_valid=is_known,
            further_points=None
            if tracks.further_points is None
            else tracks.further_points[nearest],
        )

    def window(self, clip_id: str, *, seed: int) -> tuple[ClipWindow, ClipWindow]:
        """Return a window of a clip and its reference frame; the seed alone decides which.

        Raises:
            DatasetError: The clip is not among `clip_ids`.
        """
        if clip_id not in self._lengths:
            raise DatasetError(
                f"Clip {clip_id} has no window of {self.num_frames} frames under this policy.",
                reason="unknown_clip",
            )
        index, reference = window_frames(
            self._lengths[clip_id], self.num_frames, self.stride, f"{seed} {clip_id}"
        )
        both = self.read(clip_id, [*index, reference])
        return _part(both, slice(0, -1)), _part(both, slice(-1, None))


def window_frames(
    clip_frames: int, num_frames: int, stride: int, seed: str
) -> tuple[list[int], int]:
    """Choose the frames of a window and a reference frame that is not among them.

    Args:
        clip_frames: Frames of the clip, more than `num_frames`.
        stride: Frames from one to the next; less where the clip is short.
        seed: Same seed, same choice.
    """
    rng = np.random.default_rng(int(content_id("window", seed)[:15], 16))
    frames, others = even_window(
        clip_frames, num_frames, stride, lambda most: int(rng.integers(0, most + 1))
    )
    return list(frames), int(rng.choice(others))


def _part(window: ClipWindow, rows: slice) -> ClipWindow:
    arrays = {name: getattr(window, name) for name in ClipWindow.__slots__ if name != "clip_id"}
    parts = {name: values[rows] for name, values in arrays.items() if values is not None}
    return replace(window, **parts)
