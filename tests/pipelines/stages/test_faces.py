"""Face scores: angles from known heads, following one face among several, identity changes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from animaray.models.perception.face_alignment import USUAL_TEMPLATE
from animaray.models.perception.protocols import FaceDetection
from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.stages.faces import (
    ADDS,
    FacesConfig,
    FaceStage,
    face_angles,
    face_area,
    face_sharpness,
    identity_agreement,
    main_face,
)
from animaray.platform.media.video import write_mp4

FRONTAL = np.array([[40, 50], [60, 50], [50, 61.6], [42, 70], [58, 70]], dtype=np.float32)


def head(yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> np.ndarray:
    """Project five points of a mean head that is turned: eyes 2 wide, mouth 2.2 below."""
    points = np.array([[-1, 0, 0], [1, 0, 0], [0, 1.276, 1.2], [-0.8, 2.2, 0], [0.8, 2.2, 0]])
    yaw, pitch = np.radians([yaw_deg, pitch_deg])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array(
        [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    )
    return (100 + 20 * (points @ (nod @ turn).T)[:, :2]).astype(np.float32)


def face(left: float, size: float, score: float = 0.9) -> FaceDetection:
    return FaceDetection(
        box=np.array([left, 20, left + size, 20 + size], dtype=np.float32),
        score=score,
        landmarks=(FRONTAL - 40) / 20 * size / 2 + np.array([left, 20], dtype=np.float32),
    )


@pytest.mark.parametrize("yaw_deg", [-60, -30, 0, 30, 60])
def test_yaw_of_a_turned_head(yaw_deg: float) -> None:
    yaw, pitch = face_angles(head(yaw_deg=yaw_deg))
    assert yaw == pytest.approx(yaw_deg, abs=8)
    assert abs(pitch) < 10


def test_pitch_grows_when_the_head_nods() -> None:
    pitches = [face_angles(head(pitch_deg=angle))[1] for angle in (-30, 0, 30)]
    assert pitches[0] < -10 < pitches[1] < 10 < pitches[2]


def test_tilted_head_is_still_frontal() -> None:
    angle = np.radians(35)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    yaw, pitch = face_angles((head() @ turn.T).astype(np.float32))
    assert abs(yaw) < 3
    assert abs(pitch) < 3


def test_coinciding_points_count_as_turned_away() -> None:
    assert face_angles(np.zeros((5, 2), dtype=np.float32)) == (90.0, 90.0)


def test_the_followed_face_stays_while_another_grows() -> None:
    mine, other = face(10, 40), face(200, 50)
    assert main_face([other, mine], None) is other
    assert main_face([other, mine], mine) is mine
    assert main_face([face(200, 90), mine], mine).box[0] == 200  # now four times as large
    assert main_face([], mine) is None
    assert face_area(mine) == 1600


class ScriptedDetector:
    """Find faces whose place and number a frame's brightness tells."""

    name = "scripted"

    def __init__(self, faces_by_level: dict[int, list[FaceDetection]]) -> None:
        self._faces = faces_by_level

    def detect(self, frame: np.ndarray) -> list[FaceDetection]:
        level = int(np.median(frame))
        return self._faces[min(self._faces, key=lambda known: abs(known - level))]


