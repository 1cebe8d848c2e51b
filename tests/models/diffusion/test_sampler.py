import functools
import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.sampler import sample
from animaray.models.diffusion.sampler_config import SamplerConfig, StepInfo
from animaray.models.diffusion.schedule import karras_sigmas
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning, EncodedConditioning
from animaray.platform.errors import ConfigError

WITHOUT_WARP = replace(AnimatorConfig.tiny(), warped_reference=None)
FAST = SamplerConfig(num_inference_steps=2, sigma_max=80.0, window_frames=4, window_overlap=1)


class GaussianAnimator(Animator):
    """The exact denoiser of independent Gaussian latents with known mean and deviation.

    denoised = mean + d^2 / (d^2 + sigma^2) * (noisy - mean).
    """

    mean, deviation = 0.7, 0.4

    def denoise(self, noisy_latents, sigma, conditioning):  # noqa: ARG002
        share = self.deviation**2 / (self.deviation**2 + sigma.square())
        return self.mean + share[:, None, None, None, None] * (noisy_latents - self.mean)


def conditioning_of(frames=6, batch=1):
    return Conditioning(
        reference_latents=torch.randn(batch, 4, 4, 4),
        image_embedding=torch.randn(batch, 32),
        identity_embedding=torch.randn(batch, 16),
        pose_images=torch.rand(batch, frames, 3, 32, 32) * 2 - 1,
        reference_pose_image=torch.rand(batch, 3, 32, 32) * 2 - 1,
    )


@pytest.fixture(scope="module")
def animator():
    torch.manual_seed(0)
    animator = Animator(WITHOUT_WARP).eval()
    for name, parameter in animator.named_parameters():
        if "proj_out" in name or "final_proj" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return animator


def randn(seed=0):
    """Return a source of noise."""
    return functools.partial(torch.randn, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inference_steps": 60},
        {"num_inference_steps": 30, "sampler": "heun"},
        {"num_inference_steps": 60, "sampler": "heun", "s_churn": 20.0},
    ],
)
def test_gaussian_data_is_recovered(changes):
    gaussian = GaussianAnimator(WITHOUT_WARP).eval()
    config = SamplerConfig(
        sigma_max=80.0, guidance_scale=1.0, repeat_noise=False, window_frames=16, **changes
    )
    latents = sample(gaussian, conditioning_of(16, 16), 16, config, randn())
    assert latents.mean().item() == pytest.approx(0.7, abs=0.02)
    assert latents.std().item() == pytest.approx(0.4, rel=0.06)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_error_falls_with_the_order_of_the_method(method, order):
    # Along the exact path (x - mean) / sqrt(d^2 + sigma^2) stays constant.
    gaussian = GaussianAnimator(WITHOUT_WARP).eval()
    noise = torch.randn(1, 4, 4, 4, 4, dtype=torch.float64)
    start = noise * (10.0**2 + 1) ** 0.5
    exact = 0.7 + (start - 0.7) * 0.4 / (10.0**2 + 0.4**2) ** 0.5
    errors = []
    for steps in (32, 64, 128):
        config = SamplerConfig(
            num_inference_steps=steps,
            sigma_min=1e-3,
            sigma_max=10.0,
            guidance_scale=1.0,
            sampler=method,
        )
        latents = sample(gaussian, conditioning_of(4), 4, config, lambda _: noise)
        errors.append((latents - exact).abs().max().item())
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([order, order], abs=0.25)


def test_guidance_one_equals_conditional(animator):
    conditioning = conditioning_of(4)
    encoded = animator.encode_conditioning(conditioning)
    config = replace(FAST, num_inference_steps=1, guidance_scale=1.0)
    noise = torch.randn(1, 4, 4, 4, 4)
    latents = sample(animator, encoded, 4, config, lambda _: noise)
    start = noise * (80.0**2 + 1) ** 0.5
    with torch.no_grad():
        expected = animator.denoise(start, torch.tensor([80.0]), encoded)
    assert_close(latents, expected, atol=1e-4, rtol=1e-3)


