"""An animator that remembers what it was asked, and networks that answer from a script."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning, EncodedConditioning
from animaray.models.networks.preconditioning import precondition


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserCall:
    """One call of the denoiser."""

    latents: Float[Tensor, "batch frames channels h w"]
    """Noisy latents that it was given."""
    sigma: float
    """Noise level."""
    is_conditional: bool
    """With pose; the published unconditional branch has none."""
    denoised: Float[Tensor, "batch frames channels h w"]
    """What it answered."""
    unet_inputs: tuple[Any, ...]
    """Sample, timestep, context and added ids of the U-Net."""

    def raw_output(self, sigma_data: float) -> Float[Tensor, "batch frames channels h w"]:
        """Return the network's own output."""
        return raw_output(self.denoised, self.latents, self.sigma, sigma_data)


def raw_output(
    denoised: Float[Tensor, "*shape"], noisy: Float[Tensor, "*shape"], sigma: float, data: float
) -> Float[Tensor, "*shape"]:
    """Return the raw v-prediction behind a denoised estimate."""
    scales = precondition(torch.tensor([sigma]), data)
    return (denoised - scales.c_skip * noisy) / scales.c_out


class RecordingAnimator(Animator):
    """An animator with a list of its denoiser's calls."""

    def __init__(self, config: AnimatorConfig) -> None:
        super().__init__(config)
        self.calls: list[DenoiserCall] = []

    def denoise(
        self,
        noisy_latents: Float[Tensor, "batch frames channels h w"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning | EncodedConditioning,
    ) -> Float[Tensor, "batch frames channels h w"]:
        """See Animator; the call is remembered."""
        inputs: list[tuple[Any, ...]] = []

        def keep(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            del module
            inputs.append(arguments)

        hook = self.unet.register_forward_pre_hook(keep)
        denoised = super().denoise(noisy_latents, sigma, conditioning)
        hook.remove()
        self.calls.append(
            DenoiserCall(
                latents=noisy_latents.clone(),
                sigma=float(sigma[0]),
                is_conditional=conditioning.pose_features is not None
                if isinstance(conditioning, EncodedConditioning)
                else True,
                denoised=denoised,
                unet_inputs=inputs[0][:4],
            )
        )
        return denoised


class ScriptedNetwork(nn.Module):
    """Answers with stored tensors, one after the other, whatever it is asked."""

    def __init__(self, answers: Float[Tensor, "answers ..."]) -> None:
        super().__init__()
        self._answers = iter(answers)

    def forward(self, *inputs: Any) -> Tensor:  # noqa: ANN401
        """Return the next stored tensor."""
        del inputs
        return next(self._answers)
