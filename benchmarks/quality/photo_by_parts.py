"""Measure the engine `parts` on real photos and clips: the protocol of the reference, in one run.

    python -m benchmarks.quality.photo_by_parts --real ../shared/real --out /tmp/parts

Self-driven: the first frame of a clip is the photo, later frames are driver and truth; beside it
the still photo. Cross-identity: a photo
moved by another person's clip. CSIM is judged by a recogniser that the engine never sees
(face_id.ckpt), PCK by the pose network on the result. Contact sheets (driver above, result below)
go to --out. Run it with OMP_NUM_THREADS=1 on a quiet machine: times are processor seconds.
"""

import argparse
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from skimage.metrics import structural_similarity

from animaray.models.parts.landmarks import (
    HEAD_POINTS,
    NOSE,
    SHOULDERS,
    PersonLandmarks,
    TargetPose,
)
from animaray.models.parts.options import PartsOptions
from animaray.models.parts.perception import SeenClip
from animaray.models.parts.pipeline import (
    PartsAnimation,
    PartsPipeline,
    PartsReference,
    scaled_picture,
)
from animaray.models.parts.smoothing import smooth_people
from animaray.models.perception.permissive.mediapipe_pose import MediaPipePoseEstimator
from animaray.models.perception.permissive.mobile_face_net import MobileFaceNetEmbedder
from animaray.models.perception.permissive.yunet import YuNetFaceDetector
from animaray.platform.errors import AnimarayError
from animaray.platform.media.video import decode_in_child, read_picture, write_picture

SIDE_PX = 512
SELF = {"v04": 1, "v27": 3, "v02": 4, "v01": 4, "v23": 4, "v09": 4}
"""Clips, and every which frame is judged."""
WANTED = {"v04": (23.2, 0.90), "v27": (21.0, 0.815), "v02": (21.8, 0.90), "v01": (21.4, 0.85),
          "v23": (29.0, 0.89), "v09": (24.6, 0.86)}  # fmt: skip
JUDGED = 23
CROSS = (
    ("n01.png", "v27", 72), ("n01.png", "v04", 24), ("n01.png", "v01", 96), ("v27", "v04", 24),
    ("v04", "v27", 72), ("p07_1.jpg", "v09", 96), ("p07_1.jpg", "v23", 96),
    ("p08_2.jpg", "v09", 96), ("p08_2.jpg", "v23", 96), ("p08_1.jpg", "v23", 96),
    ("p04_1.jpg", "v09", 96), ("n11.jpg", "v23", 96), ("n10.jpg", "v09", 96),
)  # fmt: skip
Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judges:
    """Networks that judge results; the engine uses none of the faces' ones."""

    faces: YuNetFaceDetector
    identity: MobileFaceNetEmbedder
    poses: MediaPipePoseEstimator

    @classmethod
    def load(cls, real: Path) -> "Judges":
        """Load them from the folder of real media."""
        return cls(
            faces=YuNetFaceDetector.load(real / "weights" / "face_det.onnx"),
            identity=MobileFaceNetEmbedder.load(real / "weights" / "face_id.ckpt"),
            poses=MediaPipePoseEstimator.load(),
        )

    def face(self, picture: Picture) -> Float32[np.ndarray, " identity"] | None:
        """Return the identity of the clearest face, or None."""
        large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        found = self.faces.detect(large)
        if not found:
            return None
        best = max(found, key=lambda face: face.score)
        return self.identity.embed(large, best.landmarks)

    def pck(
        self, picture: Picture, wanted: np.ndarray, seen: np.ndarray, unit_px: float
    ) -> tuple[float, float]:
        """Return the shares of points within .1 and .2 shoulder widths of where they belong.

        Shoulders that are turned aside count as .7 of the photo's unit at least, as in the
        reference's protocol.
        """
        bodies = self.poses.find(picture)
        if not bodies:
            return 0.0, 0.0
        unit = float(np.linalg.norm(np.subtract(*wanted[list(SHOULDERS)])))
        unit = max(unit, 0.7 * unit_px)
        off = np.linalg.norm(bodies[0].points[:, :2] - wanted, axis=1)[seen] / unit
        return float((off < 0.1).mean()), float((off < 0.2).mean())


