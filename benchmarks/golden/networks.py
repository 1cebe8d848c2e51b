"""Vectors of single networks: PoseNet, Face Encoder, identity adapter, self-attention, U-Net."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from animaray.models.networks.animator_config import UNetConfig
from animaray.models.networks.face_encoder import FaceEncoder, FaceEncoderConfig
from animaray.models.networks.identity_adapter import (
    STANDARD_DEVIATION_FLOOR,
    AdapterMode,
    IdentityAdapter,
)
from animaray.models.networks.pose_net import PoseNet, PoseNetConfig
from animaray.models.networks.unet import AnimatorUNet
from animaray.models.networks.unet_layers import Attention, IdentityAttention, Mixer
from animaray.models.perception.paper.iresnet import IResNetBlock
from benchmarks.golden.vectors import GoldenVector


@contextmanager
def recorded(parts: dict[str, nn.Module], *, inputs: bool = False) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that the named modules' outputs (or last inputs) go to when they run."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:  # noqa: ANN401 - torch's hooks
        def take_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            del module, args
            seen[name] = (output[0] if isinstance(output, tuple) else output).detach()

        def take_input(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            seen[name] = args[-1].detach()

        return take_input if inputs else take_output

    hooks = [
        module.register_forward_pre_hook(keep(name))
        if inputs
        else module.register_forward_hook(keep(name))
        for name, module in parts.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def run_pose_net(vector: GoldenVector) -> None:
    """Compare PoseNet: pictures of one axis more or less, and some inner activations."""
    config = PoseNetConfig(out_channels=vector.setting("config", "noise_latent_channels"))
    net = PoseNet(config).eval()
    vector.load(net, vector.weights())
    inner = {match[0]: int(match[1]) for match in vector.names(r"after_conv_layers_(\d+)")}
    for match in vector.names(r"input_(.*)"):
        pictures = vector.tensor(match[0])
        pictures = pictures.flatten(0, 1) if pictures.ndim == 5 else pictures
        layers = {name: net.conv_layers[index] for name, index in inner.items()}
        with recorded(layers) as seen:
            vector.close(f"output_{match[1]}", net(pictures))
        if match[1] == "4d":
            for name, activations in seen.items():
                vector.close(name, activations[: len(vector.tensor(name))])


def face_encoder_config(sizes: dict[str, Any], weights: dict[str, Tensor]) -> FaceEncoderConfig:
    """Return our configuration for a vector's sizes; the depth is the weights'."""
    layers = {key.split(".")[2] for key in weights if key.startswith("fusion_model.layers.")}
    return FaceEncoderConfig(
        identity_dim=sizes["id_embeddings_dim"],
        image_embedding_dim=sizes["clip_embeddings_dim"],
        cross_attention_dim=sizes["cross_attention_dim"],
        num_tokens=sizes["num_tokens"],
        depth=len(layers),
    )


@torch.no_grad()
def run_face_encoder(vector: GoldenVector) -> None:
    """Compare the Face Encoder: all its layers, several image tokens, no identity."""
    weights = vector.weights()
    encoder = FaceEncoder(face_encoder_config(vector.setting("config"), weights)).eval()
    vector.load(encoder, weights)
    identity, image = vector.tensor("id_embeds"), vector.tensor("clip_embeds")
    parts: dict[str, nn.Module] = {}
    for index, layer in enumerate(encoder.fusion_model.layers):
        attention, feed_forward = layer.children()
        parts["tokens_before_fusion" if index == 0 else f"layer{index - 1}_after_ff"] = attention
        parts[f"layer{index}_after_attn"] = feed_forward
    parts[f"layer{len(encoder.fusion_model.layers) - 1}_after_ff"] = encoder.fusion_model.proj_out
    with recorded(parts, inputs=True) as seen:
        vector.close("output", encoder(identity, image))
    for name in parts:
        vector.close(name, seen[name])
    for match in vector.names(r"clip_embeds_(\w+)"):
        vector.close(f"output_{match[1]}", encoder(identity, vector.tensor(match[0])))
    for match in vector.names(r"output_shortcut_scale_(\w+)"):
        scale = _number(match[1])
        vector.close(match[0], encoder(identity, image, shortcut_scale=scale))
    if vector.has("output_zero_id"):
        vector.close("output_zero_id", encoder(torch.zeros_like(identity), image))
    if vector.has("output_id_rank3"):
        clips = len(vector.tensor("output_id_rank3"))
        vector.close("output_id_rank3", encoder(identity[:clips, None], image[:clips]))


@torch.no_grad()
def run_self_attention(vector: GoldenVector) -> None:
    """Compare spatial self-attention."""
    dim, heads = vector.setting("config", "hidden_size"), vector.setting("config", "heads")
    layer = Attention(dim, heads)
    vector.load(layer, vector.weights())
    vector.close("output", layer.eval()(vector.tensor("hidden_states")))


def _adapter_layer(vector: GoldenVector, mode: AdapterMode, scale: float) -> IdentityAttention:
    sizes = vector.setting("config")
    dim, cross = sizes["hidden_size"], sizes["cross_attention_dim"]
    adapter = IdentityAdapter(
        dim, cross, num_face_tokens=sizes["num_tokens"], mode=mode, scale=scale
    )
    layer = IdentityAttention(dim, sizes["heads"], cross, adapter)
    vector.load(layer, vector.weights())
    return layer.eval()


@torch.no_grad()
def run_identity_adapter(vector: GoldenVector) -> None:
    """Compare the identity adapter and its parts, other scales, weak and absent face tokens."""
    if vector.config["config"].get("eps", STANDARD_DEVIATION_FLOOR) != STANDARD_DEVIATION_FLOOR:
        raise vector.broken(f"our adapter's eps is {STANDARD_DEVIATION_FLOOR}")
    scale = float(vector.setting("config", "scale"))
    num_tokens = vector.setting("config", "num_tokens")
    hidden, context = vector.tensor("hidden_states"), vector.tensor("encoder_hidden_states")

    def run(
        states: Tensor, mode: AdapterMode = "distribution", weight: float = scale
    ) -> tuple[Tensor, Tensor]:
        """Return the layer's output, and the merged attention before the output projection."""
        layer = _adapter_layer(vector, mode, weight)
        with recorded({"merged": layer.to_out[0]}, inputs=True) as seen:
            return layer(hidden, states), seen["merged"]

    vector.close("output", run(context)[0])
    for match in vector.names(r"encoder_hidden_states_(\w+)"):
        vector.close(f"output_{match[1]}", run(vector.tensor(match[0]))[0])
    for match in vector.names(r"output_face_tokens_x(.+)"):
        weak = context.clone()
        weak[:, -num_tokens:] *= float(match[1])
        vector.close(match[0], run(weak)[0])
    for match in vector.names(r"output_scale_(\w+)"):
        vector.close(match[0], run(context, weight=_number(match[1]))[0])
    if vector.has("output_zero_face"):
        silent = context.clone()
        silent[:, -num_tokens:] = 0
        vector.close("output_zero_face", run(silent)[0])
    plain, plain_merged = run(context, "addition", 1.0)
    image_only = run(context, weight=0.0)[1]
    for name, ours in {
        "output_plain_addition": plain if scale == 1 else run(context, "addition")[0],
        "z_img": image_only,
        "z_face": plain_merged - image_only,
        "z_face_aligned": run(context, weight=1.0)[1] - image_only,
    }.items():
        if vector.has(name):
            vector.close(name, ours)


