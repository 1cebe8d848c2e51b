"""Vectors of training: one whole step, noise levels, frame sampling, face masks."""

import random
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from animaray.datasets.frame_sampling import published_window
from animaray.models.diffusion.loss import (
    LossConfig,
    LossDraws,
    denoising_loss,
    dropout_masks,
    face_mask_from_boxes,
)
from animaray.models.diffusion.schedule import NoiseLevelConfig, sigmas_at, stratify
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.models.networks.pose_net import PoseNetConfig
from animaray.models.networks.preconditioning import loss_weight, precondition
from animaray.platform.errors import DatasetError
from benchmarks.golden.networks import face_encoder_config, recorded, unet_config_of
from benchmarks.golden.vectors import GoldenVector


def animator_config(
    vector: GoldenVector,
    width_px: int,
    height_px: int,
    **changes: Any,  # noqa: ANN401
) -> AnimatorConfig:
    """Return the configuration of a vector that uses all of the animator's networks."""
    settings = vector.setting("config")
    encoder = face_encoder_config(settings["face_encoder"], vector.weights_of("face_encoder"))
    unet = unet_config_of(settings["unet_config"], encoder.num_tokens)
    return AnimatorConfig(
        unet=unet,
        pose_net=PoseNetConfig(out_channels=unet.block_out_channels[0]),
        face_encoder=encoder,
        width_px=width_px,
        height_px=height_px,
        num_frames=settings.get("num_frames", 16),
        **changes,
    )


def fill_animator(vector: GoldenVector, animator: Animator) -> None:
    """Load the weights that a vector's settings name into all of an animator's networks."""
    for name in ("unet", "pose_net", "face_encoder"):
        vector.load(getattr(animator, name), vector.weights_of(name))


