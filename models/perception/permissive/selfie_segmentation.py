"""Masks of people by MediaPipe's selfie segmentation (Apache-2.0), of a picture or a part of it."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.permissive.picture_network import PictureNetwork
from animaray.models.perception.permissive.upright_crop import UprightCrop
from animaray.platform.weights.store import resolve_weights

_SIDE_PX = 256
_MASK = "activation_10"


class SelfieSegmenter:
    """Tell people from background; everybody in the picture is in one mask."""

    def __init__(self, path: Path, *, num_threads: int = 1, device: str = "cpu") -> None:
        """Open the network.

        Args:
            path: MediaPipe's selfie segmentation network, .tflite or converted to .onnx.
            device: "cpu" or "cuda".
        """
        self._network = PictureNetwork(
            path, side_px=_SIDE_PX, outputs=(_MASK,), num_threads=num_threads, device=device
        )

    @classmethod
    def load(cls, *, num_threads: int = 1, device: str = "cpu") -> "SelfieSegmenter":
        """Open the registered weights."""
        path = resolve_weights("permissive/selfie_segmentation")
        return cls(path, num_threads=num_threads, device=device)

    def mask(
        self, frame: UInt8[np.ndarray, "height width 3"]
    ) -> Float32[np.ndarray, "height width"]:
        """Return the probability of a person per pixel; the picture is stretched to a square."""
        small = cv2.resize(frame, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
        height, width = frame.shape[:2]
        return cv2.resize(self._look(small), (width, height), interpolation=cv2.INTER_LINEAR)

    def mask_of_part(
        self, frame: UInt8[np.ndarray, "height width 3"], x: float, y: float, side_px: float
    ) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
        """Return the mask of a square part, zero outside it, and how much each pixel was seen.

        Args:
            frame: RGB picture; beyond its edge its last pixels are repeated.
            x: Middle of the square, pixels.
            y: Middle of the square, pixels.
            side_px: Side of the square, pixels.
        """
        crop = UprightCrop(x=x, y=y, side_px=side_px, input_px=_SIDE_PX)
        mask = self._look(crop.cut(frame, border=cv2.BORDER_REPLICATE))
        height, width = frame.shape[:2]
        seen = crop.paste(np.ones_like(mask), height, width)
        return crop.paste(mask, height, width), seen

    def _look(self, picture: UInt8[np.ndarray, "side side 3"]) -> Float32[np.ndarray, "side side"]:
        return np.ascontiguousarray(self._network.look(picture)[_MASK][0, :, :, 0])
