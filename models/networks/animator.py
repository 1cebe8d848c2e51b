"""The animator: U-Net, PoseNet, Face Encoder and preconditioning behind one denoiser."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning, EncodedConditioning
from animaray.models.networks.face_encoder import FaceEncoder
from animaray.models.networks.pose_net import PoseNet
from animaray.models.networks.preconditioning import precondition
from animaray.models.networks.reference_attention import ReferenceAttention
from animaray.models.networks.unet import AnimatorUNet
from animaray.models.networks.warped_reference import WarpedReference
from animaray.models.networks.weights_folder import (
    load_config,
    load_weights,
    save_config,
    save_network,
)
from animaray.platform.errors import ConfigError
from animaray.platform.weights.whole_files import INDEX_FILE


class Animator(nn.Module):
    """Denoise latents of a clip, given a reference image and a pose sequence."""

    def __init__(self, config: AnimatorConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = AnimatorUNet(config.unet)
        self.pose_net = PoseNet(config.pose_net)
        self.face_encoder = FaceEncoder(config.face_encoder)
        self.reference_attention: ReferenceAttention | None = None
        if config.reference_attention is not None:
            self.reference_attention = ReferenceAttention(
                config.reference_attention,
                latent_channels=config.latent_channels,
                pose_dim=config.pose_net.trunk_dim,
                out_channels=config.pose_net.out_channels,
            )
        self.warped_reference: WarpedReference | None = None
        if config.warped_reference is not None:
            self.warped_reference = WarpedReference(
                config.warped_reference,
                latent_channels=config.latent_channels,
                out_channels=config.pose_net.out_channels,
            )
            # An untrained model trusts the warped reference.
            for weight in self.unet.conv_out.parameters():
                nn.init.zeros_(weight)

    def encode_conditioning(self, conditioning: Conditioning) -> EncodedConditioning:
        """Run PoseNet, the Face Encoder and what else tells of the reference.

        Raises:
            ConfigError: The model wants a pose picture or a warped reference, and it is missing.
        """
        batch, frames = conditioning.pose_images.shape[:2]
        image_tokens = conditioning.image_embedding[:, None]
        trunk = self.pose_net.trunk(conditioning.pose_images.flatten(0, 1))
        reference_features = warped_latents = None
        if self.reference_attention is not None:
            if conditioning.reference_pose_image is None:
                raise ConfigError(
                    "This animator has reference attention and needs `reference_pose_image`, "
                    "got None.",
                    fix="Draw the reference's own keypoints with draw_pose.",
                )
            reference_features = self.reference_attention(
                conditioning.reference_latents,
                self.pose_net.trunk(conditioning.reference_pose_image),
                torch.unflatten(trunk, 0, (batch, frames)),
            )
        if self.warped_reference is not None:
            if conditioning.warped_reference is None:
                raise ConfigError(
                    "This animator corrects a warped reference and needs `warped_reference`, got"
                    " None.",
                    fix="Make it with animaray.models.parts.warped_reference.warp_reference.",
                )
            features = self.warped_reference(conditioning.warped_reference)
            reference_features = _total(reference_features, features)
            warped_latents = conditioning.warped_reference[:, :, : self.config.latent_channels]
        return EncodedConditioning(
            image_tokens=image_tokens,
            face_tokens=self.face_encoder(conditioning.identity_embedding, image_tokens),
            reference_latents=conditioning.reference_latents,
            pose_features=torch.unflatten(self.pose_net.project(trunk), 0, (batch, frames)),
            reference_features=reference_features,
            warped_latents=warped_latents,
        )

    def denoise(
        self,
        noisy_latents: Float[Tensor, "batch frames channels h w"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning | EncodedConditioning,
    ) -> Float[Tensor, "batch frames channels h w"]:
        """Estimate the clean latents.

        Args:
            noisy_latents: latents + sigma * noise.
            sigma: Noise level of each clip, above 0.
            conditioning: Encode it first where the same clip is denoised more than once.
        """
        if isinstance(conditioning, Conditioning):
            conditioning = self.encode_conditioning(conditioning)
        warped = conditioning.warped_latents
        if warped is not None:
            noisy_latents = noisy_latents - warped
        scales = precondition(sigma.float(), self.config.residual_std)
        c_in, c_out, c_skip = (
            scale[:, None, None, None, None].to(noisy_latents.dtype)
            for scale in (scales.c_in, scales.c_out, scales.c_skip)
        )
        reference = conditioning.reference_latents * self.config.reference_latent_scale
        reference = reference.to(noisy_latents.dtype)[:, None].expand_as(noisy_latents)
        raw_output = self.unet(
            torch.cat([noisy_latents * c_in, reference], dim=2),
            scales.c_noise,
            torch.cat([conditioning.image_tokens, conditioning.face_tokens], dim=1),
            self._added_ids(sigma),
            _total(conditioning.pose_features, conditioning.reference_features),
        )
        denoised = c_skip * noisy_latents + c_out * raw_output.to(noisy_latents.dtype)
        return denoised if warped is None else warped + denoised

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch frames channels h w"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning,
        drop_image: Bool[Tensor, " batch"] | None = None,
        drop_reference: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch frames channels h w"]:
        """Denoise in training: the whole graph in one call, as DDP and DeepSpeed want it.

        Args:
            conditioning: Not encoded yet.
            drop_image: True drops the image token of that clip.
            drop_reference: True drops the reference latents of that clip.
        """
        encoded = self.encode_conditioning(conditioning)
        if drop_image is not None and drop_reference is not None:
            encoded = encoded.drop(image=drop_image, reference=drop_reference)
        return self.denoise(noisy_latents, sigma, encoded)

    def unconditional(self, encoded: EncodedConditioning) -> EncodedConditioning:
        """Return guidance's second branch as `config.unconditional` says."""
        keep = self.config.unconditional == "as_trained"
        return encoded.unconditional(keep_face_and_pose=keep)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write model_index.json and one subfolder per network."""
        folder = Path(folder)
        for name, network in self.named_children():
            save_network(folder / name, network_config(self.config, name), network)
        save_config(folder / INDEX_FILE, self.config)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Animator":
        """Build an animator from a folder that `save_pretrained` wrote, in evaluation mode.

        A missing or damaged file, or one of another architecture, raises WeightsError.
        """
        folder = Path(folder)
        animator = cls(load_config(folder / INDEX_FILE, AnimatorConfig))
        old_names = {new: old for old, new in AnimatorConfig.OLD_NAMES.items()}
        for name, network in animator.named_children():
            if not (folder / name).is_dir():
                name = old_names.get(name, name)  # noqa: PLW2901 - of the same network
            load_weights(folder / name, network)
        return animator.eval()

    def _added_ids(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3"]:
        config = self.config
        numbers = [config.fps_id, config.motion_bucket_id, config.noise_aug_strength]
        return torch.tensor([numbers], device=sigma.device).expand(len(sigma), -1)


def network_config(config: AnimatorConfig, name: str) -> object:
    """Return the part of the configuration that belongs to one of the animator's networks."""
    return getattr(config, name)


def _total(
    first: Float[Tensor, "*shape"] | None, second: Float[Tensor, "*shape"] | None
) -> Float[Tensor, "*shape"] | None:
    if first is None or second is None:
        return first if second is None else second
    return first + second
