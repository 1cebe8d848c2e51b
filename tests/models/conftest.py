import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from animaray.models.perception.face_sampling import align_frames
from animaray.models.perception.protocols import FaceDetection, Perception, PersonPose


@pytest.fixture(scope="session")
def golden(golden_data):
    """Return a reader of golden vectors: name -> (config, tensors, weights)."""

    def read(name):
        folder = golden_data / name
        config = json.loads((folder / "config.json").read_text())
        file, weights_file = folder / "io.safetensors", folder / "state_dict.safetensors"
        tensors = load_file(file) if file.exists() else {}
        weights = load_file(weights_file) if weights_file.exists() else {}
        return config, tensors, {key: value.float() for key, value in weights.items()}

    return read


@pytest.fixture(scope="session")
def golden_keys(golden_data):
    """Return a reader of the published models' key tables: name -> {key: shape}."""
    return lambda name: json.loads((golden_data / f"keys_{name}.json").read_text())["keys"]


class MarkerPoseEstimator:
    """People of a world of flat pictures: a standing person fills the box of all lit pixels."""

    name = "marker"

    def estimate(self, frame):
        lit = np.argwhere(frame.max(axis=2) > 40)
        if len(lit) == 0:
            return []
        (top, left), (bottom, right) = lit.min(axis=0), lit.max(axis=0)
        size = np.array([right - left, bottom - top], np.float32)
        keypoints = STANDING * size + np.array([left, top], np.float32)
        return [PersonPose(keypoints=keypoints, keypoint_confidence=np.ones(18, np.float32))]


class MarkerFaceDetector:
    """The faces of that world are its bright pixels."""

    name = "marker"

    def detect(self, frame):
        bright = np.argwhere(frame.max(axis=2) > 150)
        if len(bright) < 4:
            return []
        (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0)
        size = np.array([right - left, bottom - top], np.float32)
        landmarks = FACE_TEMPLATE * size + np.array([left, top], np.float32)
        box = np.array([left, top, right, bottom], np.float32)
        return [FaceDetection(box=box, score=0.9, landmarks=landmarks.astype(np.float32))]


class MarkerEmbedder(torch.nn.Module):
    """An identity of that world is the mean colour of the face."""

    name, embedding_dim, crop_height_px, crop_width_px = "marker", 16, 16, 16

    def template(self):
        return (FACE_TEMPLATE * 16).astype(np.float32)

    def embed(self, frame, landmarks):
        frames = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
        points = torch.from_numpy(landmarks)[None]
        crops = align_frames(frames, points, self.template(), (16, 16))
        return self.embed_crops(crops)[0].numpy()

    def embed_crops(self, crops):
        colour = torch.nn.functional.pad(crops.mean((2, 3)) + 1, (0, 13))
        return torch.nn.functional.normalize(colour + 1e-3, dim=1)


class MarkerCodec(torch.nn.Module):
    """Latents of that world: brightness and colour of 8 x 8 blocks."""

    name, latent_channels, downscale = "marker", 4, 8

    def encode(self, frames):
        blocks = torch.nn.functional.avg_pool2d(frames, 8)
        return torch.cat([blocks, blocks.mean(1, keepdim=True)], dim=1)

    def decode(self, latents):
        return latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)


class MarkerImageEncoder(torch.nn.Module):
    """The image embedding of that world: 32 mean brightnesses."""

    name, embedding_dim = "marker", 32

    def encode(self, frames):
        return torch.nn.functional.adaptive_avg_pool2d(frames.mean(1), (4, 8)).flatten(1)


FACE_TEMPLATE = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])
STANDING = np.array(
    [
        [0.5, 0.12], [0.5, 0.2], [0.35, 0.2], [0.25, 0.35], [0.2, 0.5], [0.65, 0.2],
        [0.75, 0.35], [0.8, 0.5], [0.42, 0.5], [0.4, 0.75], [0.4, 0.98], [0.58, 0.5],
        [0.6, 0.75], [0.6, 0.98], [0.42, 0.08], [0.58, 0.08], [0.35, 0.1], [0.65, 0.1],
    ],
    np.float32,
)  # fmt: skip


@pytest.fixture(scope="session")
def marker_perception():
    """Return the perception of a world of flat pictures, exact and fast."""
    return Perception(
        profile="generated",
        face_detector=MarkerFaceDetector(),
        identity_embedder=MarkerEmbedder(),
        pose_estimator=MarkerPoseEstimator(),
    )


@pytest.fixture(scope="session")
def marker_networks():
    """Return codec and image encoder of that world."""
    return MarkerCodec(), MarkerImageEncoder()


@pytest.fixture
def marker_picture():
    """Return a function that draws a person with a coloured face at a place."""

    def draw(width=64, height=64, left=16, top=8, colour=(255, 60, 60)):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[top : top + 48, left : left + 24] = 90
        picture[top : top + 12, left + 6 : left + 18] = colour
        return picture

    return draw
