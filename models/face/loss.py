"""The loss of face optimization and its gradient: on whole decoded frames, or on windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from animaray.models.face.windows import plan_window
from animaray.models.perception.decoding.windowed_decoding import (
    DecoderRecord,
    DecodeWindow,
    WindowedDecoder,
)
from animaray.models.perception.face_sampling import align_frames
from animaray.models.perception.protocols import IdentityEmbedder, LatentCodec
from animaray.platform.errors import ConfigError

EMBEDDED_AT_ONCE = 8
"""Faces that the recogniser sees at once while a decoder's graph is held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VisibleFaces:
    """One person's face in the frames that show it."""

    reference: Float[Tensor, " embedding"]
    """Unit identity embedding to come near to."""
    rows: Int64[np.ndarray, " faces"]
    """Frames that show the face, rising."""
    landmarks: Float32[np.ndarray, "faces 5 2"]
    """Pixels of the frame."""
    boxes_px: Float[np.ndarray, "faces 2 2"]
    """Left top, right bottom; pixel centres."""
    boxes: Int64[np.ndarray, "faces 2 2"]
    """The same in latent cells, first and one past the last."""


@runtime_checkable
class FaceLoss(Protocol):
    """The mean of |1 - cos| over all faces, as a function of a clip's latents."""

    def __call__(
        self, latents: Float[Tensor, "frames c h w"]
    ) -> tuple[float, Float[Tensor, "frames c h w"]]:
        """Return the loss and its gradient."""
        ...


class FullFrameLoss:
    """Decode whole frames; every latent gets its gradient."""

    def __init__(
        self,
        codec: LatentCodec,
        embedder: IdentityEmbedder,
        faces: list[VisibleFaces],
        *,
        crop: Literal["aligned", "box"] = "aligned",
        frames_at_once: int | None = None,
    ) -> None:
        """Prepare the loss.

        Args:
            crop: Align the landmarks, or cut and stretch the box as the released code.
            frames_at_once: Decode in chunks; None decodes all frames together.
        """
        self._codec, self._embedder, self._faces = codec, embedder, faces
        self._crop = crop
        self._frames_at_once = frames_at_once

    def __call__(
        self, latents: Float[Tensor, "frames c h w"]
    ) -> tuple[float, Float[Tensor, "frames c h w"]]:
        """See FaceLoss.

        Raises:
            ConfigError: The codec decodes fewer frames than faces are given for.
        """
        num_faces = sum(len(face.rows) for face in self._faces)
        total, gradient = 0.0, torch.zeros_like(latents)
        is_whole = self._frames_at_once is None
        for start, stop in _chunks(len(latents), self._frames_at_once):
            # A codec may hold several frames in one latent; then all are decoded together.
            present = [
                (face, np.flatnonzero(is_whole | ((face.rows >= start) & (face.rows < stop))))
                for face in self._faces
            ]
            if not any(len(chosen) for _, chosen in present):
                continue
            with torch.enable_grad():
                chunk = latents[start:stop].detach().requires_grad_()
                frames = self._codec.decode(chunk).clamp(-1, 1)
                last = max(int(face.rows.max(initial=0)) for face in self._faces)
                if is_whole and last >= len(frames):
                    raise ConfigError(
                        f"Codec {self._codec.name} decodes {len(frames)} frames, but faces are "
                        f"given for frame {last}.",
                        fix="Give one row of landmarks per decoded frame.",
                    )
                distances = [
                    identity_distances(
                        self._embedder,
                        self._crops(frames[face.rows[chosen] - start], face, chosen),
                        face.reference,
                    )
                    for face, chosen in present
                    if len(chosen)
                ]
                loss = torch.cat(distances).sum() / num_faces
                (gradient[start:stop],) = torch.autograd.grad(loss, chunk)
            total += _number(loss)
        return total, gradient

    def _crops(
        self,
        frames: Float[Tensor, "faces 3 height width"],
        face: VisibleFaces,
        chosen: Int64[np.ndarray, " faces"],
    ) -> Float[Tensor, "faces 3 crop_height crop_width"]:
        size = self._embedder.crop_height_px, self._embedder.crop_width_px
        if self._crop == "box":
            return crop_boxes(frames, face.boxes_px[chosen], size)
        landmarks = torch.from_numpy(face.landmarks[chosen])
        return align_frames(frames, landmarks, self._embedder.template(), size)


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowDecoding:
    """How windows are decoded in one denoising step."""

    decoder: WindowedDecoder
    """Of the codec."""
    downscale: int
    """Pixels per latent cell."""
    record: DecoderRecord
    """Of the same clip."""
    margin: int
    """Least room around a face, latent cells."""
    multiple: int
    """Sides of windows are multiples of this."""


