"""The vector of the whole inference pipeline: conditioning, windows, guidance, steps, frames."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from animaray.models.diffusion.sampler import sample
from animaray.models.diffusion.windows import window_indices
from animaray.models.frames import to_frames, to_uint8
from animaray.models.networks.conditioning import Conditioning
from animaray.models.perception.paper.clip_preprocessing import clip_pixels
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from animaray.models.subjects.framing import stretch_picture
from benchmarks.golden.recording import DenoiserCall, RecordingAnimator, raw_output
from benchmarks.golden.sampling import sampler_of, schedule_of
from benchmarks.golden.training import animator_config, fill_animator
from benchmarks.golden.vectors import GoldenVector

_DECODER = "vae.decoder."


def run_pipeline(vector: GoldenVector) -> None:
    """Compare everything between the reference picture and the decoded frames.

    CLIP and the encoder's weights are not in the vector: it gives their outputs.
    """
    close = _Tolerances(vector)
    settings = vector.setting("config")
    _compare_reference(vector, close)
    animator = _animator(vector)
    config = sampler_of(
        vector,
        settings["num_inference_steps"],
        guidance_scale=float(settings["min_guidance_scale"]),
        guidance_max=float(settings["max_guidance_scale"]),
        window_frames=settings["tile_size"],
        window_overlap=settings["tile_overlap"],
    )
    estimates: list[Tensor] = []
    with torch.no_grad():
        latents = sample(
            animator,
            _conditioning(vector),
            settings["num_frames"],
            config,
            lambda _: vector.tensor("initial_noise_tile"),
            on_step=lambda denoised, *_: estimates.append(denoised),
        )
        run = _Run(
            steps=[
                list(calls) for _, calls in groupby(animator.calls, key=lambda call: call.sigma)
            ],
            tiles=window_indices(
                settings["num_frames"],
                config.window_frames,
                config.window_overlap,
                config.window_rule,
            ),
            estimates=estimates,
            latents=latents,
        )
        close.number("sigmas", schedule_of(config))
        _compare_inputs(vector, close, run)
        _compare_windows(vector, close, run)
        _compare_steps(close, run)
        compare_frames(vector, latents[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What our sampler did."""

    steps: list[list[DenoiserCall]]
    """Calls of the denoiser, step by step."""
    tiles: list[Tensor]
    """Frames of each window."""
    estimates: list[Tensor]
    """Guided estimate of the clean clip in each step."""
    latents: Tensor
    """The result."""

    def start(self, step: int) -> Tensor:
        """Return the clip's latents before a step, from what the windows were given."""
        clip = torch.zeros_like(self.latents)
        given = [call.latents for call in self.steps[step] if call.is_conditional]
        for tile, latents in zip(self.tiles, given, strict=True):
            clip[:, tile] = latents
        return clip

    def calls(self, step: int, *, is_conditional: bool) -> list[DenoiserCall]:
        """Return the calls of one branch, window by window."""
        return [call for call in self.steps[step] if call.is_conditional == is_conditional]


class _Tolerances:
    """The vector's two ways of comparing."""

    def __init__(self, vector: GoldenVector) -> None:
        self._vector = vector
        self._network = vector.tolerance("tile_outputs_atol")
        self._atol, self._rtol = vector.tolerance("latents_atol"), vector.tolerance("latents_rtol")

    def network(self, name: str, ours: Tensor | np.ndarray) -> None:
        """Compare inputs and outputs of networks."""
        self._vector.close(name, ours, atol=self._network)

    def number(self, name: str, ours: Tensor) -> None:
        """Compare numbers of the schedule, which span six orders of magnitude."""
        self._vector.close(name, ours, atol=self._network, rtol=self._rtol)

    def latents(self, name: str, ours: Tensor) -> None:
        """Compare latents of the trajectory."""
        self._vector.close(name, ours, atol=self._atol, rtol=self._rtol)


def _compare_reference(vector: GoldenVector, close: _Tolerances) -> None:
    """Compare CLIP's input and the noised picture that the encoder gets."""
    settings = vector.setting("config")
    picture = vector.tensor("reference_u8").numpy()
    clip = vector.setting("config", "clip")
    pixels = clip_pixels(
        torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 * 2 - 1,
        mean=tuple(clip["image_mean"]),
        std=tuple(clip["image_std"]),
    )
    for match in list(vector.names(r"pixel_values_sub(\d+)")):
        step = int(match[1])
        close.network(match[0], pixels[:, :, ::step, ::step])
    sums = torch.stack([pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))])
    close.network("pixel_values_mean_std", sums)
    stretched = stretch_picture(picture, settings["width"], settings["height"])
    noise = vector.tensor("image_noise") * settings["noise_aug_strength"]
    close.network("vae_input_noised", to_frames(stretched[None]) + noise)


