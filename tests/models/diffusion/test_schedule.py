import math

import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.schedule import (
    NoiseLevelConfig,
    karras_sigmas,
    sample_sigmas,
    sigmas_at,
)
from animaray.platform.errors import ConfigError


def test_schedule_runs_from_max_to_min_and_ends_at_zero():
    sigmas = karras_sigmas(5, 0.1, 10.0)
    assert sigmas[0].item() == pytest.approx(10.0)
    assert sigmas[-2].item() == pytest.approx(0.1)
    assert sigmas[-1].item() == 0
    assert (sigmas.diff() < 0).all()


def test_ends_of_the_published_distribution():
    # Quantile 0 is the largest sigma, quantile 1 the smallest.
    ends = sigmas_at(torch.tensor([0.0, 1.0]), NoiseLevelConfig())
    assert_close(ends, torch.tensor([700.0, 0.002]), rtol=1e-4, atol=0)


def test_log_normal_has_the_given_mean_and_deviation():
    config = NoiseLevelConfig(distribution="log_normal", log_mean=0.5, log_std=1.2)
    log_sigma = sample_sigmas(4000, config, torch.Generator().manual_seed(0)).log()
    # Stratified draws: the sample moments are close to the true ones.
    assert log_sigma.mean().item() == pytest.approx(0.5, abs=0.01)
    assert log_sigma.std().item() == pytest.approx(1.2, abs=0.01)
    median = sigmas_at(torch.tensor([0.5]), config)
    assert median.item() == pytest.approx(math.exp(0.5), rel=1e-5)


def test_draws_repeat_with_the_generator():
    config = NoiseLevelConfig()
    first, second = (sample_sigmas(4, config, torch.Generator().manual_seed(7)) for _ in "ab")
    assert torch.equal(first, second)


def test_empty_range_is_refused():
    with pytest.raises(ConfigError, match="0 < `sigma_min` < `sigma_max`"):
        NoiseLevelConfig(sigma_min=1.0, sigma_max=0.5)
