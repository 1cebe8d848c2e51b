import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.steps import add_noise, churned_sigma, published_euler_step


def test_steps_equal_the_published_ones(golden):
    _, tensors, _ = golden("euler_step")
    sigmas = tensors["step_sigmas"].tolist()
    for index in range(6):
        step = published_euler_step(
            tensors["sample"][index],
            tensors["model_output"][index],
            sigmas[index],
            sigmas[index + 1],
        )
        assert_close(step.denoised, tensors["pred_x0"][index], rtol=1e-5, atol=1e-5)
        assert_close(step.latents, tensors["prev_sample"][index], rtol=1e-5, atol=1e-5)


def test_churned_step_equals_the_published_one(golden):
    config, tensors, _ = golden("euler_step")
    churn = config["config"]["churn"]
    index, sigmas = churn["step_index"], tensors["step_sigmas"].tolist()
    step = published_euler_step(
        tensors["sample"][index],
        tensors["model_output"][index],
        sigmas[index],
        sigmas[index + 1],
        sigma_hat=churned_sigma(sigmas[index], 6, churn["s_churn"]),
        noise=tensors["churn_noise"] * churn["s_noise"],
    )
    assert_close(step.denoised, tensors["churn_x0"], rtol=1e-5, atol=1e-5)
    assert_close(step.latents, tensors["churn_prev"], rtol=1e-5, atol=1e-5)


def test_churn_is_limited_in_size_and_to_its_range():
    assert churned_sigma(2.0, 10, 1.0) == pytest.approx(2.2)
    assert churned_sigma(2.0, 10, 1000.0) == pytest.approx(2.0 * 2**0.5)
    assert churned_sigma(2.0, 10, 1.0, (0.0, 1.9)) == 2.0
    assert churned_sigma(2.0, 10, 0.0) == 2.0


def test_added_noise_reaches_the_level():
    torch.manual_seed(0)
    start, noise = torch.randn(100_000) * 2.0, torch.randn(100_000)
    assert add_noise(start, noise, 2.0, 3.0).std().item() == pytest.approx(3.0, rel=0.01)