def psnr(result: Picture, truth: Picture) -> float:
    """Return the peak signal-to-noise ratio, dB."""
    error = float(np.mean((result.astype(np.float64) - truth) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


def read_clip(real: Path, name: str, count: int) -> tuple[list[Picture], float]:
    """Return frames of 512 px and their rate."""
    clip = decode_in_child(real / "videos" / f"{name}.mp4", max_frames=count)
    longest = max(clip.frames_uint8.shape[1:3])
    frames = [scaled_picture(frame, SIDE_PX / longest) for frame in clip.frames_uint8]
    return frames, clip.info.fps


def judged_points(person: PersonLandmarks, picture: Picture) -> np.ndarray:
    """Return which body points are seen inside the picture; of the head only the nose."""
    size = np.array(picture.shape[1::-1])
    inside = ((person.points > 0) & (person.points < size)).all(axis=1)
    seen: np.ndarray = (person.visibility > 0.5) & inside
    seen[HEAD_POINTS] &= np.arange(11) == NOSE
    return seen


def self_driven(real: Path, pipeline: PartsPipeline, judges: Judges, out: Path) -> None:
    """Print the table of clips that drive themselves."""
    print("clip PSNR (wanted, still) SSIM (wanted, still) CSIM (true) PCK.1 .2")
    for name, every in SELF.items():
        frames, fps = read_clip(real, name, every * (JUDGED + 1))
        photo = pipeline.prepare_reference(frames[0], options=PartsOptions(long_side_px=512))
        seen = pipeline.follow(frames)
        reference = _as_tracked(photo, seen, fps)
        animation = pipeline.animate(reference, seen, fps)
        own = judges.face(frames[0])
        rows, shown = [], [(frames[0], frames[0])]
        for index, person in enumerate(animation.driver_poses()):
            truth = frames[index]
            if index == 0 or index % every or seen.people[index] is None:
                continue
            made = animation.render(animation.retargeter.target(person))
            row = [f(x, truth) for f in (psnr, _ssim) for x in (made, frames[0])]
            faces = [judges.face(made), judges.face(truth)]
            row += [np.nan if face is None or own is None else face @ own for face in faces]
            row += judges.pck(
                made, person.points, judged_points(person, truth), reference.person.unit_px
            )
            rows.append(row)
            shown.append((truth, made))
        mean = np.nanmean(np.array(rows, np.float64), axis=0)
        want = WANTED[name]
        print(
            f"{name} {mean[0]:.2f} ({want[0]}, {mean[1]:.2f}) {mean[2]:.3f} ({want[1]},"
            f" {mean[3]:.3f}) {mean[4]:.3f} ({mean[5]:.3f}) {mean[6]:.3f} {mean[7]:.3f}"
            f" {animation.mode}",
            flush=True,
        )
        write_sheet(out / f"self_{name}.png", frames[0], shown)


def _as_tracked(photo: PartsReference, seen: SeenClip, fps: float) -> PartsReference:
    """Give the photo the landmarks of the smoothed first frame, as the reference's protocol did.

    What a self-driven clip measures is how well pixels follow landmarks, not how far two looks at
    one frame differ; a stranger's photo is measured as it is (`cross`).
    """
    first = smooth_people(seen.people, fps, photo.verdict.mode)[0]
    if first is None:
        return photo
    return replace(photo, person=replace(first, hands=photo.person.hands))


def _ssim(result: Picture, truth: Picture) -> float:
    return float(structural_similarity(result, truth, channel_axis=2))


def cross_identity(real: Path, pipeline: PartsPipeline, judges: Judges, out: Path) -> None:
    """Print the table of photos moved by other people."""
    print("photo driver mode CSIM mean least, faces lost, PCK.1 .2, render s/frame, unmoved share")
    for photo, driver, count in CROSS:
        picture = (
            read_clip(real, photo, 1)[0][0]
            if photo.startswith("v")
            else read_picture(real / "images" / photo)
        )
        frames, fps = read_clip(real, driver, count)
        try:
            reference = pipeline.prepare_reference(picture, options=PartsOptions(long_side_px=512))
            seen = pipeline.follow(frames)
            animation = pipeline.animate(reference, seen, fps)
        except AnimarayError as error:
            print(f"{photo} {driver} refused: {error.message}", flush=True)
            continue
        own, shown, similar, shares = judges.face(reference.picture_uint8), [], [], []
        spent = 0.0
        for index, person in enumerate(animation.driver_poses()):
            started = time.process_time()
            target = animation.retargeter.target(person)
            made = animation.render(target)
            spent += time.process_time() - started
            if index % max(1, count // 6):
                continue
            shown.append((frames[index], made))
            face = judges.face(made)
            similar.append(np.nan if face is None or own is None else float(face @ own))
            shares.append(
                judges.pck(
                    made,
                    target.points,
                    _both(person, reference.person, target, made),
                    reference.person.unit_px,
                )
            )
        values, pck = np.array(similar), np.mean(shares, axis=0)
        print(
            f"{photo} {driver} {animation.mode} {np.nanmean(values):.3f} {np.nanmin(values):.3f}"
            f" {np.isnan(values).sum()}/{len(values)} {pck[0]:.2f} {pck[1]:.2f}"
            f" {spent / len(frames):.3f}",
            flush=True,
        )
        write_sheet(out / f"{Path(photo).stem}_{driver}.png", reference.picture_uint8, shown)


def _both(
    driver: PersonLandmarks, photo: PersonLandmarks, target: TargetPose, picture: Picture
) -> np.ndarray:
    size = np.array(picture.shape[1::-1])
    inside = ((target.points > 0) & (target.points < size)).all(axis=1)
    seen: np.ndarray = (driver.visibility > 0.5) & (photo.visibility > 0.5) & inside
    seen[HEAD_POINTS] &= np.arange(11) == NOSE
    return seen


def speed_and_memory(real: Path, pipeline: PartsPipeline) -> None:
    """Print times at 512 and 768 px, and the memory of a drive of 60 s."""
    frames, fps = read_clip(real, "v27", 24)
    for photo in ("n01.png", "p07_1.jpg"):
        picture = read_picture(real / "images" / photo)
        for side in (512, 768):
            times = [time.process_time()]
            reference = pipeline.prepare_reference(picture, options=PartsOptions(long_side_px=side))
            times.append(time.process_time())
            seen = pipeline.follow(frames)
            times.append(time.process_time())
            animation = pipeline.animate(reference, seen, fps)
            times.append(time.process_time())
            for _ in animation.frames():
                pass
            times.append(time.process_time())
            prepare, follow, build, render = np.diff(times)
            print(
                f"{photo} {side} px {animation.mode}: start {prepare + build:.2f} s, perception"
                f" {follow / len(frames):.3f} s/frame, render {render / len(frames):.3f} s/frame"
            )
    count = round(60 * fps)

    def minute() -> Iterator[Picture]:
        for index in range(count):
            yield frames[index % len(frames)]

    reference = pipeline.prepare_reference(
        read_picture(real / "images" / "n01.png"), options=PartsOptions(long_side_px=512)
    )
    animation = PartsAnimation(reference, pipeline.follow(minute()).people, fps)
    made = sum(1 for _ in animation.frames())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"60 s: {made} frames, peak memory of this process {peak:.2f} GiB")


def write_sheet(path: Path, photo: Picture, pairs: list[tuple[Picture, Picture]]) -> None:
    """Write the photo, then driver above result for six moments."""
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, 6).round().astype(int)]
    columns = [np.concatenate([_high(photo), _high(photo)])]
    for driver, made in chosen:
        both = [_high(driver), _high(made)]
        width = max(each.shape[1] for each in both)
        both = [np.pad(each, ((0, 0), (0, width - each.shape[1]), (0, 0))) for each in both]
        columns.append(np.concatenate(both))
    write_picture(path, np.concatenate(columns, axis=1))


def _high(picture: Picture) -> Picture:
    scale = 360 / picture.shape[0]
    size = round(picture.shape[1] * scale), 360
    shrunk: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return shrunk


def main() -> None:
    """Run everything, or the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--real", type=Path, default=os.environ.get("ANIMARAY_REAL_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=["self", "cross", "speed"])
    arguments = parser.parse_args()
    if arguments.real is None:
        parser.error("--real names the folder of real media")
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    pipeline = PartsPipeline.load()
    judges = Judges.load(arguments.real)
    if arguments.only in {None, "self"}:
        self_driven(arguments.real, pipeline, judges, arguments.out)
    if arguments.only in {None, "cross"}:
        cross_identity(arguments.real, pipeline, judges, arguments.out)
    if arguments.only in {None, "speed"}:
        speed_and_memory(arguments.real, pipeline)


if __name__ == "__main__":
    main()