class LevelEmbedder:
    """Embed a face by a frame's brightness: dark one person, bright another."""

    name = "level"
    embedding_dim = 2
    crop_height_px = 32
    crop_width_px = 32

    def template(self) -> np.ndarray:
        return (FRONTAL - 40).astype(np.float32)

    def embed(self, frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        assert landmarks.shape == (5, 2)
        return np.array([1, 0] if np.median(frame) < 128 else [0, 1], dtype=np.float32)

    def embed_crops(self, crops: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def score(
    tmp_path: Path,
    levels: list[int],
    faces: dict[int, list[FaceDetection]],
    embedder: LevelEmbedder | None = None,
) -> dict:
    frames = np.repeat(np.array(levels, np.uint8), 200 * 300 * 3).reshape(len(levels), 200, 300, 3)
    path = tmp_path / "clip.mp4"
    write_mp4(path, frames, 3.0)
    stage = FaceStage(ScriptedDetector(faces), embedder or LevelEmbedder(), FacesConfig())
    return stage(
        {"samples": ClipSamples(str(path)), "clip_num_frames": len(levels), "clip_fps": 3.0}
    )


def test_scores_of_one_steady_face(tmp_path: Path) -> None:
    row = score(tmp_path, [60] * 6, {60: [face(50, 48)]})
    assert set(ADDS) <= set(row)
    scores = row["face_scores"]
    assert scores["face_found_share"] == 1.0
    assert scores["face_size_px"] == pytest.approx(48)
    assert scores["face_size_share"] == pytest.approx(48 / 200)
    assert scores["face_identity_p25"] == pytest.approx(1.0)
    assert scores["face_single_share"] == scores["face_complete_share"] == 1.0
    assert row["face_tracks"].frame_index.tolist() == list(range(6))


def test_length_of_the_recognisers_own_output_is_kept(tmp_path: Path) -> None:
    class RawEmbedder(LevelEmbedder):
        """Give vectors of length 20 in dark frames and of length 5 in bright ones."""

        def embed_raw(self, frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            return self.embed(frame, landmarks) * (20.0 if np.median(frame) < 128 else 5.0)

    clear = score(tmp_path, [60] * 4, {60: [face(50, 48)]}, RawEmbedder())
    assert clear["face_scores"]["face_embedding_norm"] == pytest.approx(20.0)
    assert np.linalg.norm(clear["face_tracks"].embeddings, axis=1) == pytest.approx(np.ones(4))
    assert clear["identity_embedding"] == pytest.approx([1.0, 0.0])
    faces = {60: [face(50, 48)], 200: [face(50, 48)]}
    assert score(tmp_path, [60, 200], faces, RawEmbedder())["face_scores"][
        "face_embedding_norm"
    ] == pytest.approx(5.0 + 0.25 * 15.0)
    assert "face_embedding_norm" not in score(tmp_path, [60], faces)["face_scores"]


def test_missing_faces_are_invalid_not_zero_vectors(tmp_path: Path) -> None:
    row = score(tmp_path, [60, 60, 200, 200], {60: [face(50, 48)], 200: []})
    tracks = row["face_tracks"]
    assert tracks.valid.tolist() == [True, True, False, False]
    assert row["face_scores"]["face_found_share"] == 0.5


def test_clip_without_faces_has_no_face_numbers(tmp_path: Path) -> None:
    row = score(tmp_path, [60] * 3, {60: [face(50, 48, score=0.3)]})
    assert row["face_scores"] == {"face_found_share": 0.0, "face_num_sampled": 3}
    assert row["identity_embedding"] is None


def test_second_person_and_changing_identity_lower_their_scores(tmp_path: Path) -> None:
    row = score(
        tmp_path, [60, 60, 200, 200], {60: [face(50, 48), face(150, 40)], 200: [face(50, 48)]}
    )
    scores = row["face_scores"]
    assert scores["face_single_share"] == 0.5
    # Two people, half the time each: both are near the mean, but far from each other.
    assert scores["face_identity_p25"] == pytest.approx(0.0, abs=1e-6)


def test_a_face_that_is_hidden_for_a_moment_is_no_other_person(tmp_path: Path) -> None:
    faces = {60: [face(50, 48)], 200: [face(50, 48)]}
    scores = score(tmp_path, [60, 60, 60, 60, 60, 60, 60, 200], faces)["face_scores"]
    assert scores["face_identity_p25"] == pytest.approx(1.0)


def test_face_at_the_border_is_incomplete(tmp_path: Path) -> None:
    row = score(tmp_path, [60] * 3, {60: [face(280, 60)]})
    assert row["face_scores"]["face_complete_share"] == 0.0


def test_long_clips_are_sampled_sparsely(tmp_path: Path) -> None:
    frames = np.full((40, 200, 300, 3), 60, dtype=np.uint8)
    path = tmp_path / "clip.mp4"
    write_mp4(path, frames, 10.0)
    config = FacesConfig(max_samples=5)
    stage = FaceStage(ScriptedDetector({60: [face(50, 48)]}), LevelEmbedder(), config)
    row = stage({"samples": ClipSamples(str(path)), "clip_num_frames": 40, "clip_fps": 10.0})
    assert row["face_tracks"].frame_index.tolist() == [0, 8, 16, 24, 32]


def test_sharpness_does_not_depend_on_the_size_of_the_recognisers_crop() -> None:
    class Large(LevelEmbedder):
        """Take crops four times as large."""

        crop_height_px, crop_width_px = 128, 128

        def template(self) -> np.ndarray:
            return (FRONTAL - 40).astype(np.float32) * 4

    class Usual(LevelEmbedder):
        """Take the crops of most recognisers."""

        crop_height_px, crop_width_px = 112, 96

        def template(self) -> np.ndarray:
            return np.array(USUAL_TEMPLATE, dtype=np.float32)

    frame = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    landmarks = Usual().template() * 2 + 20
    assert face_sharpness(frame, landmarks, Large()) == pytest.approx(
        face_sharpness(frame, landmarks, Usual())
    )


def test_one_limit_of_identity_serves_every_recogniser() -> None:
    def turned(cosine: float) -> np.ndarray:
        return np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]] * 2, dtype=np.float32)

    # Of four faces two are the typical one itself: the 25th percentile is the others' cosine.
    assert identity_agreement(turned(0.4), "generated/identity") == pytest.approx(0.4, abs=1e-6)
    found = identity_agreement(turned(0.61), "permissive/dlib_identity@0123")
    assert found == pytest.approx(0.4, abs=1e-6)
