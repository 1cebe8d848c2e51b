"""Attach Face Encoder and identity adapter to any diffusers model that attends to a prompt.

    attached = attach_identity_adapter(model, AttachConfig(identity_dim=512))
    with attached.identity(identity_embedding, image_tokens):
        model(...)                  # as always; now the face is part of it
    attached.save_pretrained(folder)
    attached.detach()               # the model is bit-equal to what it was

Nothing in the model is replaced: hooks read each cross-attention's queries and its output before
the output projection, and add the face branch there (eq. 13, 14). So every attention processor,
its own context and its masks go on as they are. Two kinds of attention are known
(docs/decisions/0007-attached-adapter.md):

- *cross*: spatial layers that attend to a prompt (Stable Diffusion, Stable Video Diffusion,
  AnimateDiff); the face is added to all queries. Temporal layers and motion modules are left alone.
- *joint*: one sequence of text and video (CogVideoX); the face is added to the video's part only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.networks.attention import attend_heads
from animaray.models.networks.face_encoder import FaceEncoder, FaceEncoderConfig
from animaray.models.networks.identity_adapter import AdapterMode, align_to_image
from animaray.models.networks.weights_folder import load_config, load_weights, save_network
from animaray.platform.errors import ConfigError
from animaray.platform.weights.whole_files import CONFIG_FILE

TEMPORAL_NAMES = ("motion_modules", "temporal_transformer_blocks", "temp_attentions", "temporal_")
"""Parts of the names of layers that attend over time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachConfig:
    """Sizes and strength of an attached adapter."""

    identity_dim: int = 512
    """Length of the identity embedding."""
    image_embedding_dim: int = 1024
    """Length of the image tokens that the Face Encoder refines the face tokens with."""
    token_dim: int = 1024
    """Width of the face tokens, a multiple of `head_dim`. Equal to the width of the model's own
    context, the face projections start as copies of the model's."""
    num_face_tokens: int = 4
    """Face tokens."""
    depth: int = 4
    """Blocks of the Face Encoder."""
    head_dim: int = 64
    """Width of its heads."""
    identity_scale: float = 1.0
    """Factor on the identity embedding, see `FaceEncoderConfig`."""
    mode: AdapterMode = "distribution"
    """How the face branch is merged."""
    initial_gate: float = 0.0
    """Factor each layer learns for its face branch. 0 starts at the model's own output; 1 is the
    published adapter's start, which has no such factor."""

    def face_encoder(self) -> FaceEncoderConfig:
        """Return the configuration of the Face Encoder.

        Raises:
            ConfigError: The token width does not split into heads.
        """
        return FaceEncoderConfig(
            identity_dim=self.identity_dim,
            image_embedding_dim=self.image_embedding_dim,
            cross_attention_dim=self.token_dim,
            num_tokens=self.num_face_tokens,
            depth=self.depth,
            head_dim=self.head_dim,
            identity_scale=self.identity_scale,
        )


class FaceBranch(nn.Module):
    """Keys, values and gate of one layer's attention to the face tokens."""

    def __init__(self, layer: Attention, config: AttachConfig) -> None:
        super().__init__()
        width = layer.to_q.out_features
        self.mode: AdapterMode = config.mode
        self.id_to_k = nn.Linear(config.token_dim, width, bias=False)
        self.id_to_v = nn.Linear(config.token_dim, width, bias=False)
        self.gate = nn.Parameter(torch.full((1,), config.initial_gate))
        self.to(layer.to_q.weight)
        for own, theirs in ((self.id_to_k, layer.to_k), (self.id_to_v, layer.to_v)):
            if own.weight.shape == theirs.weight.shape:
                own.weight.data.copy_(theirs.weight.data)

    def forward(
        self,
        layer: Attention,
        query: Float[Tensor, "batch tokens channels"],
        merged: Float[Tensor, "batch tokens channels"],
        face_tokens: Float[Tensor, "clips face_tokens token_dim"],
        scale: float,
    ) -> Float[Tensor, "batch tokens channels"]:
        """Return the layer's merged heads with the face branch added.

        Args:
            query: Its projected queries, heads not split yet.
            merged: Its output before the output projection.
            face_tokens: One set per clip; frames of one clip lie beside each other in the batch.
            scale: Weight of the face branch.
        """
        key, value = (
            torch.unflatten(project(face_tokens), -1, (layer.heads, -1)).transpose(1, 2)
            for project in (self.id_to_k, self.id_to_v)
        )
        query = torch.unflatten(query, -1, (layer.heads, -1)).transpose(1, 2)
        if layer.norm_q is not None and layer.norm_k is not None:
            query, key = layer.norm_q(query), layer.norm_k(key)
        repeats = len(query) // len(face_tokens)
        key, value = (heads.repeat_interleave(repeats, dim=0) for heads in (key, value))
        face = attend_heads(query, key, value).transpose(1, 2).flatten(2)
        return merged + scale * self.gate * align_to_image(face, merged, self.mode)


