"""The vector of face optimization as released: two denoising steps with Adam inside."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.face.loss import FullFrameLoss, VisibleFaces, crop_boxes
from animaray.models.face.optimization import (
    FaceOptimizer,
    FaceTarget,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.frames import to_frames
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from benchmarks.golden.pipeline import codec_of
from benchmarks.golden.sampling import sampler_of, schedule_of, scripted_run
from benchmarks.golden.vectors import GoldenVector

CROP_PX = 112


class StandInRecogniser(nn.Module):
    """The vectors' small face network, in the place of IResNet-100."""

    name, crop_height_px, crop_width_px = "golden/stand-in", CROP_PX, CROP_PX

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """Build it from its weights: convolutions whose stride is their kernel, then a linear."""
        super().__init__()
        last = weights["fc.weight"]
        self.embedding_dim = last.shape[0]
        layers: dict[str, nn.Module] = {}
        for index in count(1):
            weight = weights.get(f"c{index}.weight")
            if weight is None:
                break
            channels_out, channels_in, kernel, _ = weight.shape
            layers[f"c{index}"] = nn.Conv2d(channels_in, channels_out, kernel, stride=kernel)
            layers[f"tanh{index}"] = nn.Tanh()
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(last.shape[1], last.shape[0])
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.load_state_dict(weights)

    def template(self) -> Float32[np.ndarray, "5 2"]:
        """Return the crop's corners and centre: the released code cuts boxes, not landmarks."""
        last = CROP_PX - 1
        places = [[0, 0], [last, 0], [last / 2, last / 2], [0, last], [last, last]]
        return np.array(places, np.float32)

    def embed(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the unit embedding of the box around the landmarks."""
        box = np.stack([landmarks.min(axis=0), landmarks.max(axis=0)])[None]
        crop = crop_boxes(to_frames(frame[None]), box, (CROP_PX, CROP_PX))
        with torch.no_grad():
            return self.embed_crops(crop)[0].numpy()

    def embed_crops(
        self, crops: Float[Tensor, "crops 3 height width"]
    ) -> Float[Tensor, "crops embedding"]:
        """Return unit embeddings."""
        return nn.functional.normalize(self.raw(crops), dim=1)

    def raw(self, crops: Float[Tensor, "crops 3 height width"]) -> Float[Tensor, "crops embedding"]:
        """Return embeddings of their own length."""
        for layer in self.children():
            crops = layer(crops)
        return crops


def run_hjb_step(vector: GoldenVector) -> None:
    """Compare estimates, losses, learning rates, refined estimates and both next latents."""
    face = StandInRecogniser(vector.weights("face.")).requires_grad_(requires_grad=False)
    codec = codec_of(vector)
    picture = vector.tensor("ref_face")
    whole = np.array([[[0.0, 0.0], [picture.shape[3] - 1.0, picture.shape[2] - 1.0]]])
    raw = face.raw(crop_boxes(picture, whole, (CROP_PX, CROP_PX)))
    vector.close("ref_embedding", raw)
    reference = nn.functional.normalize(vector.tensor("ref_embedding"), dim=1)[0].numpy()
    # Stored as first and last row, first and last column.
    boxes = vector.tensor("boxes").numpy()[:, [2, 0, 3, 1]].astype(np.float32)
    target = FaceTarget(
        reference_embedding=reference,
        landmarks=np.full((len(boxes), 5, 2), np.nan, np.float32),
        boxes_px=boxes,
    )
    config = FaceOptimizationConfig(
        mode="published",
        num_iterations=vector.setting("config", "num_optimization_iter"),
        chunk_frames=vector.setting("config", "decode_chunk_size"),
        num_steps=vector.setting("config", "num_inference_steps"),
    )
    setting = _Setting(codec=codec, face=face, target=target, config=config)
    for index, step in _steps(vector):
        _compare_step(vector, index, step, setting)


def _steps(vector: GoldenVector) -> Iterator[tuple[int, StepInfo]]:
    """Yield the stored denoising steps and where they lie in the schedule."""
    num_steps = vector.setting("config", "num_inference_steps")
    first = vector.setting("config", "first_step_index")
    sigmas = schedule_of(sampler_of(vector, num_steps))
    for match in list(vector.names(r"step(\d+)_sample")):
        index = int(match[1])
        step = StepInfo(
            step_index=first + index,
            num_inference_steps=num_steps,
            sigma=float(sigmas[first + index]),
            next_sigma=float(sigmas[first + index + 1]),
        )
        vector.close(f"step{index}_sigma", step.sigma)
        vector.close(f"step{index}_sigma_next", step.next_sigma)
        vector.close(f"step{index}_timestep", 0.25 * sigmas[first + index].log())
        yield index, step


@dataclass(frozen=True, kw_only=True, slots=True)
class _Setting:
    """What both steps share."""

    codec: TemporalAutoencoderCodec
    face: StandInRecogniser
    target: FaceTarget
    config: FaceOptimizationConfig

    def loss(self) -> FullFrameLoss:
        """Return the loss that the optimizer works on, over all frames."""
        assert self.target.boxes_px is not None  # noqa: S101 - it always is here
        boxes = self.target.boxes_px.reshape(-1, 2, 2)
        faces = VisibleFaces(
            reference=torch.from_numpy(self.target.reference_embedding),
            rows=np.arange(len(boxes)),
            landmarks=self.target.landmarks,
            boxes_px=boxes,
            boxes=np.zeros(boxes.shape, np.int64),
        )
        chunk = self.config.frames_at_once
        return FullFrameLoss(self.codec, self.face, [faces], crop="box", frames_at_once=chunk)


def _compare_step(vector: GoldenVector, index: int, step: StepInfo, setting: _Setting) -> None:
    """Run our sampler from a stored step on, to its next level and to the end."""
    prefix, config = f"step{index}_", setting.config
    sampler = replace(sampler_of(vector, 2), sigma_max=step.sigma, sigma_min=step.next_sigma)
    start, outputs = [vector.tensor(f"{prefix}sample")], vector.tensor(f"{prefix}model_output")
    plain = scripted_run(sampler, torch.stack([outputs] * 2), start)
    vector.close(f"{prefix}x0_before", plain.estimates[0])
    vector.close(f"{prefix}prev_plain", plain.calls[1].latents)
    vector.close(f"{prefix}lr", config.rate(step))
    if vector.has(f"{prefix}frames_before"):
        chunks = torch.split(plain.estimates[0][0], config.frames_at_once or len(start[0][0]))
        frames = torch.cat([setting.codec.decode(chunk).detach() for chunk in chunks])
        vector.close(f"{prefix}frames_before", frames.clamp(-1, 1))
    optimizer = FaceOptimizer(setting.codec, setting.face, [setting.target], config)
    run = scripted_run(
        sampler,
        torch.stack([outputs] * 2),
        start,
        lambda denoised, now: optimizer(denoised, step) if now.step_index == 0 else denoised,
    )
    vector.close(f"{prefix}x0_after", run.estimates[0])
    loss_tolerance = vector.tolerance("loss_atol")
    before = optimizer.history[-1].losses[0]
    vector.close(f"{prefix}loss_before", before, atol=loss_tolerance)
    after, _ = setting.loss()(run.estimates[0][0])
    vector.close(f"{prefix}loss_after", after, atol=loss_tolerance)
    vector.close(f"{prefix}prev_refined", run.calls[1].latents)
