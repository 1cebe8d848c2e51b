"""The learned pose aligner: a closed-form fit, corrected by a transformer over skeleton nodes.

Encoder_m reads reference and driving nodes, Encoder_svd the closed-form aligned pose; PFusion lets
the first attend to the second; an MLP returns what is still missing: log scale, angle and shift.
The last layer starts at zero, so an untrained aligner is exactly the closed form.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.alignment.procrustes import SimilarityTransform, closed_form, joint_confidence
from animaray.models.networks.attention import attend
from animaray.models.networks.weights_folder import load_config, load_weights, save_network
from animaray.models.pose.layouts import NUM_KEYPOINTS, VISIBLE_CONFIDENCE
from animaray.platform.errors import ConfigError
from animaray.platform.weights.whole_files import CONFIG_FILE

SOFT_FLOOR = 1e-3
"""Weight of unseen keypoints in the fit, so that any two poses have one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignerConfig:
    """Sizes of the aligner. The paper fixes the blocks (2 + 2 + 4), not the widths."""

    width: int = 96
    """Width of a node's token."""
    num_heads: int = 4
    """Attention heads."""
    feed_forward_factor: int = 2
    """Width of the feed-forward layer, in token widths."""
    num_encoder_blocks: int = 2
    """Blocks of self-attention and feed-forward, in each of the two encoders."""
    num_fusion_blocks: int = 4
    """Blocks of cross-attention and feed-forward."""
    max_log_scale: float = 1.5
    """Largest correction of the closed form's log scale."""
    min_confidence: float = VISIBLE_CONFIDENCE
    """Keypoints below it do not enter the closed form."""

    def __post_init__(self) -> None:
        """Refuse a width that does not split into heads.

        Raises:
            ConfigError: `width` is no multiple of `num_heads`, or one of them is below 1.
        """
        if self.width < 1 or self.num_heads < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"`width` ({self.width}) must be a multiple of `num_heads` ({self.num_heads})."
            )


@dataclass(frozen=True, slots=True)
class AlignerOutput:
    """What the aligner returns."""

    aligned: Float[Tensor, "batch 18 2"]
    """The driving pose in the reference's picture."""
    transform: SimilarityTransform
    """What was applied to the driving pose."""


class AttentionBlock(nn.Module):
    """Attention to a context (or to itself), then a feed-forward layer; both residual."""

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.norm_tokens, self.norm_context = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.feed_forward_factor * width),
            nn.GELU(),
            nn.Linear(config.feed_forward_factor * width, width),
        )

    def forward(
        self,
        tokens: Float[Tensor, "batch nodes width"],
        context: Float[Tensor, "batch nodes width"],
    ) -> Float[Tensor, "batch nodes width"]:
        """Return the refined tokens; pass the tokens as context for self-attention."""
        key, value = self.to_kv(self.norm_context(context)).chunk(2, dim=-1)
        query = self.to_q(self.norm_tokens(tokens))
        tokens = tokens + self.to_out(attend(query, key, value, self.num_heads))
        refined: Tensor = tokens + self.feed_forward(tokens)
        return refined


