"""Measure profile permissive's networks on the real media: faces, identity, body, cost.

    python -m benchmarks.quality.permissive_perception --real ../shared/real

Faces: six frames of each of 16 clips with a person, and of six without a face; a face that YuNet
sees counts as found where a box of ours overlaps it. Identity: all pairs of identities.json, and
clips of which half shows one person and half another. Exits 1 below 95 % of the faces of 85 that
the issue asks for (81), or below an area of 0.99 under the identity's ROC. `--middle` prints the
middle of people that `dlib_identity.py` holds, measured anew.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from animaray.models.perception.face_alignment import align_face
from animaray.models.perception.permissive.dlib_identity import DlibIdentityEmbedder
from animaray.models.perception.permissive.head_faces import HeadFaceDetector
from animaray.models.perception.permissive.mediapipe_hands import HandNetworks
from animaray.models.perception.permissive.mediapipe_pose import MediaPipePoseEstimator
from animaray.models.perception.permissive.yunet import YuNetFaceDetector
from animaray.models.perception.same_person import comparable_cosines
from animaray.pipelines.stages.faces import face_angles, identity_agreement
from animaray.platform.media.picture import read_picture
from animaray.platform.media.video import FrameSelection, FrameStream

WITH_FACES = (
    "v01", "v02", "v03", "v04", "v05", "v06", "v07", "v08", "v09", "v10", "v11", "v19", "v21",
    "v22", "v23", "v27",
)  # fmt: skip
WITHOUT_FACES = ("v13", "v14", "v16", "v17", "v20", "v24")
SEVERAL_PEOPLE = ("v10", "v11", "v19")
FRAMES_A_CLIP, EMBEDDED_FRAMES = 6, 20
NEEDED_FACES, NEEDED_AREA = 81 / 85, 0.99
OTHER_PEOPLE = ("n06.jpg", "n07.jpg", "n09.jpg", "n10.jpg", "n11.jpg", "n01.png")
Frame = UInt8[np.ndarray, "height width 3"]


def frames_of(videos: Path, name: str, count: int) -> Iterator[Frame]:
    """Yield evenly spread frames of a clip."""
    (path,) = videos.glob(f"{name}.*")
    with FrameStream(path, FrameSelection(short_side_px=32)) as stream:
        length = sum(1 for _ in stream)
    wanted = FrameSelection(every=max(1, length // count), max_frames=count)
    with FrameStream(path, wanted) as stream:
        for _, frame in stream:
            yield frame


def overlap(one: Float32[np.ndarray, " 4"], other: Float32[np.ndarray, " 4"]) -> float:
    """Return intersection over union of two boxes."""
    extent = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    areas = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()
    return float(extent.prod() / (areas - extent.prod()))


def measure_faces(real: Path, detector: HeadFaceDetector) -> tuple[int, int]:
    """Print how many frames with a face are found, and return (found, of)."""
    yunet = YuNetFaceDetector(real / "weights/face_det.onnx")
    found = faces = missed_faces = strange = certain = without = 0
    missed: list[str] = []
    for name in (*WITH_FACES, *WITHOUT_FACES):
        for frame in frames_of(real / "videos", name, FRAMES_A_CLIP):
            known, ours = yunet.detect(frame), detector.detect(frame)
            without += not known
            strange += not known and len(ours) > 0
            certain += not known and any(face.score >= 0.6 for face in ours)
            hits = [any(overlap(face.box, own.box) > 0.25 for own in ours) for face in known]
            faces, missed_faces = faces + len(known), missed_faces + len(known) - sum(hits)
            found += any(hits)
            if known and not any(hits):
                missed.append(f"{name} ({known[0].box[2] - known[0].box[0]:.0f} px)")
    total = found + len(missed)
    print(f"faces: found in {found} of {total} frames in which YuNet sees one; missed {missed}")
    print(f"faces of all sizes and crowds: {faces - missed_faces} of {faces}")
    print(f"faces where YuNet sees none: {strange} of {without} frames; score >= 0.6: {certain}")
    return found, total


Numbers = Float32[np.ndarray, " numbers"]


def numbers_of(
    frame: Frame, detector: HeadFaceDetector, embedder: DlibIdentityEmbedder
) -> Numbers | None:
    """Return dlib's own numbers of the largest frontal face."""
    faces = [face for face in detector.detect(frame) if face.score >= 0.6]
    if not faces:
        return None
    yaw_deg, pitch_deg = face_angles(faces[0].landmarks)
    if abs(yaw_deg) > 60 or abs(pitch_deg) > 40:
        return None
    side = embedder.crop_height_px
    crop = align_face(frame, faces[0].landmarks, embedder.template(), side, side)
    with torch.inference_mode():
        batch = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
        return embedder.network(batch)[0].numpy()


