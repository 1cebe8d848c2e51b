"""What curation, training and serving ask of frozen networks, whoever made them.

A profile (animaray.models.perception.profiles) decides which implementation answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from animaray.models.pose.further_points import HasPose, PointMap, map_further

if TYPE_CHECKING:
    # Workers that only read and cut videos need the data classes, not a second of importing torch.
    from torch import Tensor

ChannelOrder = Literal["rgb", "bgr"]
"""Order of colours that a network is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceDetection:
    """One face in one picture."""

    box: Float32[np.ndarray, " 4"]
    """Left, top, right, bottom in pixels."""
    score: float
    """Detector confidence in [0, 1]."""
    landmarks: Float32[np.ndarray, "5 2"]
    """Eye on the picture's left, eye on its right, nose, mouth corner left, right; pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonPose:
    """One person's 18 body keypoints in OpenPose order, and more where somebody looked closer."""

    keypoints: Float32[np.ndarray, "18 2"]
    """Pixels, x right, y down; a point outside the picture keeps its estimated place."""
    keypoint_confidence: Float32[np.ndarray, " 18"]
    """In [0, 1]; 0 where the point was not found."""
    further_points: Float32[np.ndarray, "116 3"] | None = None
    """Feet, face and hands (models.pose.layouts): pixels and confidence; None: not looked for."""

    @classmethod
    def of_frame(cls, poses: HasPose, frame: int | None) -> PersonPose:
        """Return one of somebody's poses.

        Args:
            poses: One pose, or one for each frame.
            frame: Which; None for somebody with one pose.
        """
        place = () if frame is None else frame
        further = poses.further_points
        return cls(
            keypoints=np.asarray(poses.keypoints)[place],
            keypoint_confidence=np.asarray(poses.keypoint_confidence)[place],
            further_points=None if further is None else np.asarray(further)[place],
        )

    def moved(self, move: PointMap) -> PersonPose:
        """Return the pose in another picture.

        Args:
            move: Maps points of this picture into that one.
        """
        return PersonPose(
            keypoints=move(self.keypoints).astype(np.float32),
            keypoint_confidence=self.keypoint_confidence,
            further_points=map_further(self.further_points, move),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLine:
    """One line of writing in one picture."""

    corners: Float32[np.ndarray, "4 2"]
    """Pixels, x right, y down: first, along the line's upper edge, second, and on clockwise."""
    words: str
    """What it says, as far as it could be read."""
    score: float
    """How sure the reading is, in [0, 1]."""


@runtime_checkable
class TextDetector(Protocol):
    """Find writing and read it."""

    name: str

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[TextLine]:
        """Return the lines of one RGB picture, the doubtful ones, too, from top to bottom."""
        ...


@runtime_checkable
class FaceDetector(Protocol):
    """Find faces with five landmarks."""

    name: str

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[FaceDetection]:
        """Return the faces of one RGB picture, largest box first."""
        ...


@runtime_checkable
class IdentityEmbedder(Protocol):
    """Map an aligned face to a unit vector; also differentiable, for face optimization."""

    name: str
    embedding_dim: int
    crop_height_px: int
    crop_width_px: int

    def template(self) -> Float32[np.ndarray, "5 2"]:
        """Return where the five landmarks belong in the aligned crop, pixels."""
        ...

    def embed(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the unit embedding of one face of an RGB picture."""
        ...

    def embed_crops(
        self, crops: Float[Tensor, "crops 3 crop_height crop_width"]
    ) -> Float[Tensor, "crops embedding"]:
        """Return unit embeddings of aligned RGB crops in [-1, 1]; gradients flow to the crops."""
        ...


@runtime_checkable
class RawIdentityEmbedder(IdentityEmbedder, Protocol):
    """An embedder that also gives its network's own output, as published Face Encoders take it."""

    def embed_raw(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
        channel_order: ChannelOrder = "rgb",
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the raw embedding of one face of an RGB picture."""
        ...


@runtime_checkable
class PoseEstimator(Protocol):
    """Find people and their body keypoints."""

    name: str

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of one RGB picture, largest first; empty when there is nobody."""
        ...


@runtime_checkable
class PoseFollower(Protocol):
    """Find people in the frames of one clip, which are given in order."""

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of the next RGB frame, largest first; empty when there is nobody."""
        ...


@runtime_checkable
class FollowingPoseEstimator(PoseEstimator, Protocol):
    """An estimator that sees faster where it may follow people from frame to frame."""

    def start_clip(self, *, fps: float, least_looks_fps: float) -> PoseFollower:
        """Return what follows people through the frames of one clip.

        Args:
            fps: Rate of the frames that it will be given.
            least_looks_fps: So often a second it looks for people anew at least.
        """
        ...


@runtime_checkable
class PointTracker(Protocol):
    """Follow points through a clip."""

    name: str

    def track(
        self,
        frames_uint8: UInt8[np.ndarray, "frames height width 3"],
        points: Float32[np.ndarray, "points 2"],
    ) -> tuple[Float32[np.ndarray, "frames points 2"], Bool[np.ndarray, "frames points"]]:
        """Follow points given in the first frame; return places (pixels) and visibility."""
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """Summarise a picture in one vector (the place of CLIP)."""

    name: str
    embedding_dim: int

    def encode(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embedding"]:
        """Return one embedding per RGB picture in [-1, 1], any size."""
        ...


@runtime_checkable
class LatentCodec(Protocol):
    """Turn frames into latents and back (the place of the VAE)."""

    name: str
    latent_channels: int
    downscale: int

    def encode(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels latent_height latent_width"]:
        """Return latents of about unit variance of RGB frames in [-1, 1]."""
        ...

    def decode(
        self, latents: Float[Tensor, "batch channels latent_height latent_width"]
    ) -> Float[Tensor, "frames 3 height width"]:
        """Return RGB frames in about [-1, 1]; gradients flow to the latents.

        One frame for each latent. Face optimization, which also serves other people's models,
        takes codecs that hold several frames in one latent, too; it then decodes whole clips.
        """
        ...


@runtime_checkable
class PosteriorCodec(LatentCodec, Protocol):
    """A codec that says of each latent how sure it is, as variational autoencoders do."""

    def encode_posterior(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> tuple[
        Float[Tensor, "batch channels latent_height latent_width"],
        Float[Tensor, "batch channels latent_height latent_width"],
    ]:
        """Return mean and standard deviation of the scaled latents; `encode` returns the mean."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Perception:
    """The three things that curation, training and serving need to see people."""

    profile: str
    face_detector: FaceDetector
    identity_embedder: IdentityEmbedder
    pose_estimator: PoseEstimator