def test_guidance_follows_its_formula(animator):
    encoded = animator.encode_conditioning(conditioning_of(4))
    noise = torch.randn(1, 4, 4, 4, 4)
    start = noise * (80.0**2 + 1) ** 0.5
    config = replace(FAST, num_inference_steps=1, guidance_scale=2.5)
    latents = sample(animator, encoded, 4, config, lambda _: noise)
    with torch.no_grad():
        conditional = animator.denoise(start, torch.tensor([80.0]), encoded)
        without = animator.denoise(start, torch.tensor([80.0]), animator.unconditional(encoded))
    assert_close(latents, without + 2.5 * (conditional - without), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_equal_seeds_give_equal_latents(animator, method):
    conditioning = conditioning_of(6)
    config = replace(FAST, sampler=method, s_churn=1.0)
    first, second = (sample(animator, conditioning, 6, config, randn(5)) for _ in "ab")
    other = sample(animator, conditioning, 6, config, randn(6))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


def test_correction_replaces_the_estimate(animator):
    # The last step returns the (corrected) estimate itself.
    seen = []

    def correct(denoised, step: StepInfo):
        seen.append((step.step_index, step.next_sigma == 0))
        return torch.full_like(denoised, 3.0)

    latents = sample(animator, conditioning_of(4), 4, FAST, randn(), correct)
    assert seen == [(0, False), (1, True)]
    assert_close(latents, torch.full_like(latents, 3.0))


def test_guidance_rises_evenly_over_the_frames(animator):
    encoded = animator.encode_conditioning(conditioning_of(4))
    noise = torch.randn(1, 4, 4, 4, 4)
    config = replace(FAST, num_inference_steps=1, guidance_scale=1.0)
    rising = replace(config, guidance_max=4.0)
    latents = sample(animator, encoded, 4, rising, lambda _: noise)
    for frame, scale in enumerate((1.0, 2.0, 3.0, 4.0)):
        constant = replace(config, guidance_scale=scale)
        expected = sample(animator, encoded, 4, constant, lambda _: noise)
        assert_close(latents[:, frame], expected[:, frame], atol=1e-4, rtol=1e-4)


def test_preview_shows_the_corrected_estimate(animator):
    seen = []

    def keep(denoised, step, seams):
        seen.append((step.step_index, denoised.clone()))

    latents = sample(
        animator,
        conditioning_of(4),
        4,
        FAST,
        randn(),
        lambda denoised, step: denoised + 1,  # noqa: ARG005
        keep,
    )
    assert [index for index, _ in seen] == [0, 1]
    assert_close(latents, seen[-1][1])


def test_algorithm_1_corrects_the_first_estimate_of_a_step_only():
    # Two estimates per step but the last; the hook sees the first, at the churned level.
    levels_seen = []

    class Counting(GaussianAnimator):
        def denoise(self, noisy_latents, sigma, conditioning):
            levels_seen.append(sigma.item())
            return super().denoise(noisy_latents, sigma, conditioning)

    counting, corrected = Counting(WITHOUT_WARP).eval(), []
    config = replace(
        FAST,
        num_inference_steps=3,
        sampler="heun",
        guidance_scale=1.0,
        s_churn=0.6,
        s_churn_max=50.0,
    )

    def correct(denoised, step):
        corrected.append((step.sigma, step.next_sigma))
        return denoised

    sample(counting, conditioning_of(4), 4, config, randn(), correct)
    levels = karras_sigmas(3, 0.002, 80.0).tolist()
    raised = [levels[0], levels[1] * 1.2, levels[2] * 1.2]
    assert [sigma for sigma, _ in corrected] == pytest.approx(raised)
    assert [sigma for _, sigma in corrected] == pytest.approx(levels[1:])
    expected = [raised[0], levels[1], raised[1], levels[2], raised[2]]
    assert levels_seen == pytest.approx(expected)


@pytest.mark.parametrize("window_rule", ["published", "sliding"])
@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_clips_up_to_a_window_are_one_window(animator, window_rule, num_frames):
    encoded = animator.encode_conditioning(conditioning_of(num_frames))
    noise = torch.randn(1, num_frames, 4, 4, 4)
    config = replace(FAST, num_inference_steps=1, guidance_scale=1.0, window_rule=window_rule)
    seams = []
    latents = sample(
        animator,
        encoded,
        num_frames,
        config,
        lambda _: noise,
        on_step=lambda denoised, step, found: seams.extend(found),  # noqa: ARG005
    )
    start = noise * (80.0**2 + 1) ** 0.5
    with torch.no_grad():
        expected = animator.denoise(start, torch.tensor([80.0]), encoded)
    assert_close(latents, expected, atol=1e-4, rtol=1e-3)
    assert not seams


def windowed(animator, encoded, overlap, seams=None):
    """One step of a clip of 10 frames in windows of 4."""
    config = replace(
        FAST,
        num_inference_steps=1,
        window_overlap=overlap,
        window_rule="sliding",
        repeat_noise=False,
    )
    report = None if seams is None else (lambda _, __, found: seams.extend(found))
    return sample(animator, encoded, 10, config, randn(), on_step=report)


def test_windows_without_overlap_are_independent(animator):
    conditioning = conditioning_of(10)
    poses = conditioning.pose_images.clone()
    poses[:, 5] = -poses[:, 5]
    changed = replace(conditioning, pose_images=poses)
    seams = []
    # Windows 0-3, 3-6, 6-9: ten frames do not divide by four, so neighbours share one frame.
    first = windowed(animator, conditioning, 0, seams)
    second = windowed(animator, changed, 0)
    assert [(seam.frame, seam.num_shared) for seam in seams] == [(4, 1), (7, 1)]
    differs = (first != second).flatten(2).any(dim=2)[0]
    assert differs.tolist() == [3 <= frame <= 6 for frame in range(10)]


def test_clips_of_a_batch_do_not_see_each_other(animator):
    conditioning = conditioning_of(6, batch=2)
    poses = conditioning.pose_images.clone()
    poses[1] = -poses[1]
    changed = replace(conditioning, pose_images=poses)
    first, second = (
        sample(animator, inputs, 6, FAST, randn()) for inputs in (conditioning, changed)
    )
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


def test_seams_show_windows_that_disagree():
    class Drifting(GaussianAnimator):
        """Estimates a level that depends on the window, so that borders are visible."""

        drift = 0.0
        calls = 0

        def denoise(self, noisy_latents, sigma, conditioning):
            level = self.drift * Drifting.calls
            Drifting.calls += 1
            ramp = torch.arange(noisy_latents.shape[1]) * 0.01
            base = super().denoise(noisy_latents, sigma, conditioning) * 0
            return base + level + ramp[:, None, None, None]

    drifting = Drifting(WITHOUT_WARP).eval()
    config = replace(
        FAST, num_inference_steps=1, guidance_scale=1.0, window_frames=8, window_rule="sliding"
    )
    found = {}
    for drift in (0.0, 1.0):
        for overlap in (0, 4):
            Drifting.calls, Drifting.drift = 0, drift
            changes = replace(config, window_overlap=overlap)
            seams = []
            sample(
                drifting,
                conditioning_of(16),
                16,
                changes,
                randn(),
                on_step=lambda _, __, report, seams=seams: seams.extend(report),
            )
            found[drift, overlap] = seams
    assert len(found[0.0, 0]) == 1 and len(found[0.0, 4]) == 2  # noqa: PT018
    assert math.isnan(found[1.0, 0][0].disagreement)
    # The ramp starts anew: (7 - 0) * 0.01 back, or 1 - 0.07 forward, against 0.01 elsewhere.
    assert found[0.0, 0][0].jump == pytest.approx(7.0, rel=1e-3)
    assert found[1.0, 0][0].jump == pytest.approx(93.0, rel=1e-3)
    assert found[1.0, 4][0].disagreement == pytest.approx(1 - 0.04, rel=1e-3)
    assert found[1.0, 4][0].jump < 0.1 * found[1.0, 0][0].jump


def test_raising_in_on_step_ends_the_sampling(animator):
    class Cancelled(Exception):  # noqa: N818
        pass

    steps = []

    def cancel(denoised, step, seams):
        steps.append(step.step_index)
        raise Cancelled

    with pytest.raises(Cancelled):
        sample(animator, conditioning_of(4), 4, FAST, randn(), on_step=cancel)
    assert steps == [0]


def test_noise_repeats_over_windows_as_published():
    gaussian = GaussianAnimator(WITHOUT_WARP).eval()
    config = replace(FAST, guidance_scale=1.0)
    latents = sample(gaussian, conditioning_of(6), 6, config, randn())
    assert_close(latents[:, 4:], latents[:, :2])


def test_bfloat16_is_close(animator):
    conditioning = conditioning_of(4)
    config = replace(FAST, guidance_scale=1.0)
    exact = sample(animator, conditioning, 4, config, randn())
    rounded = sample(animator, conditioning, 4, replace(config, use_bfloat16=True), randn())
    assert rounded.dtype == torch.float32
    assert (exact - rounded).std() < 0.1 * exact.std()


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="`num_inference_steps` must be at least 1"):
        SamplerConfig(num_inference_steps=0)
    with pytest.raises(ConfigError, match="0 < `sigma_min` < `sigma_max`"):
        SamplerConfig(sigma_max=0.0)
    with pytest.raises(ConfigError, match="`window_overlap` must be within"):
        SamplerConfig(window_overlap=0)


