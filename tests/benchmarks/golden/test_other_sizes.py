"""Vectors of other sizes, made here by other people's code: diffusers' layers and scheduler."""

import json
import math
import random

import pytest
import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion
from safetensors.torch import save_file

from benchmarks.golden.preprocessing import formula_picture
from benchmarks.golden.verify import verify_vector

TIGHT = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a vector folder."""

    def write_vector(name, config, tensors=None, weights=None):
        folder = tmp_path / name
        folder.mkdir()
        tensors = tensors or {}
        listed = {
            key: [str(value.dtype).removeprefix("torch."), list(value.shape)]
            for key, value in tensors.items()
        }
        (folder / "config.json").write_text(json.dumps(config | {"tensors": listed}))
        if tensors:
            contiguous = {key: value.contiguous() for key, value in tensors.items()}
            save_file(contiguous, folder / "io.safetensors")
        if weights:
            save_file(weights, folder / "state_dict.safetensors")
        return folder

    return write_vector


def failed(folder):
    report = verify_vector(folder)
    return [*report.errors, *(check for check in report.checks if not check.passed)]


def halves(module):
    """Round a module's weights to float16, as the vectors store them."""
    weights = {key: value.half() for key, value in module.state_dict().items()}
    module.load_state_dict({key: value.float() for key, value in weights.items()})
    return weights


@torch.no_grad()
def test_self_attention_of_diffusers(write):
    layer = Attention(query_dim=48, heads=3, dim_head=16).eval()
    weights, tokens = halves(layer), torch.randn(2, 11, 48)
    folder = write(
        "self_attn_b",
        {"module": "?", "config": {"hidden_size": 48, "heads": 3}, "tol": TIGHT},
        {"hidden_states": tokens, "output": layer(tokens)},
        weights,
    )
    assert failed(folder) == []


@torch.no_grad()
def test_unet_of_diffusers_with_the_adapter_switched_off(write):
    settings = {
        "sample_size": 8,
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
        "block_out_channels": [32, 64],
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "layers_per_block": 2,
        "cross_attention_dim": 16,
        "transformer_layers_per_block": 1,
        "num_attention_heads": [2, 4],
        "num_frames": 5,
    }
    stock = UNetSpatioTemporalConditionModel(**settings).eval()
    weights = halves(stock)
    for key in [key for key in weights if key.endswith("attn2.to_k.weight")]:
        if ".temporal_transformer_blocks." not in key:
            place = key.removesuffix("to_k.weight")
            weights[f"{place}processor.id_to_k.weight"] = torch.randn(weights[key].shape).half()
            weights[f"{place}processor.id_to_v.weight"] = torch.randn(weights[key].shape).half()
    sample, context = torch.randn(2, 5, 6, 8, 12), torch.randn(2, 4, 16)
    ids, timestep = torch.rand(2, 3) * 6, torch.tensor([0.7, -1.1])
    # Three face tokens, which the stock network does not know.
    seen = context[:, :1]
    tensors = {
        "sample": sample,
        "timestep": timestep,
        "encoder_hidden_states": context,
        "added_time_ids": ids,
        "pose_latents": torch.zeros(10, 32, 8, 12),
        "output": stock(sample, timestep, seen, ids).sample,
        "output_scalar_t": stock(sample, torch.tensor(0.5), seen, ids).sample,
    }
    tensors["output_no_pose"] = tensors["output"].clone()
    config = {
        "module": "UNetSpatioTemporalConditionModel, adapter off",
        "config": settings,
        "adapter": {"num_tokens": 3, "scale": 0.0},
        "tol": {"atol": 3e-5, "rtol": 3e-5},
    }
    assert failed(write("unet_small", config, tensors, weights)) == []