def _animator(vector: GoldenVector) -> RecordingAnimator:
    settings = vector.setting("config")
    animator = RecordingAnimator(
        animator_config(
            vector,
            settings["width"],
            settings["height"],
            # The network was trained on the frame rate less one.
            fps_id=float(settings["fps"] - 1),
            motion_bucket_id=float(settings["motion_bucket_id"]),
            noise_aug_strength=float(settings["noise_aug_strength"]),
        )
    ).eval()
    fill_animator(vector, animator)
    return animator


def _conditioning(vector: GoldenVector) -> Conditioning:
    small = vector.tensor("poses_u8").numpy()
    # Stored as every n-th pixel, to be repeated.
    rows, columns = (
        vector.setting("config", side) // small.shape[axis]
        for side, axis in (("height", 1), ("width", 2))
    )
    poses = small.repeat(rows, axis=1).repeat(columns, axis=2)
    context = vector.tensor("encoder_hidden_cond")
    return Conditioning(
        reference_latents=vector.tensor("image_latents_cond"),
        image_embedding=context[:, 0],
        identity_embedding=vector.tensor("id_embedding")[None],
        pose_images=to_frames(poses)[None],
    )


def _initial_noise(vector: GoldenVector) -> Tensor:
    """Return the first window's noise, repeated along the clip."""
    tile = vector.tensor("initial_noise_tile")
    frames = torch.arange(vector.setting("config", "num_frames")) % tile.shape[1]
    return tile[:, frames]


def _compare_inputs(vector: GoldenVector, close: _Tolerances, run: _Run) -> None:
    timesteps = [calls[0].unet_inputs[1][0] for calls in run.steps]
    close.number("timesteps", torch.stack(timesteps))
    noise = _initial_noise(vector)
    scale = (run.start(0) * noise).sum() / noise.square().sum()
    close.number("init_noise_sigma", scale)
    conditional = run.calls(0, is_conditional=True)[0]
    close.network("encoder_hidden_cond", conditional.unet_inputs[2])
    close.network("added_time_ids", conditional.unet_inputs[3])
    unconditional = run.calls(0, is_conditional=False)[0]
    close.network("encoder_hidden_uncond", unconditional.unet_inputs[2])


def _compare_windows(vector: GoldenVector, close: _Tolerances, run: _Run) -> None:
    vector.close("tile_indices", torch.stack(run.tiles), atol=0.0)
    for match in list(vector.names(r"tile_(un)?cond_step(\d+)")):
        calls = run.calls(int(match[2]), is_conditional=match[1] is None)
        close.network(match[0], torch.cat([call.raw_output(1.0) for call in calls]))
    for match in list(vector.names(r"tile_input_(un)?cond_step(\d+)_tile(\d+)")):
        calls = run.calls(int(match[2]), is_conditional=match[1] is None)
        close.network(match[0], calls[int(match[3])].unet_inputs[0])


def _compare_steps(close: _Tolerances, run: _Run) -> None:
    starts = [run.start(step) for step in range(len(run.steps))]
    guided = [
        raw_output(estimate, start, calls[0].sigma, 1.0)
        for estimate, start, calls in zip(run.estimates, starts, run.steps, strict=True)
    ]
    close.latents("latents_in", torch.cat(starts))
    close.latents("guided_model_output", torch.cat(guided))
    close.latents("latents_out", torch.cat([*starts[1:], run.latents]))


def compare_frames(vector: GoldenVector, latents: Tensor) -> None:
    """Decode in the published chunks, which see nothing of each other.

    Frames come with the decoder that made them, or not at all: without both, nothing is decoded.
    """
    if not vector.has("frames_u8"):
        return
    if not vector.has_weights(_DECODER):
        raise vector.broken(f"`frames_u8` is stored, but no weights begin with `{_DECODER}`")
    codec = codec_of(vector)
    chunks = torch.split(latents, vector.setting("config", "decode_chunk_size"))
    frames = np.concatenate([to_uint8(codec.decode(chunk)) for chunk in chunks])
    vector.close("frames_u8", frames, atol=vector.tolerance("frames_u8_max_abs"))


def codec_of(vector: GoldenVector) -> TemporalAutoencoderCodec:
    """Build the latent codec of a vector; only its decoder has weights."""
    sizes = vector.setting("config", "vae")
    levels = len(sizes["block_out_channels"])
    autoencoder = AutoencoderKLTemporalDecoder(
        block_out_channels=tuple(sizes["block_out_channels"]),
        down_block_types=("DownEncoderBlock2D",) * levels,
        layers_per_block=sizes["layers_per_block"],
        latent_channels=sizes["latent_channels"],
        scaling_factor=sizes["scaling_factor"],
    )
    vector.load(autoencoder.decoder, vector.weights(_DECODER))
    return TemporalAutoencoderCodec(autoencoder)