def test_published_churn_mixes_the_output_before_the_noise(golden):
    config, tensors, _ = golden("euler_step")
    index = config["config"]["churn"]["step_index"]
    settings = SamplerConfig(
        num_inference_steps=1,
        guidance_scale=1.0,
        sigma_max=tensors["step_sigmas"][index].item(),
        s_churn=config["config"]["churn"]["s_churn"] / config["config"]["steps"],
        s_noise=config["config"]["churn"]["s_noise"],
    )
    sigma = settings.sigma_max
    noisy, output = tensors["sample"][index], tensors["model_output"][index]

    class Recorded(Animator):
        def denoise(self, noisy_latents, sigma, conditioning):  # noqa: ARG002
            variance = sigma.item() ** 2 + 1
            assert_close(noisy_latents, noisy, rtol=1e-5, atol=1e-4)
            return noisy_latents / variance - sigma.item() / variance**0.5 * output

    encoded = EncodedConditioning(
        image_tokens=torch.zeros(1, 1, 32),
        face_tokens=torch.zeros(1, 4, 32),
        reference_latents=torch.zeros(1, *noisy.shape[2:]),
        pose_features=None,
    )
    seen = {}
    draws = iter([noisy / (sigma**2 + 1) ** 0.5, tensors["churn_noise"]])
    sample(
        Recorded(WITHOUT_WARP),
        encoded,
        noisy.shape[1],
        settings,
        lambda _: next(draws),
        on_step=lambda denoised, step, _: seen.update(denoised=denoised, sigma=step.sigma),
    )
    assert seen["sigma"] > sigma
    assert_close(seen["denoised"], tensors["churn_x0"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "raised"),
    [({"s_churn": 0.2}, 1.1), ({"s_churn": 1000.0}, 2**0.5), ({"s_churn_max": 79.0}, 1.0)],
)
def test_churn_reaches_its_level_and_is_limited(changes, raised):
    inputs = []

    class Watching(GaussianAnimator):
        def denoise(self, noisy_latents, sigma, conditioning):
            inputs.append((noisy_latents.std().item(), sigma[0].item()))
            return super().denoise(noisy_latents, sigma, conditioning)

    settings = {"s_churn": 1.0, "sampler": "heun", "guidance_scale": 1.0, "repeat_noise": False}
    config = replace(FAST, window_frames=64, **(settings | changes))
    sample(Watching(WITHOUT_WARP).eval(), conditioning_of(64, 16), 64, config, randn())
    deviation, sigma = inputs[0]
    assert sigma == pytest.approx(80.0 * raised)
    assert deviation == pytest.approx(sigma, rel=0.01)


def test_sampling_starts_at_the_warp_under_the_first_noise():
    animator = Animator(AnimatorConfig.tiny()).eval()  # untrained: adds nothing to it
    conditioning = replace(conditioning_of(), warped_reference=torch.rand(1, 6, 6, 4, 4))
    config = replace(
        FAST, num_inference_steps=60, sigma_min=0.01, sigma_max=2.0, repeat_noise=False
    )
    noise = torch.randn(1, 6, 4, 4, 4)
    latents = sample(animator, conditioning, 6, config, lambda _: noise)
    # The denoiser of Gaussian differences to it: the noise ends at their deviation.
    expected = conditioning.warped_reference[:, :, :4] + animator.config.residual_std * noise
    assert_close(latents, expected, atol=0.05, rtol=0)
