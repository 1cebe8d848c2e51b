"""The bundled networks on generated people they never saw: accuracy floors and plain behaviour."""

import itertools

import numpy as np
import pytest
import torch

from animaray.models.perception.profiles import load_codec, load_image_encoder, load_perception
from animaray.models.perception.protocols import Perception
from benchmarks.bundled_weights.render_cache import Picture, render_scene

FIRST_TEST_SCENE = 50_000
"""Scenes that neither the trainings nor their held-out measurements drew."""


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    scenes = [render_scene("held_out", FIRST_TEST_SCENE + index) for index in range(24)]
    return [picture for scene in scenes for picture in scene]


@pytest.fixture(scope="module")
def perception() -> Perception:
    return load_perception("generated", num_threads=1)


def _alone(pictures: list[Picture]) -> list[Picture]:
    return [picture for picture in pictures if picture.num_people == 1]


def test_visible_keypoints_are_found(pictures: list[Picture], perception: Perception) -> None:
    hits: list[bool] = []
    for picture in _alone(pictures):
        visible = picture.keypoint_visible[0]
        if visible.sum() < 6:
            continue
        people = perception.pose_estimator.estimate(picture.frame)
        truth = picture.keypoints[0][visible]
        size = float(np.ptp(truth, axis=0).max())
        if not people:
            hits += [False] * int(visible.sum())
            continue
        distance = np.linalg.norm(people[0].keypoints[visible] - truth, axis=1)
        hits += list(distance <= 0.1 * size)
    assert len(hits) > 200
    assert np.mean(hits) > 0.85


def test_number_of_people_is_right_mostly(pictures: list[Picture], perception: Perception) -> None:
    right = [
        min(len(perception.pose_estimator.estimate(picture.frame)), 2) == min(picture.num_people, 2)
        for picture in pictures
        if picture.num_people == 0 or picture.keypoint_visible[0].sum() >= 6
    ]
    assert np.mean(right) > 0.8


def test_faces_are_found_with_their_landmarks(
    pictures: list[Picture], perception: Perception
) -> None:
    found: list[bool] = []
    errors: list[float] = []
    for picture in _alone(pictures):
        box = picture.face_boxes[0]
        if not picture.face_valid[0] or box.min() < 0 or box.max() > len(picture.frame):
            continue
        faces = perception.face_detector.detect(picture.frame)
        found.append(bool(faces))
        if faces:
            error = np.linalg.norm(faces[0].landmarks - picture.face_landmarks[0], axis=1).mean()
            errors.append(float(error / (box[3] - box[1])))
    assert len(found) > 10
    assert np.mean(found) > 0.9
    assert np.median(errors) < 0.06


def test_one_person_is_closer_than_another(pictures: list[Picture], perception: Perception) -> None:
    by_scene: dict[int, list[np.ndarray]] = {}
    for picture in _alone(pictures):
        if picture.scene_ids >= 0 and picture.face_valid[0]:
            embedding = perception.identity_embedder.embed(picture.frame, picture.face_landmarks[0])
            assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-4)
            by_scene.setdefault(picture.scene_ids, []).append(embedding)
    scenes = [members for members in by_scene.values() if len(members) > 1]
    same = [float(a @ b) for members in scenes for a, b in itertools.pairwise(members)]
    other = [float(scenes[i][0] @ scenes[j][0]) for i in range(len(scenes)) for j in range(i)]
    assert len(same) >= 4
    assert np.median(same) > 0.5
    assert np.median(other) < 0.3


def test_empty_pictures_show_nobody(perception: Perception) -> None:
    grey = np.full((200, 260, 3), 127, np.uint8)
    assert perception.pose_estimator.estimate(grey) == []
    assert perception.face_detector.detect(grey) == []


def test_codec_keeps_the_picture_and_has_unit_latents(pictures: list[Picture]) -> None:
    codec = load_codec("generated")
    frames = torch.stack(
        [torch.from_numpy(p.frame).permute(2, 0, 1).float() / 127.5 - 1 for p in pictures[:8]]
    )[:, :, 32:224, 32:224]
    with torch.no_grad():
        latents = codec.encode(frames)
        decoded = codec.decode(latents)
    assert latents.shape == (8, codec.latent_channels, 24, 24)
    assert 0.6 < float(latents.std()) < 1.6
    error = (decoded - frames).square().mean()
    assert float(10 * torch.log10(4 / error)) > 20.0


def test_gradients_reach_the_latents_through_decoder_and_embedder(perception: Perception) -> None:
    codec = load_codec("generated")
    latents = torch.randn(1, codec.latent_channels, 14, 14, requires_grad=True)
    crops = codec.decode(latents)
    perception.identity_embedder.embed_crops(crops)[0, 0].backward()
    assert latents.grad is not None
    assert float(latents.grad.abs().sum()) > 0


def test_pictures_of_one_scene_agree_for_the_image_encoder(pictures: list[Picture]) -> None:
    encoder = load_image_encoder("generated")
    frames = torch.stack(
        [torch.from_numpy(p.frame).permute(2, 0, 1).float() / 127.5 - 1 for p in pictures]
    )
    with torch.no_grad():
        embeddings = torch.nn.functional.normalize(encoder.encode(frames), dim=1)
    ids = torch.tensor([picture.scene_ids for picture in pictures])
    cosines = embeddings @ embeddings.T
    same = (ids[:, None] == ids[None]) & ~torch.eye(len(ids), dtype=torch.bool)
    assert float(cosines[same].mean()) > float(cosines[ids[:, None] != ids[None]].mean()) + 0.3
