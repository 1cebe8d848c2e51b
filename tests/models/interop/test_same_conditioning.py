"""One clip through the training row and through the inference path gives equal tensors."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import (
    open_encoded_clips,
    write_encoded_clips,
)
from animaray.datasets.encoded_index import EncodedCommits
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline
from animaray.models.face.identity import FaceIdentity
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import Conditioning
from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
from animaray.models.perception.permissive.tiny_autoencoder import TinyAutoencoderCodec
from animaray.models.perception.profiles import load_codec, load_image_encoder, load_perception
from animaray.models.pose.layouts import (
    FACE,
    FEET,
    LEFT_HAND,
    NUM_FURTHER_POINTS,
    RIGHT_HAND,
)
from animaray.models.subjects.encoding import ReferenceNoise
from animaray.models.subjects.framing import FrameFit
from animaray.pipelines.encode.config import EncodeConfig
from animaray.pipelines.encode.encode_clip import ClipEncoders, FittedClip, encode_together
from animaray.platform.errors import ConfigError
from animaray.platform.media.video import decode_video
from animaray.platform.stores import open_store
from animaray.platform.weights.whole_files import WEIGHTS_FILE
from animaray.training.animator_batches import make_item
from animaray.training.batch_order import Window
from animaray.training.recipes import animator_demo_cpu, animator_permissive_cpu

REFERENCE, DRIVEN = 0, (0, 1)
WINDOW = Window(clip_index=0, frame_indices=DRIVEN, reference_index=REFERENCE, is_mirrored=False)
OPTIONS = AnimationOptions(seed=3, alignment="none", face_optimization="off")


class WithHandsAndFace:
    """People of another estimator, with further points around their noses and wrists."""

    name = "marker_whole_body"

    def __init__(self, bodies):
        self._bodies = bodies

    def estimate(self, frame):
        rng = np.random.default_rng(0)
        offsets = rng.uniform(-3, 3, (NUM_FURTHER_POINTS, 2))
        return [
            replace(person, further_points=self._around(person, offsets))
            for person in self._bodies.estimate(frame)
        ]

    def _around(self, person, offsets):
        further = np.ones((NUM_FURTHER_POINTS, 3), np.float32)
        for part, keypoint in ((FEET, 13), (FACE, 0), (LEFT_HAND, 7), (RIGHT_HAND, 4)):
            further[part, :2] = person.keypoints[keypoint] + offsets[part]
        return further


def training_row(frames, pipeline, root):
    """Encode, store, read and cut out a window, as encoding and training do."""
    config, perception = pipeline.animator.config, pipeline.perception
    people = [perception.pose_estimator.estimate(frame)[0] for frame in frames]
    faces = [perception.face_detector.detect(frame)[0] for frame in frames]
    landmarks = np.stack([face.landmarks for face in faces])
    embedder = perception.identity_embedder
    times_s = np.arange(len(frames)) / config.fps
    clip = FittedClip(
        clip_id="clip",
        source_id="source",
        is_mirrored=False,
        times_s=times_s,
        frames_uint8=frames,
        keypoints=np.stack([person.keypoints for person in people]),
        keypoint_confidence=np.stack([person.keypoint_confidence for person in people]),
        further_points=None
        if people[0].further_points is None
        else np.stack([person.further_points for person in people]),
        face_times_s=times_s,
        face_boxes=np.stack([face.box for face in faces]),
        face_landmarks=landmarks,
        # What curation measured on the same frames.
        identity_embeddings=np.stack(
            [embedder.embed(*pair) for pair in zip(frames, landmarks, strict=True)]
        ),
    )
    encoders = ClipEncoders(
        codec=pipeline.codec,
        image_encoder=pipeline.image_encoder,
        identity_embedder=embedder,
    )
    settings = EncodeConfig(
        width_px=config.width_px,
        height_px=config.height_px,
        fps=config.fps,
        reference_noise=config.noise_aug_strength,
        frames_per_call=1,  # a convolution over a batch differs in the last bit
    )
    store = open_store(root)
    shelved = write_encoded_clips(store, "encoder", encode_together([clip], encoders, settings))
    EncodedCommits(CommitLog(store), "encoder").commit(shelved)
    row = open_encoded_clips(root).load("clip")
    return make_item(row, WINDOW, config, pipeline.codec).conditioning


def drawn_item(row, config):
    return make_item(row, WINDOW, config, rng=np.random.default_rng(0))


def inference_path(frames, pipeline):
    """Prepare the picture and follow the driving frames, as an animation does."""
    subjects = [
        (
            pipeline.prepare_reference(frames[REFERENCE]),
            pipeline.estimate_motion(frames[list(DRIVEN)]),
        )
    ]
    # Where noise is added to the reference: that of the table.
    noise = ReferenceNoise(strength=pipeline.animator.config.noise_aug_strength, seed="clip")
    poses = pipeline.align(subjects, OPTIONS)
    return pipeline.conditioning(subjects, poses, noise.of_frame(REFERENCE))


def assert_equal(training: Conditioning, inference: Conditioning) -> None:
    for field in fields(Conditioning):
        one, other = getattr(training, field.name), getattr(inference, field.name)
        assert (one is None) == (other is None), field.name
        if one is not None:
            assert torch.equal(one, other), f"{field.name}: {(one - other).abs().max()}"


def small_pipeline(recipe, codec=None):
    profile = recipe.animator.profile
    return AnimationPipeline(
        Animator(recipe.animator),
        None,
        codec or load_codec(profile),
        load_image_encoder(profile),
        load_perception(profile),
    )


def test_generated(tmp_path):
    pipeline = small_pipeline(animator_demo_cpu())
    config = pipeline.animator.config
    clip = render_clip(
        sample_clip_spec(
            7, num_frames=2, fps=8.0, size=(config.width_px, config.height_px), camera_kind="static"
        )
    )
    training = training_row(clip.frames_uint8, pipeline, tmp_path)
    assert_equal(training, inference_path(clip.frames_uint8, pipeline))
    assert training.warped_reference is not None


def test_permissive(tmp_path, permissive_weights, real_data):
    weights = [real_data / f"weights/vae_{half}.pth" for half in ("enc", "dec")]
    pipeline = small_pipeline(animator_permissive_cpu(), TinyAutoencoderCodec.load(*weights))
    config = pipeline.animator.config
    video = decode_video(real_data / "videos/v21.mp4", max_frames=2)
    square = FrameFit.for_person((300, 300), None, config.width_px, config.height_px)
    frames = square.apply_frames(video.frames_uint8[:, :300])
    training = training_row(frames, pipeline, tmp_path)
    assert_equal(training, inference_path(frames, pipeline))


def test_paper(tmp_path, weights_folder, marker_perception, marker_picture):
    embedder = ArcFaceEmbedder.load(weights_folder / "identity" / WEIGHTS_FILE)
    perception = replace(
        marker_perception,
        profile="paper",
        identity_embedder=embedder,
        pose_estimator=WithHandsAndFace(marker_perception.pose_estimator),
    )
    pipeline = AnimationPipeline.from_pretrained(weights_folder, perception)
    frames = np.stack([marker_picture(left=left) for left in (16, 20)])
    training = training_row(frames, pipeline, tmp_path)
    inference = inference_path(frames, pipeline)
    raw = embedder.embed_raw(
        frames[REFERENCE], marker_perception.face_detector.detect(frames[REFERENCE])[0].landmarks
    )
    assert torch.equal(training.identity_embedding[0], torch.from_numpy(raw))
    assert np.linalg.norm(raw) != pytest.approx(1, abs=0.1)
    assert_equal(training, inference)
    # The noise is there, on the pixels, and the latents of training are drawn from the posterior.
    row = open_encoded_clips(tmp_path).load("clip")
    assert not np.array_equal(row.reference_latents, row.latents)
    drawn = drawn_item(row, pipeline.animator.config)
    spread = (drawn.latents[0] - torch.from_numpy(row.latents.astype(np.float32))).flatten()
    std = torch.from_numpy(row.latent_std.astype(np.float32)).flatten()
    assert ((spread / std).std() - 1).abs() < 0.1
    noisy = torch.from_numpy(row.reference_latents[REFERENCE].astype(np.float32))
    std = torch.from_numpy(row.reference_latent_std[REFERENCE].astype(np.float32))
    spread = (drawn.conditioning.reference_latents[0] - noisy) / std
    assert abs(spread.std() - 1) < 0.3
    bodies = AnimationPipeline.from_pretrained(
        weights_folder, replace(perception, pose_estimator=marker_perception.pose_estimator)
    )
    without = inference_path(frames, bodies)
    assert (training.pose_images > without.pose_images).any()  # hands and faces are drawn


def test_a_model_of_raw_identities_refuses_unit_ones():
    face = FaceIdentity(unit=np.eye(4, dtype=np.float32)[0])
    with pytest.raises(ConfigError, match="raw output, and only unit vectors are known"):
        face.face_encoder_input("raw")
    assert face.face_encoder_input("unit") is face.unit