def record_unet(animator: Animator, seen: dict[str, Tensor]) -> Any:  # noqa: ANN401 - torch's handle
    """Keep the arguments of the U-Net's calls in a dictionary, under the vectors' names."""
    names = ("inp_noisy_latents", "timesteps", "encoder_hidden_states", "added_time_ids")

    def keep(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        del module
        seen.update(zip(names, (value.detach() for value in arguments[:4]), strict=True))
        if arguments[4] is not None:
            seen["pose_latents"] = arguments[4].detach().flatten(0, 1)

    return animator.unet.register_forward_pre_hook(keep)


def run_train_loss(vector: GoldenVector) -> None:
    """Compare one training step: everything between the draws and the gradients."""
    pose_images = vector.tensor("pose_pixels_u8") / 127.5 - 1
    height_px, width_px = pose_images.shape[-2:]
    strength = float(vector.setting("config", "train_noise_aug"))
    config = animator_config(vector, width_px, height_px, noise_aug_strength=strength)
    animator = Animator(config).train()
    fill_animator(vector, animator)
    for name, parameter in animator.unet.named_parameters():
        parameter.requires_grad_("attentions" in name)
    latents, sigma = vector.tensor("latents"), vector.tensor("sigmas")
    draws = LossDraws(sigma=sigma, noise=vector.tensor("noise"), chance=vector.tensor("random_p"))
    loss_config = LossConfig(
        conditioning_dropout=float(vector.setting("config", "conditioning_dropout_prob"))
    )
    # The vector holds the reference after dropout; a dropped one is zero either way.
    conditioning = Conditioning(
        reference_latents=vector.tensor("conditional_latents")[:, 0],
        image_embedding=vector.tensor("image_embed")[:, 0],
        identity_embedding=vector.tensor("faceid_embeds"),
        pose_images=pose_images,
    )
    pixels = vector.tensor("face_masks_u8") / 255
    size = int(latents.shape[-2]), int(latents.shape[-1])
    resized = torch.nn.functional.interpolate(pixels.flatten(0, 1), size, mode="nearest")
    face_mask = torch.unflatten(resized, 0, pixels.shape[:2])
    seen: dict[str, Tensor] = {}
    parts: dict[str, torch.nn.Module] = {
        "model_pred": animator.unet,
        "faceid_latents": animator.face_encoder,
    }
    parts["denoised_latents"] = animator
    handle = record_unet(animator, seen)
    with recorded(parts) as outputs:
        loss = denoising_loss(animator, latents, conditioning, face_mask, loss_config, draws).loss
    handle.remove()
    loss.backward()  # type: ignore[no-untyped-call] # torch's
    _compare_step(vector, seen | outputs, face_mask, loss)
    _compare_gradients(vector, animator)


def _compare_step(
    vector: GoldenVector, seen: dict[str, Tensor], face_mask: Tensor, loss: Tensor
) -> None:
    latents, sigma = vector.tensor("latents"), vector.tensor("sigmas")
    scales = precondition(sigma, 1.0)
    c_in = scales.c_in[:, None, None, None, None]
    dropout = float(vector.setting("config", "conditioning_dropout_prob"))
    drop_image, drop_reference = dropout_masks(vector.tensor("random_p"), dropout)
    channels = latents.shape[2]
    seen |= {
        "noisy_latents": seen["inp_noisy_latents"][:, :, :channels] / c_in,
        "conditional_latents": seen["inp_noisy_latents"][:, :, channels:],
        "latent_masks": face_mask,
        "c_out": scales.c_out,
        "c_skip": scales.c_skip,
        "weighing": loss_weight(sigma, 1.0),
        "image_mask": (~drop_reference).float(),
        "prompt_mask": drop_image,
    }
    for name, ours in seen.items():
        if vector.has(name):
            vector.close(name, ours)
    vector.close("loss", loss, atol=0.0, rtol=vector.tolerance("loss_rtol"))


def _compare_gradients(vector: GoldenVector, animator: Animator) -> None:
    """Compare gradients; the tolerance is a share of the expected one's largest entry."""
    tolerance = vector.tolerance("grad_rtol")
    named = dict(animator.named_parameters())
    for match in vector.names(r"grad\.(.+)"):
        gradient = named[match[1]].grad if match[1] in named else None
        if gradient is None:
            raise vector.broken(f"our networks have no gradient for `{match[1]}`")
        expected = vector.tensor(match[0])
        vector.close(match[0], gradient, atol=tolerance * float(expected.abs().max()))
    networks: dict[str, torch.nn.Module] = {
        "grad_norm_pose_net": animator.pose_net,
        "grad_norm_face_encoder": animator.face_encoder,
        "grad_norm_unet_attentions": animator.unet,
    }
    for name, network in networks.items():
        squares = [p.grad.square().sum() for p in network.parameters() if p.grad is not None]
        vector.close(name, torch.stack(squares).sum().sqrt(), rtol=tolerance)


def run_sigma_sampling(vector: GoldenVector) -> None:
    """Compare the distribution of training noise levels and its stratified draw."""
    settings = vector.setting("config")

    def config(sigma_data: float) -> NoiseLevelConfig:
        return NoiseLevelConfig(
            sigma_min=float(vector.setting("config", "min_value")),
            sigma_max=float(vector.setting("config", "max_value")),
            sigma_data=sigma_data,
            image_d=float(settings.get("image_d", _default("image_d"))),
            noise_d_low=float(settings.get("noise_d_low", _default("noise_d_low"))),
            noise_d_high=float(settings.get("noise_d_high", _default("noise_d_high"))),
        )

    for match in vector.names(r"sigma_sd([\d.]+)"):
        vector.close(match[0], sigmas_at(vector.tensor("u"), config(float(match[1]))))
    for match in vector.names(r"seeded_u(\d+)_raw"):
        drawn = stratify(vector.tensor(match[0]))
        name = f"seeded_sigma{match[1]}_batch{match[1]}_stratified"
        vector.close(name, sigmas_at(drawn, config(float(vector.setting("config", "sigma_data")))))


def _default(name: str) -> float:
    return next(float(f.default) for f in fields(NoiseLevelConfig) if f.name == name)  # type: ignore[arg-type] # they are numbers


def run_face_mask(vector: GoldenVector) -> None:
    """Compare rectangles drawn from boxes: all boxes, the first one, none."""
    height, width = vector.setting("config", "image_hw")
    boxes = vector.tensor("bboxes_xyxy")
    if vector.setting("tol").get("exact") is not True:
        raise vector.broken("tolerance `exact` must be true")
    none = torch.zeros(1, 4), torch.tensor([False])
    found = {
        "m1": (boxes, torch.ones(len(boxes), dtype=torch.bool)),
        "m2": (boxes[:1], torch.tensor([True])),
        "m3": none,
    }
    for name, (some, valid) in found.items():
        # Nothing found weighs the whole picture, as published; our own default is nothing.
        masks = face_mask_from_boxes(
            some, valid, (width, height), (height, width), absent_value=1.0
        )
        vector.close(name, (masks.amax(0)[0] * 255).to(torch.uint8), atol=0.0)


def run_dataset_sampling(vector: GoldenVector) -> None:
    """Compare the choice of frames and reference for each clip and seed; numbers are exact.

    Where the released code divides by zero (no frame is left for the reference) ours refuses.
    """
    for index, case in enumerate(vector.setting("cases")):
        length, frames = case["video_length"], case["n_sample_frames"]
        rng = random.Random(case["python_random_seed"])  # noqa: S311 - the released code's own
        name = f"case{index} {frames} of {length}, seed {case['python_random_seed']}"
        try:
            chosen, reference = published_window(length, frames, case["sample_frame_rate"], rng)
        except DatasetError as error:
            _compare_refusal(vector, name, case.get("error"), error)
            continue
        if "error" in case:
            note = f"published fails with {case['error']}; ours chose {chosen}"
            vector.add(name, passed=False, tolerance="a refusal", note=note)
            continue
        for part, ours, expected in (
            ("frames", chosen, case["frame_indices"]),
            ("reference", (reference,), [case["reference_index"]]),
        ):
            wanted = torch.tensor(expected)
            vector.compare(f"{name}: {part}", torch.tensor(ours), wanted, atol=0.0)


def _compare_refusal(
    vector: GoldenVector, name: str, published_error: str | None, error: DatasetError
) -> None:
    note = f"published fails with {published_error}; ours refuses: {error.message}"
    vector.add(name, passed=published_error is not None, tolerance="a refusal", note=note)
