import pytest
import torch
from torch.testing import assert_close

from animaray.models.networks.preconditioning import loss_weight, precondition

SIGMAS = torch.tensor([0.002, 0.5, 1.0, 30.0, 700.0])


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_scaled_input_has_unit_variance(sigma_data):
    # Variance of latents + sigma * noise is sigma_data^2 + sigma^2.
    scales = precondition(SIGMAS, sigma_data)
    assert_close(scales.c_in.square() * (SIGMAS**2 + sigma_data**2), torch.ones(5))


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_network_target_has_unit_variance(sigma_data):
    # target = (x - c_skip (x + sigma n)) / c_out, x and n independent.
    scales = precondition(SIGMAS.double(), sigma_data)
    data = (1 - scales.c_skip).square() * sigma_data**2
    noise = (scales.c_skip * SIGMAS.double()).square()
    assert_close((data + noise) / scales.c_out.square(), torch.ones(5, dtype=torch.float64))


def test_published_coefficients():
    scales = precondition(torch.tensor([2.0]), 1.0)
    assert_close(scales.c_skip, torch.tensor([1 / 5]))
    assert_close(scales.c_out, torch.tensor([-2 / 5**0.5]))
    assert_close(scales.c_in, torch.tensor([1 / 5**0.5]))
    assert_close(scales.c_noise, torch.tensor([2.0]).log() / 4)


def test_weight_undoes_c_out():
    scales = precondition(SIGMAS, 1.0)
    assert_close(loss_weight(SIGMAS, 1.0) * scales.c_out.square(), torch.ones(5))
