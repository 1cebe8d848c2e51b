import math

import pytest
import torch
from torch.testing import assert_close

from animaray.models.alignment.procrustes import (
    SimilarityTransform,
    closed_form,
    fit_similarity_transform,
    joint_confidence,
)
from animaray.platform.errors import PoseError


def some_transform(batch=3):
    return SimilarityTransform(
        torch.linspace(0.4, 2.0, batch).double(),
        torch.linspace(-3.0, 3.0, batch).double(),
        torch.randn(batch, 2).double(),
    )


def test_a_known_transform_is_recovered_exactly():
    driving, transform = torch.randn(3, 18, 2).double(), some_transform()
    fit = fit_similarity_transform(driving, transform.apply(driving), torch.rand(3, 18).double())
    assert_close(fit.scale, transform.scale)
    assert_close(fit.rotation, transform.rotation)
    assert_close(fit.translation, transform.translation)


def test_equal_poses_give_the_identity():
    points = torch.randn(1, 5, 2).double()
    fit = fit_similarity_transform(points, points, torch.ones(1, 5).double())
    assert_close(fit.apply(points), points)
    assert fit.rotation.item() == pytest.approx(0, abs=1e-12)


def test_a_mirror_image_is_fitted_without_reflection():
    # A cross and its mirror image: the best rotation is found by search.
    driving = torch.tensor([[[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 1.0]]])
    reference = driving * torch.tensor([-1.0, 1.0])
    fit = fit_similarity_transform(driving, reference, torch.ones(1, 5))
    assert torch.linalg.det(fit.matrix()).item() > 0
    error = (fit.apply(driving) - reference).square().sum()
    angles = torch.linspace(-math.pi, math.pi, 721)
    best = min(error_at(driving, reference, angle) for angle in angles)
    assert error.item() <= best + 1e-4


def error_at(driving, reference, angle):
    centred = driving - driving.mean(1, keepdim=True)
    target = reference - reference.mean(1, keepdim=True)
    turned = SimilarityTransform(torch.ones(1), angle[None], torch.zeros(1, 2)).apply(centred)
    scale = (turned * target).sum() / turned.square().sum()
    return (scale * turned - target).square().sum().item()


def test_weightless_keypoints_are_ignored():
    driving, transform = torch.randn(1, 6, 2).double(), some_transform(1)
    reference = transform.apply(driving)
    reference[0, 5] = 100.0
    confidence = torch.tensor([[1.0, 1, 1, 1, 1, 0]]).double()
    fit = fit_similarity_transform(driving, reference, confidence)
    assert_close(fit.translation, transform.translation)


def test_inverse_and_composition():
    first, second, points = some_transform(), some_transform(), torch.randn(3, 4, 2).double()
    assert_close(first.inverse().apply(first.apply(points)), points)
    assert_close(second.after(first).apply(points), second.apply(first.apply(points)))


def test_rotation_turns_right_to_down():
    quarter = SimilarityTransform(torch.ones(1), torch.tensor([math.pi / 2]), torch.zeros(1, 2))
    assert_close(quarter.apply(torch.tensor([[[1.0, 0.0]]])), torch.tensor([[[0.0, 1.0]]]))


def test_too_few_keypoints_are_refused():
    points = torch.randn(2, 3, 2)
    confidence = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    with pytest.raises(PoseError, match=r"at least two keypoints.*got 1"):
        fit_similarity_transform(points, points, confidence)


def test_one_place_is_refused():
    points = torch.ones(1, 3, 2)
    with pytest.raises(PoseError, match=r"lie in one place"):
        fit_similarity_transform(points, torch.randn(1, 3, 2), torch.ones(1, 3))


def test_unchecked_fit_is_finite_with_finite_gradients():
    driving = torch.zeros(3, 4, 2, requires_grad=True)
    confidence = torch.tensor([[0.0] * 4, [1.0, 0, 0, 0], [1.0] * 4])
    fit = closed_form(driving, torch.randn(3, 4, 2), confidence)
    fit.apply(driving).sum().backward()
    assert torch.isfinite(driving.grad).all()
    assert_close(fit.scale, torch.ones(3))


def test_joint_confidence_needs_both():
    joint = joint_confidence(torch.tensor([0.5, 0.2, 0.9]), torch.tensor([0.5, 0.9, 0.1]), 0.3)
    assert_close(joint, torch.tensor([0.25, 0.0, 0.0]))
