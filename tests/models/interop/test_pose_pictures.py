"""The authors' pose pictures, with hands and faces, come out of our own ways to a pose picture."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import (
    EncodedClip,
    open_encoded_clips,
    write_encoded_clips,
)
from animaray.datasets.encoded_index import EncodedCommits
from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline
from animaray.models.frames import to_uint8
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.protocols import FaceDetection, PersonPose
from animaray.models.subjects.motion import estimate_motion
from animaray.models.subjects.reference import prepare_reference
from animaray.platform.stores import open_store
from animaray.training.animator_batches import make_item
from animaray.training.batch_order import Window
from benchmarks.golden.preprocessing import people_of

SIZE = WIDTH, HEIGHT = 384, 512
PICTURES = ["ref", "drv0", "drv1", "drv3"]
CONFIG = replace(
    AnimatorConfig.tiny(),
    width_px=WIDTH,
    height_px=HEIGHT,
    warped_reference=None,
    pose_layout="whole_body_134",
)


@pytest.fixture(scope="module")
def arrays(golden_data):
    return load_file(golden_data / "pose_align_draw" / "io.safetensors")


@pytest.fixture(scope="module")
def drawn(golden_data):
    """Return a reader of the authors' pictures."""

    def read(name):
        picture = cv2.imread(str(golden_data / "pose_align_draw" / f"drawn_{name}.png"))
        return picture[..., ::-1]

    return read


class ScriptedPeople:
    """The people whom the authors' estimator found; a picture's colour says in which picture."""

    name = "scripted"

    def __init__(self, arrays):
        self._people = [
            [
                PersonPose(
                    keypoints=person.keypoints.astype(np.float32),
                    keypoint_confidence=person.keypoint_confidence.astype(np.float32),
                    further_points=person.further_points.astype(np.float32),
                )
                for person in people_of(arrays, picture, SIZE)
            ]
            for picture in PICTURES
        ]

    def estimate(self, frame):
        return self._people[frame[0, 0, 0]]


class FaceAtNose:
    """One face where the reference's nose is."""

    name = "scripted"

    def __init__(self, nose):
        box = np.concatenate([nose - 30, nose + 30]).astype(np.float32)
        offsets = np.array([[-10, -10], [10, -10], [0, 0], [-10, 10], [10, 10]])
        landmarks = (nose + offsets).astype(np.float32)
        self._face = FaceDetection(box=box, score=1.0, landmarks=landmarks)

    def detect(self, _frame):
        return [self._face]


def test_animating_draws_them(arrays, drawn, marker_perception, marker_networks):
    frames = np.stack([np.full((HEIGHT, WIDTH, 3), index, np.uint8) for index in range(4)])
    perception = replace(
        marker_perception,
        pose_estimator=ScriptedPeople(arrays),
        face_detector=FaceAtNose(people_of(arrays, "ref", SIZE)[0].keypoints[0]),
    )
    codec, image_encoder = marker_networks
    pipeline = AnimationPipeline(Animator(CONFIG), None, codec, image_encoder, perception)
    reference = prepare_reference(frames[0], CONFIG, perception, image_encoder)
    subjects = [(reference, estimate_motion(frames[1:], perception.pose_estimator))]
    options = AnimationOptions(alignment="fit")
    poses = pipeline.align(subjects, options)
    conditioning = pipeline.conditioning(subjects, poses, torch.Generator().manual_seed(0))
    pictures = to_uint8(conditioning.pose_images[0])
    assert np.array_equal(pictures[0], drawn("aligned0"))
    assert np.array_equal(pictures[1], drawn("aligned1"))
    # Keypoints of single precision put the middle of one limb a 2160th of the picture away.
    assert np.abs(pictures[2].astype(int) - drawn("aligned3")).mean() < 0.001


def test_training_draws_them(arrays, drawn, tmp_path):
    (person,) = people_of(arrays, "drv0", SIZE)
    rng = np.random.default_rng(0)
    clip = EncodedClip(
        clip_id="clip",
        source_id="source",
        is_mirrored=False,
        fps=8.0,
        width_px=WIDTH,
        height_px=HEIGHT,
        latents=np.zeros((2, 4, HEIGHT // 8, WIDTH // 8), np.float16),
        image_embeddings=rng.standard_normal((2, 32), np.float32),
        identity_embedding=np.eye(16, dtype=np.float32)[0],
        identity_embeddings=np.eye(16, dtype=np.float32)[:2],
        identity_valid=np.ones(2, bool),
        keypoints=np.stack([person.keypoints] * 2).astype(np.float32),
        keypoint_confidence=np.stack([person.keypoint_confidence] * 2).astype(np.float32),
        face_boxes=np.zeros((2, 4), np.float32),
        face_box_valid=np.zeros(2, bool),
        further_points=np.stack([person.further_points] * 2).astype(np.float32),
    )
    store = open_store(tmp_path)
    shelved = write_encoded_clips(store, "encoder", [clip])
    EncodedCommits(CommitLog(store), "encoder").commit(shelved)
    window = Window(clip_index=0, frame_indices=(0,), reference_index=1, is_mirrored=False)
    row = open_encoded_clips(tmp_path).load("clip")
    shown = make_item(row, window, CONFIG).conditioning.pose_images[0]
    assert np.array_equal(to_uint8(shown)[0], drawn("unaligned_drv0"))
    bodies = make_item(row, window, replace(CONFIG, pose_layout="openpose_18"))
    assert not torch.equal(bodies.conditioning.pose_images[0], shown)
