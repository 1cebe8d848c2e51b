"""Compare ways to move drawn people: still picture, parts, their warped reference, and the network.

Self-driven: the first frame of a generated clip is the picture, its true keypoints drive it. The
engine `parts` is given the true matte where a row says so, else it cuts the person out. Clips are
those of training, at its size, of people who were never trained on.

    OMP_NUM_THREADS=1 python -m benchmarks.quality.drawn_people_by_parts --out DIR
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from animaray.datasets.world.clips import ClipSpec, render_clip, render_matte, sample_clip_spec
from animaray.evaluation.metrics import embed_largest_faces, identity_similarity, l1, psnr, ssim
from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline
from animaray.models.frames import to_frames, to_uint8
from animaray.models.parts.keypoint_puppet import KeypointPuppet
from animaray.models.parts.options import MIN_LONG_SIDE_PX
from animaray.models.pose.body_pose import BodyPose
from animaray.models.subjects.motion import Motion
from animaray.platform.errors import AnimarayError
from animaray.platform.media.picture import write_png
from animaray.platform.weights.store import BUNDLED_ANIMATOR, resolve_weights

WORLD_SIZE, FPS, NUM_FRAMES = (384, 384), 8.0, 8
FIRST_SEED = 3_000_001
"""Training used seeds from one million on, the demo's own clips small ones."""

Frames = UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A generated clip at the model's size."""

    spec: ClipSpec
    frames: Frames
    motion: Motion
    matte: Float32[np.ndarray, "height width"]
    """Of the first frame."""

    def pose(self, frame: int) -> BodyPose:
        """Return the true keypoints of a frame."""
        return BodyPose(
            keypoints=self.motion.keypoints[frame],
            confidence=self.motion.keypoint_confidence[frame],
        )


def render(seed: int, side_px: int) -> Clip:
    """Render a clip and bring it to the model's size."""
    spec = sample_clip_spec(
        seed, num_frames=NUM_FRAMES, fps=FPS, size=WORLD_SIZE, camera_kind="static"
    )
    clip = render_clip(spec)
    scale = side_px / WORLD_SIZE[0]
    people = [truth.persons[0] for truth in clip.truth.frames]
    points = np.stack([person.keypoints for person in people])
    return Clip(
        spec=spec,
        frames=np.stack([_reduced(frame, side_px) for frame in clip.frames_uint8]),
        motion=Motion(
            keypoints=((points + 0.5) * scale - 0.5).astype(np.float32),
            keypoint_confidence=np.stack([p.keypoint_visible for p in people]).astype(np.float32),
            width_px=side_px,
            height_px=side_px,
            is_filled=np.zeros(NUM_FRAMES, bool),
        ),
        matte=_reduced(render_matte(spec, 0), side_px).astype(np.float32) / 255.0,
    )


def _reduced(picture: np.ndarray, side_px: int) -> np.ndarray:
    reduced: np.ndarray = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return reduced


class Methods:
    """The ways to move the first frame."""

    def __init__(self, pipeline: AnimationPipeline) -> None:
        self.pipeline = pipeline
        self.by_name: dict[str, Callable[[Clip], Frames]] = {
            "still picture": lambda clip: np.repeat(clip.frames[:1], NUM_FRAMES, axis=0),
            "codec of the true frames": lambda clip: self._coded(clip.frames),
            "parts": lambda clip: _moved(clip, clip.frames[0]),
            "parts through the codec (warped reference)": lambda clip: self._coded(
                _moved(clip, self._coded(clip.frames[:1])[0])
            ),
            "bundled animator": self._animator,
            "parts at 512 px, true matte": lambda clip: _moved(
                clip, clip.frames[0], [clip.matte], least_side_px=MIN_LONG_SIDE_PX
            ),
        }

    @torch.no_grad()
    def _coded(self, frames: Frames) -> Frames:
        codec = self.pipeline.codec
        return to_uint8(codec.decode(codec.encode(to_frames(frames))))

    def _animator(self, clip: Clip) -> Frames:
        reference = self.pipeline.prepare_reference(clip.frames[0])
        options = AnimationOptions(alignment="none", face_optimization=False)
        return self.pipeline.animate(reference, clip.motion, options).frames_uint8


def _moved(
    clip: Clip,
    picture: UInt8[np.ndarray, "height width 3"],
    mattes: list[Float32[np.ndarray, "height width"]] | None = None,
    *,
    least_side_px: int = 0,
) -> Frames:
    puppet = KeypointPuppet(picture, [clip.pose(0)], mattes, least_side_px=least_side_px)
    return np.stack([puppet.move([clip.pose(i)]).picture_uint8 for i in range(NUM_FRAMES)])


def measure(
    made: Frames, clip: Clip, pipeline: AnimationPipeline, identity: Float32[np.ndarray, " _"]
) -> list[float]:
    """Return L1, PSNR, SSIM and CSIM of the frames after the first."""
    truth, made = clip.frames[1:], made[1:]
    faces = embed_largest_faces(made, pipeline.perception)
    cosine = identity_similarity(faces, identity).mean
    return [l1(made, truth), psnr(made, truth), ssim(made, truth), cosine]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one row per way, and write what they made as pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for contact sheets")
    parser.add_argument("--clips", type=int, default=12)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    pipeline = AnimationPipeline.from_pretrained(resolve_weights(BUNDLED_ANIMATOR))
    methods = Methods(pipeline)
    rows: dict[str, list[list[float]]] = {name: [] for name in methods.by_name}
    seed = FIRST_SEED
    while len(rows["still picture"]) < options.clips:
        clip, seed = render(seed, pipeline.animator.config.width_px), seed + 1
        try:
            identity = pipeline.prepare_reference(clip.frames[0]).identity_embedding
            made = {name: method(clip) for name, method in methods.by_name.items()}
        except AnimarayError as error:
            print(f"seed {seed - 1} left out: {error}")
            continue
        for name, frames in made.items():
            rows[name].append(measure(frames, clip, pipeline, identity))
        shown = [
            np.concatenate(list(frames[::2]), axis=1) for frames in (clip.frames, *made.values())
        ]
        write_png(options.out / f"{seed - 1}.png", np.concatenate(shown))
        print(seed - 1, clip.spec.framing, clip.spec.motion_kind, flush=True)
    print("| way | L1 | PSNR | SSIM | CSIM |\n|---|---|---|---|---|")
    for name, values in rows.items():
        mean = np.nanmean(np.array(values), axis=0)
        print(f"| {name} | {mean[0]:.4f} | {mean[1]:.2f} | {mean[2]:.3f} | {mean[3]:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
