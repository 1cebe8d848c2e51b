from dataclasses import replace

import numpy as np
import pytest
import torch

from animaray.models.frames import to_frames
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.subjects.reference import prepare_reference, reference_latents
from animaray.platform.errors import FaceError, PoseError

CONFIG = AnimatorConfig.tiny()


def test_a_large_picture_is_fitted_and_the_face_kept(
    marker_perception, marker_networks, marker_picture
):
    picture = marker_picture(128, 64, left=90).repeat(2, axis=0).repeat(2, axis=1)
    reference = prepare_reference(picture, CONFIG, marker_perception, marker_networks[1])
    assert reference.picture_uint8.shape == (32, 32, 3)
    # The window followed the person to the right half.
    assert reference.fit.left_px > 0
    inside = (reference.pose.keypoints > -1) & (reference.pose.keypoints < 33)
    assert inside.all()
    # The face is red: its identity points along the first axis.
    assert np.linalg.norm(reference.identity_embedding) == pytest.approx(1, abs=1e-4)
    assert reference.identity_embedding[0] > 0.9
    assert reference.image_embedding.shape == (1, 32)
    assert reference.num_persons == 1


def test_very_large_pictures_are_reduced_first(marker_perception, marker_networks, marker_picture):
    picture = marker_picture().repeat(30, axis=0).repeat(30, axis=1)
    reference = prepare_reference(picture, CONFIG, marker_perception, marker_networks[1])
    assert reference.face.box.max() <= 1280


def test_aspect_is_kept_unless_the_model_wants_it_stretched(
    marker_perception, marker_networks, marker_picture
):
    tall = np.concatenate([marker_picture()] * 2)
    tall[64:] = 0
    for keep_aspect in (True, False):
        config = replace(CONFIG, keep_aspect=keep_aspect)
        reference = prepare_reference(tall, config, marker_perception, marker_networks[1])
        lit = np.argwhere(reference.picture_uint8.max(axis=2) > 40)
        height, width = np.ptp(lit, axis=0) + 1
        # The person is 24 x 48 px in a picture of 64 x 128.
        assert width / height == pytest.approx(0.5 if keep_aspect else 1.0, abs=0.12)


def test_nobody_is_refused(marker_perception, marker_networks):
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(PoseError, match="shows no person"):
        prepare_reference(picture, CONFIG, marker_perception, marker_networks[1])


def test_no_face_is_refused(marker_perception, marker_networks, marker_picture):
    picture = marker_picture(colour=(90, 90, 90))
    with pytest.raises(FaceError, match="shows no face"):
        prepare_reference(picture, CONFIG, marker_perception, marker_networks[1])


def test_noise_is_added_where_the_model_wants_it(
    marker_perception, marker_networks, marker_picture
):
    codec, image_encoder = marker_networks
    reference = prepare_reference(marker_picture(), CONFIG, marker_perception, image_encoder)
    clean = reference_latents(reference, codec, 0.0, torch.Generator())
    assert torch.equal(clean, codec.encode(to_frames(reference.picture_uint8[None])))
    noisy = reference_latents(reference, codec, 0.8, torch.Generator().manual_seed(0))
    # A latent of this codec averages 64 pixels: 0.8 / 8.
    assert (noisy - clean)[:, :3].std().item() == pytest.approx(0.1, rel=0.3)