def area_under_roc(positive: list[float], negative: list[float]) -> float:
    """Return how often a positive is above a negative."""
    above = np.array(positive)[:, None] - np.array(negative)[None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def measure_identity(
    real: Path, detector: HeadFaceDetector, embedder: DlibIdentityEmbedder, *, shows_middle: bool
) -> float:
    """Print how well people are told apart; return the area under the ROC."""
    people = json.loads((real / "annotations/identities.json").read_text(encoding="utf-8"))

    def look(frame: Frame) -> Numbers | None:
        return numbers_of(frame, detector, embedder)

    photos: dict[str, Any] = {name: look(read_picture(real / "images" / name)) for name in people}
    others = [look(read_picture(real / "images" / name)) for name in OTHER_PEOPLE]
    clips = {
        name: [each for frame in frames_of(real / "videos", name, EMBEDDED_FRAMES)
               if (each := look(frame)) is not None]
        for name in WITH_FACES if name not in SEVERAL_PEOPLE
    }  # fmt: skip
    middle = embedder.middle.numpy()
    if shows_middle:
        groups: list[list[Any]] = [[photos[name] for name in people if people[name] == who]
                  for who in dict.fromkeys(people.values())]  # fmt: skip
        groups += [[each] for each in others]
        groups += [each for name, each in clips.items() if name != "v23"]  # v23 shows p09
        means = [np.mean([each for each in group if each is not None], axis=0) for group in groups]
        anew = np.mean(means, axis=0)
        print("middle of", len(means), "people:", ", ".join(f"{value:.3f}" for value in anew))
        print(f"its distance to the one in use: {np.linalg.norm(anew - middle):.3f}")

    def unit(numbers: Any) -> Any:  # noqa: ANN401 - one vector or many
        away = numbers - middle
        return away / np.linalg.norm(away, axis=-1, keepdims=True)

    pairs: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for one, other in itertools.combinations(people, 2):
        cosine = float(unit(photos[one]) @ unit(photos[other]))
        distance = float(np.linalg.norm(photos[one] - photos[other]))
        pairs[people[one] == people[other]].append((cosine, -distance))
    same, different = ([cosine for cosine, _ in pairs[is_same]] for is_same in (True, False))
    area = area_under_roc(same, different)
    print(
        f"identity: {len(same)} pairs of one person, cosine at least {min(same):.3f}; "
        f"{len(different)} of two people, at most {max(different):.3f}; area under ROC {area:.4f}"
    )
    by_distance = area_under_roc(*([near for _, near in pairs[is_same]] for is_same in pairs))
    print(f"area under ROC by dlib's own distance: {by_distance:.4f}")
    units = {name: unit(np.stack(each)) for name, each in clips.items() if each}
    alone = {name: identity_agreement(each, embedder.name) for name, each in units.items()}
    mixed = []
    for one, other in itertools.combinations(units.values(), 2):
        half = min(len(one), len(other))
        mixed.append(identity_agreement(np.concatenate([one[:half], other[:half]]), embedder.name))
    least = sorted(alone.items(), key=lambda item: item[1])[:3]
    print(f"agreement in clips of one person at least {least}, of two at most {max(mixed):.3f}")
    by_clip = {name: unit(np.stack(each).mean(axis=0)) for name, each in clips.items() if each}
    cross = np.array([one @ other for one, other in itertools.combinations(by_clip.values(), 2)])
    print(
        f"clips of two people: cosine at most {cross.max():.3f}, "
        f"comparable {comparable_cosines(cross.astype(np.float64), embedder.name).max():.3f}"
    )
    return area


def measure_cost(real: Path, detector: HeadFaceDetector, embedder: DlibIdentityEmbedder) -> None:
    """Print CPU milliseconds of each network on a 720p frame with one person."""
    frame = next(frames_of(real / "videos", "v04", 1))
    poses, hands = MediaPipePoseEstimator.load(), HandNetworks.load()
    body = poses.find(frame)[0]
    face = detector.detect(frame)[0]
    parts: dict[str, Callable[[], object]] = {
        "body": lambda: poses.find(frame),
        "body followed": lambda: poses.follow(frame, body),
        "body followed, with mask": lambda: poses.follow(frame, body, wants_mask=True),
        "faces": lambda: detector.detect(frame),
        "face on a known body": lambda: detector.find_of_body(frame, body),
        "both hands": lambda: hands.find_of_body(frame, body),
        "identity": lambda: embedder.embed(frame, face.landmarks),
    }
    for name, run in parts.items():
        run()
        taken = []
        for _ in range(7):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
        print(f"cost of {name}: {1000 * float(np.median(taken)):.1f} CPU ms")


def main() -> int:
    """Measure everything; exit 1 below what is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--middle", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    detector, embedder = HeadFaceDetector.load(), DlibIdentityEmbedder.load()
    found, total = measure_faces(arguments.real, detector)
    area = measure_identity(arguments.real, detector, embedder, shows_middle=arguments.middle)
    measure_cost(arguments.real, detector, embedder)
    return int(found < NEEDED_FACES * total or area < NEEDED_AREA)


if __name__ == "__main__":
    sys.exit(main())