class WindowLoss:
    """Decode only a window around each face."""

    def __init__(
        self,
        decoding: WindowDecoding,
        embedder: IdentityEmbedder,
        faces: list[VisibleFaces],
        *,
        frames_at_once: int | None = None,
    ) -> None:
        """Prepare the loss.

        Args:
            frames_at_once: Decode in chunks; None decodes all frames together.
        """
        self._decoding, self._decoder = decoding, decoding.decoder
        self._embedder, self._faces = embedder, faces
        self._frames_at_once = frames_at_once

    def plan(self, face: VisibleFaces, latents: Float[Tensor, "frames c h w"]) -> DecodeWindow:
        """Return one person's windows: one for all frames if the decoder joins frames."""
        is_shared = self._decoder.shares_window
        return plan_window(
            face.boxes,
            (int(latents.shape[-2]), int(latents.shape[-1])),
            margin=self._decoding.margin,
            multiple=self._decoding.multiple,
            num_shared_frames=len(latents) if is_shared else None,
        )

    def __call__(
        self, latents: Float[Tensor, "frames c h w"]
    ) -> tuple[float, Float[Tensor, "frames c h w"]]:
        """See FaceLoss."""
        num_faces = sum(len(face.rows) for face in self._faces)
        total, gradient = 0.0, torch.zeros_like(latents)
        for face in self._faces:
            window = self.plan(face, latents)
            is_shared = self._decoder.shares_window
            frames = np.arange(len(latents)) if is_shared else face.rows
            for start, stop in _chunks(len(frames), self._frames_at_once):
                rows = frames[start:stop]
                chosen = np.flatnonzero((face.rows >= rows[0]) & (face.rows <= rows[-1]))
                if not len(chosen):
                    continue
                with torch.enable_grad():
                    chunk = latents[rows].detach().requires_grad_()
                    part = window.select(start, stop)
                    crops = self._crops(chunk, part, face, chosen, rows)
                    loss, of_crops = self._of_crops(crops.detach(), face, num_faces)
                    (of_chunk,) = torch.autograd.grad(crops, chunk, of_crops)
                gradient[rows] += of_chunk
                total += loss
        return total, gradient

    def _of_crops(
        self,
        crops: Float[Tensor, "faces 3 crop_height crop_width"],
        face: VisibleFaces,
        num_faces: int,
    ) -> tuple[float, Float[Tensor, "faces 3 crop_height crop_width"]]:
        """Return the loss and its gradient to the crops; few at once: a graph is held meanwhile."""
        total, gradients = 0.0, []
        for part in torch.split(crops, EMBEDDED_AT_ONCE):
            leaf = part.clone().requires_grad_()
            distances = identity_distances(self._embedder, leaf, face.reference)
            loss = distances.sum() / num_faces
            gradients.append(torch.autograd.grad(loss, leaf)[0])
            total += _number(loss)
        return total, torch.cat(gradients)

    def _crops(
        self,
        latents: Float[Tensor, "frames c h w"],
        window: DecodeWindow,
        face: VisibleFaces,
        chosen: Int64[np.ndarray, " faces"],
        rows: Int64[np.ndarray, " frames"],
    ) -> Float[Tensor, "faces 3 crop_height crop_width"]:
        pixels = self._decoder.decode_window(window.cut(latents), window, self._decoding.record)
        places = np.searchsorted(rows, face.rows[chosen])
        offset = window.core_corners[places][:, None].astype(np.float32) * self._decoding.downscale
        size = self._embedder.crop_height_px, self._embedder.crop_width_px
        return align_frames(
            pixels[places].clamp(-1, 1),
            torch.from_numpy(face.landmarks[chosen] - offset),
            self._embedder.template(),
            size,
        )


def identity_distances(
    embedder: IdentityEmbedder,
    crops: Float[Tensor, "faces 3 height width"],
    reference: Float[Tensor, " embedding"],
) -> Float[Tensor, " faces"]:
    """Return |1 - cos| of each face to the reference."""
    embeddings = embedder.embed_crops(crops)
    return (1 - embeddings @ reference.to(embeddings)).abs()


def crop_boxes(
    frames: Float[Tensor, "faces 3 height width"],
    boxes_px: Float[np.ndarray, "faces 2 2"],
    size: tuple[int, int],
) -> Float[Tensor, "faces 3 crop_height crop_width"]:
    """Cut boxes out and stretch them, bilinearly and without anti-aliasing, as the released code.

    Args:
        frames: One per face.
        boxes_px: Left top, right bottom pixel, both inside the box; rounded outwards.
        size: Height and width of the crops.
    """
    height, width = frames.shape[-2:]
    limit = np.array([width - 1, height - 1])
    first = np.clip(np.floor(boxes_px[:, 0]), 0, limit).astype(int).tolist()
    last = np.clip(np.ceil(boxes_px[:, 1]), 0, limit).astype(int).tolist()
    return torch.cat(
        [
            nnf.interpolate(
                frame[None, :, top : bottom + 1, left : right + 1],
                size,
                mode="bilinear",
                align_corners=False,
            )
            for frame, (left, top), (right, bottom) in zip(frames, first, last, strict=True)
        ]
    )


def _number(loss: Tensor) -> float:
    """Return the loss; 0 on the meta device, where only costs are counted."""
    return 0.0 if loss.device.type == "meta" else float(loss.detach())


def _chunks(count: int, size: int | None) -> Iterator[tuple[int, int]]:
    step = size or max(count, 1)
    for start in range(0, count, step):
        yield start, min(count, start + step)