def test_euler_scheduler_of_diffusers(write):
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "timestep_spacing": "leading",
        "use_karras_sigmas": True,
        "sigma_min": 0.01,
        "sigma_max": 90.0,
    }
    tensors = {}
    for steps in (4, 9):
        scheduler = EulerDiscreteScheduler(**settings)
        scheduler.set_timesteps(steps)
        tensors[f"sigmas_{steps}"] = scheduler.sigmas.clone()
        tensors[f"timesteps_{steps}"] = scheduler.timesteps.clone()
        tensors[f"init_noise_sigma_{steps}"] = torch.as_tensor(scheduler.init_noise_sigma).clone()
    latents = torch.randn(2, 19, 3, 2, 4) * scheduler.init_noise_sigma
    parts = {name: [] for name in ("sample", "scaled_input", "model_output", "pred_x0", "prev")}
    for timestep in scheduler.timesteps:
        output = torch.randn(latents.shape)
        scaled = scheduler.scale_model_input(latents, timestep)
        step = scheduler.step(output, timestep, latents)
        values = (latents, scaled, output, step.pred_original_sample, step.prev_sample)
        for part, value in zip(parts.values(), values, strict=True):
            part.append(value)
        latents = step.prev_sample
    parts["prev_sample"] = parts.pop("prev")
    tensors |= {name: torch.stack(part) for name, part in parts.items()}
    tensors |= {"step_sigmas": scheduler.sigmas, "step_timesteps": scheduler.timesteps}
    config = {
        "module": "EulerDiscreteSchedulerPro (other)",
        "config": {"scheduler": settings, "steps": 9},
        "tol": TIGHT,
    }
    assert failed(write("schedule", config, tensors)) == []


@pytest.mark.parametrize(("height", "width"), [(230, 801), (64, 90), (333, 333)])
def test_clip_resize_of_diffusers(write, height, width):
    picture = torch.from_numpy(formula_picture(height, width)).permute(2, 0, 1)[None] / 255
    resize = pipeline_stable_video_diffusion._resize_with_antialiasing
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pixels = ((resize(picture * 2 - 1, (224, 224)) + 1) / 2 - mean) / std
    tensors = {f"out_sub5_{height}x{width}": pixels[:, :, ::5, ::5]}
    folder = write("clip_preprocess", {"module": "resize", "tol": TIGHT}, tensors)
    assert failed(folder) == []


def test_noise_levels_of_another_distribution(write):
    low, high, image, data, smallest, largest = 16, 48, 64, 0.8, 0.01, 80.0
    u = torch.rand(50)

    def log_snr(noise):
        shift = 2 * math.log(noise / image)
        ends = [-2 * math.log(sigma / data) - shift for sigma in (smallest, largest)]
        start, end = (math.atan(math.exp(-x / 2)) for x in ends)
        return -2 * torch.log(torch.tan(start + (1 - u) * (end - start))) + shift

    expected = torch.exp(-torch.lerp(log_snr(low), log_snr(high), u) / 2) * data
    settings = {
        "image_d": image,
        "noise_d_low": low,
        "noise_d_high": high,
        "sigma_data": data,
        "min_value": smallest,
        "max_value": largest,
    }
    config = {"module": "rand_cosine_interpolated", "config": settings, "tol": TIGHT}
    folder = write("noise", config, {"u": u, "sigma_sd0.8": expected})
    assert failed(folder) == []


def test_windows_of_other_lengths(write):
    # By hand: 6 frames, tiles of 4, overlap 2 start at 0 and 2.
    cases = [
        {
            "num_frames": 6,
            "tile_size": 4,
            "tile_overlap": 2,
            "indices": [[0, 1, 2, 3], [0, 3, 4, 5]],
            "error": None,
            "weight_sum": [0.5, 0.75, 0.75, 1.0, 0.75, 0.25],
        },
        {"num_frames": 3, "tile_size": 4, "tile_overlap": 2, "error": "IndexError"},
    ]
    config = {"module": "tile index list", "tol": {"atol": 1e-6}, "cases": cases}
    assert failed(write("tiles", config)) == []


def test_frames_of_other_clips(write):
    rng = random.Random(11)  # noqa: S311 - what the released code uses
    start = rng.randint(0, 50 - 13)
    frames = list(range(start, start + 13, 3))
    reference = rng.choice([frame for frame in range(50) if frame not in frames])
    case = {
        "video_length": 50,
        "n_sample_frames": 5,
        "sample_frame_rate": 3,
        "python_random_seed": 11,
        "frame_indices": frames,
        "reference_index": reference,
    }
    config = {"module": "LargeScaleAnimationVideos", "cases": [case]}
    assert failed(write("frames", config)) == []