def unet_config_of(
    settings: dict[str, Any], num_face_tokens: int = 4, scale: float = 1.0
) -> UNetConfig:
    """Return our configuration for diffusers' settings of a Stable Video Diffusion U-Net."""
    heads, levels = settings["num_attention_heads"], len(settings["block_out_channels"])
    return UNetConfig(
        in_channels=settings["in_channels"],
        out_channels=settings["out_channels"],
        block_out_channels=tuple(settings["block_out_channels"]),
        num_attention_heads=tuple(heads) if isinstance(heads, list) else (heads,) * levels,
        has_attention=tuple("CrossAttn" in kind for kind in settings["down_block_types"]),
        layers_per_block=settings["layers_per_block"],
        cross_attention_dim=settings["cross_attention_dim"],
        addition_time_embed_dim=settings["addition_time_embed_dim"],
        num_frames=settings["num_frames"],
        sample_size=settings["sample_size"],
        num_face_tokens=num_face_tokens,
        adapter_scale=scale,
    )


@torch.no_grad()
def run_unet(vector: GoldenVector) -> None:
    """Compare the U-Net: with and without pose and face, one timestep for all, block outputs."""
    adapter = vector.config.get("adapter", {})
    config = unet_config_of(
        vector.setting("config"), adapter.get("num_tokens", 4), float(adapter.get("scale", 1.0))
    )
    unet = AnimatorUNet(config).eval()
    vector.load(unet, vector.weights())
    sample, timestep = vector.tensor("sample"), vector.tensor("timestep")
    context, ids = vector.tensor("encoder_hidden_states"), vector.tensor("added_time_ids")
    features = torch.unflatten(vector.tensor("pose_latents"), 0, sample.shape[:2])
    blocks: dict[str, nn.Module] = {"mid_block_out": unet.mid_block}
    blocks |= {f"down_{index}_out": block for index, block in enumerate(unet.down_blocks)}
    blocks |= {f"up_{index}_out": block for index, block in enumerate(unet.up_blocks)}
    with recorded(blocks) as seen:
        vector.close("output", unet(sample, timestep, context, ids, features))
    with recorded({"mid_conv_in": unet.conv_in}) as first:
        without_pose = unet(sample, timestep, context, ids)
    for name, ours in (first | seen).items():
        if vector.has(name):
            vector.close(name, ours[: len(vector.tensor(name))])
    silent = context.clone()
    silent[:, -config.num_face_tokens :] = 0
    scalar = vector.config.get("scalar_timestep", SCALAR_TIMESTEP)
    for name, ours in {
        "output_no_pose": without_pose,
        "output_scalar_t": unet(sample, torch.tensor(float(scalar)), context, ids, features),
        "output_zero_face": unet(sample, timestep, silent, ids, features),
    }.items():
        if vector.has(name):
            vector.close(name, ours)
    for mixer in unet.modules():
        if isinstance(mixer, Mixer):
            mixer.mix_factor.fill_(torch.inf)  # all space, no time: every frame a picture
    if vector.has("output_image_only"):
        as_pictures = unet(sample, timestep, context, ids, features)
        vector.close("output_image_only", as_pictures)


@torch.no_grad()
def run_residual_block(vector: GoldenVector) -> None:
    """Compare the recogniser's residual blocks, with and without a shortcut layer."""
    for name, description in vector.setting("config").items():
        sizes = re.match(r"(\d+)->(\d+) stride (\d+)", description)
        if sizes is None:
            raise vector.broken(f"setting `{name}` should begin with `<in>-><out> stride <n>`")
        block = IResNetBlock(int(sizes[1]), int(sizes[2]), int(sizes[3])).eval()
        vector.load(block, vector.weights(f"{name}."))
        vector.close(f"{name}_out", block(vector.tensor(f"{name}_in")))


SCALAR_TIMESTEP = 0.5
"""What `output_scalar_t` was made with; the vector does not say it."""


def _number(words: str) -> float:
    """Return the number in a tensor name, where p stands for the point: 0p5 is 0.5."""
    return float(words.replace("p", "."))