class NodeEncoder(nn.Module):
    """Embed the nodes, add their learned position, and let them attend to each other."""

    def __init__(self, num_features: int, config: AlignerConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(num_features, config.width)
        self.position = nn.Parameter(torch.randn(NUM_KEYPOINTS, config.width) * 0.02)
        self.blocks = nn.ModuleList(
            AttentionBlock(config) for _ in range(config.num_encoder_blocks)
        )

    def forward(self, nodes: Float[Tensor, "batch 18 features"]) -> Float[Tensor, "batch 18 width"]:
        """Return one token per node."""
        tokens: Tensor = self.embed(nodes) + self.position
        for block in self.blocks:
            tokens = block(tokens, tokens)
        return tokens


class PoseAligner(nn.Module):
    """Map a driving pose into the reference's picture by one similarity transform per frame."""

    NUM_MOTION_FEATURES = 10
    NUM_FIT_FEATURES = 6

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_motion = NodeEncoder(self.NUM_MOTION_FEATURES, config)
        self.encoder_fit = NodeEncoder(self.NUM_FIT_FEATURES, config)
        self.fusion = nn.ModuleList(AttentionBlock(config) for _ in range(config.num_fusion_blocks))
        self.head = nn.Sequential(
            nn.LayerNorm(2 * config.width),
            nn.Linear(2 * config.width, config.width),
            nn.GELU(),
            nn.Linear(config.width, 4),
        )
        last = self.head[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type] # the last layer is linear
        nn.init.zeros_(last.bias)  # type: ignore[arg-type] # the last layer is linear

    def forward(
        self,
        reference: Float[Tensor, "batch 18 2"],
        reference_confidence: Float[Tensor, "batch 18"],
        driving: Float[Tensor, "batch 18 2"],
        driving_confidence: Float[Tensor, "batch 18"],
    ) -> AlignerOutput:
        """Align one driving pose per item.

        Args:
            reference: Keypoints of the reference, pixels divided by the picture's height.
            reference_confidence: In [0, 1].
            driving: Keypoints of the driving frame, pixels divided by that picture's height.
            driving_confidence: In [0, 1].
        """
        weight = SOFT_FLOOR + joint_confidence(
            driving_confidence, reference_confidence, self.config.min_confidence
        )
        fit = closed_form(driving, reference, weight)
        fitted = fit.apply(driving)
        centre, spread = _centre_and_spread(reference, weight)
        own_centre, own_spread = _centre_and_spread(driving, weight)
        near = (reference - centre) / spread
        fitted_near = (fitted - centre) / spread
        confidences = [reference_confidence[..., None], driving_confidence[..., None]]
        motion = [near, (driving - own_centre) / own_spread, reference, driving, *confidences]
        tokens = self.encoder_motion(torch.cat(motion, -1))
        context = self.encoder_fit(torch.cat([fitted_near, fitted_near - near, *confidences], -1))
        for block in self.fusion:
            tokens = block(tokens, context)
        pooled = torch.cat([tokens.mean(1), tokens.amax(1)], -1)
        correction = self._correction(self.head(pooled), centre[:, 0], spread[:, 0])
        transform = correction.after(fit)
        return AlignerOutput(transform.apply(driving), transform)

    def _correction(
        self,
        raw: Float[Tensor, "batch 4"],
        centre: Float[Tensor, "batch 2"],
        spread: Float[Tensor, "batch 1"],
    ) -> SimilarityTransform:
        """Turn the head's output into a transform about the reference's centre."""
        limit = self.config.max_log_scale
        scale = (limit * torch.tanh(raw[:, 0] / limit)).exp()
        about_origin = SimilarityTransform(scale, raw[:, 1], torch.zeros_like(centre))
        moved = about_origin.apply(centre[:, None])[:, 0]
        return SimilarityTransform(scale, raw[:, 1], centre - moved + raw[:, 2:] * spread)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and the weights."""
        save_network(Path(folder), self.config, self)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "PoseAligner":
        """Build an aligner from a folder that `save_pretrained` wrote, in evaluation mode.

        A missing or damaged file, or one of another architecture, raises WeightsError.
        """
        aligner = cls(load_config(Path(folder) / CONFIG_FILE, AlignerConfig))
        load_weights(Path(folder), aligner)
        return aligner.eval()


def _centre_and_spread(
    points: Float[Tensor, "batch 18 2"], weight: Float[Tensor, "batch 18"]
) -> tuple[Float[Tensor, "batch 1 2"], Float[Tensor, "batch 1 1"]]:
    """Return the weighted mean and the root mean square distance from it."""
    share = (weight / weight.sum(-1, keepdim=True))[..., None]
    centre = (share * points).sum(1, keepdim=True)
    variance = (share * (points - centre).square()).sum((1, 2), keepdim=True)
    return centre, variance.sqrt().clamp_min(1e-4)
