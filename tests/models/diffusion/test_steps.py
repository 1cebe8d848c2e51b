import pytest
import torch

from animaray.models.diffusion.steps import add_noise, churned_sigma


def test_churn_is_limited_in_size_and_to_its_range():
    assert churned_sigma(2.0, 10, 1.0) == pytest.approx(2.2)
    assert churned_sigma(2.0, 10, 1000.0) == pytest.approx(2.0 * 2**0.5)
    assert churned_sigma(2.0, 10, 1.0, (0.0, 1.9)) == 2.0
    assert churned_sigma(2.0, 10, 0.0) == 2.0


def test_added_noise_reaches_the_level():
    torch.manual_seed(0)
    start, noise = torch.randn(100_000) * 2.0, torch.randn(100_000)
    assert add_noise(start, noise, 2.0, 3.0).std().item() == pytest.approx(3.0, rel=0.01)
