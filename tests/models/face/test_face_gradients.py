"""Gradients through windows of the trained generated codec, on generated faces."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.face.loss import (
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.optimization import (
    FaceOptimizer,
    FaceTarget,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.face.windows import cell_boxes, face_boxes_px
from animaray.models.frames import to_frames
from animaray.models.perception.decoding.windowed_decoding import DecoderRecord
from animaray.models.perception.profiles import load_codec, load_perception
from benchmarks.bundled_weights.render_cache import render_scene

FIRST_SCENE = 61_000
SETTINGS = FaceOptimizationConfig()


@pytest.fixture(scope="module")
def perception():
    return load_perception("generated", num_threads=1)


@pytest.fixture(scope="module")
def codec():
    return load_codec("generated")


@pytest.fixture(scope="module")
def people(perception):
    """Three pictures of different people, and the landmarks found in them."""
    found = []
    for scene in range(FIRST_SCENE, FIRST_SCENE + 40):
        picture = render_scene("held_out", scene)[0]
        faces = perception.face_detector.detect(picture.frame)
        width = faces[0].box[2] - faces[0].box[0] if faces else 0
        if len(faces) == 1 and 20 < width < 60:
            found.append((picture.frame, faces[0].landmarks))
        if len(found) == 3:
            return found
    raise AssertionError("The generated world shows too few faces.")


@pytest.fixture(scope="module")
def case(people, perception, codec):
    embedder = perception.identity_embedder
    frames, landmarks = (np.stack(part) for part in zip(*people[:2], strict=True))
    with torch.no_grad():
        latents = codec.encode(to_frames(frames))
    latents = latents + 0.2 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    reference = embedder.embed(*people[2])
    boxes_px = face_boxes_px(landmarks, embedder)
    size = int(latents.shape[-2]), int(latents.shape[-1])
    face = VisibleFaces(
        reference=torch.from_numpy(reference),
        rows=np.arange(2),
        landmarks=landmarks,
        boxes_px=boxes_px,
        boxes=cell_boxes(boxes_px, codec.downscale, size),
    )
    return latents, face, reference


def window_loss(codec, embedder, face, margin, multiple=8):
    decoding = WindowDecoding(
        decoder=codec.windowed(),
        downscale=codec.downscale,
        record=DecoderRecord(),
        margin=margin,
        multiple=multiple,
    )
    return WindowLoss(decoding, embedder, [face])


def cosine(first, second):
    return functional.cosine_similarity(first.flatten(), second.flatten(), dim=0).item()


def test_window_gradients_agree_with_those_of_whole_frames(case, codec, perception):
    latents, face, _ = case
    embedder = perception.identity_embedder
    loss, gradient = FullFrameLoss(codec, embedder, [face])(latents)
    fast = window_loss(codec, embedder, face, SETTINGS.window_margin_latents)
    window = fast.plan(face, latents)
    assert window.size[0] * window.size[1] < latents.shape[-2] * latents.shape[-1]
    fast_loss, fast_gradient = fast(latents)
    assert fast_loss == pytest.approx(loss, abs=0.01)
    assert cosine(fast_gradient, gradient) >= 0.99
    exact = window_loss(codec, embedder, face, codec.windowed().receptive_margin)
    exact_loss, exact_gradient = exact(latents)
    assert exact_loss == pytest.approx(loss, abs=1e-5)
    assert cosine(exact_gradient, gradient) >= 0.99999
    tight = window_loss(codec, embedder, face, 0, multiple=1)
    assert cosine(tight(latents)[1], gradient) < cosine(fast_gradient, gradient)


def optimized(mode, case, codec, perception, **changes):
    latents, face, reference = case
    target = FaceTarget(reference_embedding=reference, landmarks=face.landmarks)
    config = FaceOptimizationConfig(mode=mode, detect_every=0, num_iterations=6, **changes)
    optimizer = FaceOptimizer(codec, perception.identity_embedder, [target], config)
    step = StepInfo(step_index=5, num_inference_steps=25, sigma=1.0, next_sigma=0.8)
    return optimizer(latents[None], step)[0]


def test_fast_keeps_the_loss_drop_and_the_background(case, codec, perception):
    latents, face, _ = case
    loss = FullFrameLoss(codec, perception.identity_embedder, [face])
    results = {mode: optimized(mode, case, codec, perception) for mode in ("literal", "fast")}
    start = loss(latents)[0]
    drops = {mode: start - loss(result)[0] for mode, result in results.items()}
    assert drops["literal"] > 0.1
    assert drops["fast"] >= 0.9 * drops["literal"]
    is_near = torch.zeros(latents.shape[-2:], dtype=torch.bool)
    for (left, top), (right, bottom) in face.boxes.tolist():
        is_near[max(0, top - 3) : bottom + 3, max(0, left - 3) : right + 3] = True
    far = ~is_near.repeat_interleave(8, 0).repeat_interleave(8, 1)
    with torch.no_grad():
        before = codec.decode(latents)
        change = {
            mode: (codec.decode(result) - before)[..., far].square().mean().sqrt().item()
            for mode, result in results.items()
        }
    assert far.any()
    assert change["fast"] <= 0.05 * change["literal"]