class _Tap:
    """The hooks of one layer: remember the queries, then add the face branch."""

    def __init__(self, layer: Attention, branch: FaceBranch, owner: "AttachedAdapter") -> None:
        self._layer = layer
        self._branch = branch
        self._owner = owner
        self._query: Tensor | None = None
        self._num_text = 0
        self._hooks = [
            layer.register_forward_pre_hook(self._start, with_kwargs=True),
            layer.to_q.register_forward_hook(self._keep_query),
            layer.to_out[0].register_forward_pre_hook(self._add_face),
        ]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _start(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:  # noqa: ANN401
        """Joint attention takes text first; its length is known only here."""
        del module
        if _is_joint(self._layer):
            text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
            self._num_text = 0 if text is None else text.shape[1]

    def _keep_query(self, module: nn.Module, args: Any, output: Tensor) -> None:  # noqa: ANN401
        del module, args
        self._query = output if self._owner.is_active else None

    def _add_face(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        del module
        query, self._query = self._query, None
        tokens = self._owner.face_tokens
        if query is None or tokens is None:
            return None
        _check_batch(len(query), len(tokens))
        merged, *rest = args
        text, video = merged[:, : self._num_text], merged[:, self._num_text :]
        video = self._branch(
            self._layer, query[:, self._num_text :], video, tokens, self._owner.scale
        )
        return (torch.cat([text, video], dim=1) if self._num_text else video, *rest)


class AttachedAdapter(nn.Module):
    """Face Encoder and face branches of a foreign model; holds none of the model's weights.

    Its parameters are what to train; its state dict is what to save.
    """

    def __init__(self, layers: dict[str, Attention], config: AttachConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = 1.0
        self.face_tokens: Float[Tensor, "clips face_tokens token_dim"] | None = None
        any_weight = next(iter(layers.values())).to_q.weight
        self.face_encoder = FaceEncoder(config.face_encoder()).to(any_weight)
        branches = [FaceBranch(layer, config) for layer in layers.values()]
        names = [name.replace(".", "/") for name in layers]
        self.branches = nn.ModuleDict(dict(zip(names, branches, strict=True)))
        self._taps = [
            _Tap(layer, branch, self)
            for layer, branch in zip(layers.values(), branches, strict=True)
        ]

    @property
    def is_active(self) -> bool:
        """Whether a forward pass of the model now sees a face."""
        return self.face_tokens is not None and self.scale != 0

    def encode(
        self,
        identity_embedding: Float[Tensor, "clips identity_dim"],
        image_tokens: Float[Tensor, "clips image_tokens image_dim"],
    ) -> Float[Tensor, "clips face_tokens token_dim"]:
        """Return face tokens of the Face Encoder."""
        tokens: Tensor = self.face_encoder(identity_embedding, image_tokens)
        return tokens

    @contextmanager
    def identity(
        self,
        identity_embedding: Float[Tensor, "clips identity_dim"],
        image_tokens: Float[Tensor, "clips image_tokens image_dim"],
    ) -> Iterator[None]:
        """Let the model see these faces inside the block, one per clip of the model's batch.

        With guidance the model's batch holds clips twice: pass zeros and the embedding, in the
        pipeline's order. Backward passes of a model with checkpointing belong inside the block.
        """
        with self.faces(self.encode(identity_embedding, image_tokens)):
            yield

    @contextmanager
    def faces(self, face_tokens: Float[Tensor, "clips face_tokens token_dim"]) -> Iterator[None]:
        """Let the model see encoded face tokens inside the block, see `identity`."""
        before, self.face_tokens = self.face_tokens, face_tokens
        try:
            yield
        finally:
            self.face_tokens = before

    def detach(self) -> None:
        """Take all hooks off the model; its output is bit-equal to before again."""
        for tap in self._taps:
            tap.remove()
        self._taps = []

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and the adapter's weights, none of the model's."""
        save_network(Path(folder), self.config, self)


def attach_identity_adapter(model: nn.Module, config: AttachConfig) -> AttachedAdapter:
    """Attach Face Encoder and identity adapter to a diffusers model.

    Args:
        model: A U-Net with spatial cross-attention or a transformer with joint attention.
        config: Sizes; see `spatial_attention` for which layers take part.

    Raises:
        ConfigError: The model has no such layer, or widths do not fit.
    """
    layers = spatial_attention(model)
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} has no spatial attention to a prompt to attach a face to.",
            fix="Pass the denoising network itself: pipeline.unet or pipeline.transformer.",
        )
    return AttachedAdapter(layers, config)


def load_identity_adapter(model: nn.Module, folder: Path | str) -> AttachedAdapter:
    """Attach an adapter that `save_pretrained` wrote.

    A missing or damaged file, or one of another model, raises WeightsError.
    """
    config = load_config(Path(folder) / CONFIG_FILE, AttachConfig)
    attached = attach_identity_adapter(model, config)
    try:
        load_weights(Path(folder), attached)
    except BaseException:
        attached.detach()
        raise
    return attached


def spatial_attention(model: nn.Module) -> dict[str, Attention]:
    """Return the layers that the face enters, by name.

    These are cross-attention layers outside temporal blocks, or every layer of joint attention.
    """
    joint = {
        f"{name}.attn1": block.attn1
        for name, block in model.named_modules()
        if isinstance(block, CogVideoXBlock)
    }
    cross = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, Attention)
        and layer.is_cross_attention
        and not any(part in name for part in TEMPORAL_NAMES)
    }
    return joint or cross


def _is_joint(layer: Attention) -> bool:
    return not layer.is_cross_attention


def _check_batch(batch: int, clips: int) -> None:
    if batch % clips:
        raise ConfigError(
            f"The model runs a batch of {batch} and the face tokens are of {clips} clips: the "
            "first must be a multiple of the second.",
            fix="Pass one identity per clip; with guidance also for the unconditional half.",
        )
