"""Read the weights of dlib's face recogniser from dlib's own file format, without dlib.

dlib writes the layers one after another, from the picture to the embedding: each has its name,
then its numbers. Whole numbers are a byte that counts the bytes that follow; tensors are a version,
four sizes, and 32-bit floats in little-endian order. What is between is state of training.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from animaray.platform.errors import WeightsError

_CONVOLUTION, _AFFINE, _LINEAR, _INPUT = b"con_4", b"affine_", b"fc_2", b"input_rgb_image_sized"
_TENSOR_VERSION = 2
_MOST_NUMBERS = 1 << 26


@dataclass(frozen=True, kw_only=True, slots=True)
class DlibConvolution:
    """A convolution, and what scales its channels afterwards."""

    weight: Float32[np.ndarray, "outputs inputs height width"]
    bias: Float32[np.ndarray, " outputs"]
    scale: Float32[np.ndarray, " outputs"]
    offset: Float32[np.ndarray, " outputs"]
    stride: int
    padding: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DlibRecogniser:
    """What the file holds."""

    colour_means: Float32[np.ndarray, " 3"]
    """Red, green, blue, of 255."""
    convolutions: list[DlibConvolution]
    """From the picture on."""
    linear: Float32[np.ndarray, "inputs outputs"]
    """The last layer, without bias."""


class _Reader:
    """Reads numbers from a place in the file on."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def find(self, layer: bytes) -> None:
        """Go behind the next layer of a name.

        Raises:
            ValueError: There is none.
        """
        label = b"\x01" + bytes([len(layer)]) + layer
        found = self._content.find(label, self.place)
        if found < 0:
            raise ValueError(f"there is no further layer {layer.decode()}")
        self.place = found + len(label)

    def whole(self) -> int:
        """Read a whole number.

        Raises:
            ValueError: What is here is none.
        """
        size = self._content[self.place] & 0x0F
        is_negative = bool(self._content[self.place] & 0x80)
        end = self.place + 1 + size
        if not 1 <= size <= 8 or end > len(self._content):
            raise ValueError(f"byte {self.place} does not begin a whole number")
        value = int.from_bytes(self._content[self.place + 1 : end], "little")
        self.place = end
        return -value if is_negative else value

    def decimal(self) -> float:
        """Read a number that is written as mantissa and exponent."""
        mantissa, exponent = self.whole(), self.whole()
        return mantissa * 2.0**exponent

    def tensor(self) -> Float32[np.ndarray, "a b c d"]:
        """Read a tensor.

        Raises:
            ValueError: What is here is none, or it is cut off.
        """
        version, *shape = (self.whole() for _ in range(5))
        count = int(np.prod(shape, dtype=np.int64))
        if version != _TENSOR_VERSION or min(shape) < 1 or count > _MOST_NUMBERS:
            raise ValueError(f"byte {self.place} ends no tensor's sizes: {version}, {shape}")
        end = self.place + 4 * count
        if end > len(self._content):
            raise ValueError(f"it is cut off in a tensor of {count} numbers")
        values = np.frombuffer(self._content, "<f4", count, self.place)
        self.place = end
        return values.reshape(shape).astype(np.float32)


def read_dlib_recogniser(path: Path, num_convolutions: int) -> DlibRecogniser:
    """Return the weights in a file.

    Args:
        num_convolutions: How many the network has.

    Raises:
        WeightsError: The file is of another kind, or damaged.
    """
    reader = _Reader(path.read_bytes())
    try:
        reader.find(_INPUT)
        means = np.array([reader.decimal() for _ in range(3)], dtype=np.float32)
        channels = 3
        convolutions = []
        for _ in range(num_convolutions):
            convolutions.append(_convolution(reader, channels))
            channels = len(convolutions[-1].bias)
        reader.find(_LINEAR)
        outputs, inputs = reader.whole(), reader.whole()
        linear = reader.tensor().reshape(inputs, outputs)
    except (ValueError, IndexError, struct.error) as error:
        raise WeightsError(
            f"Expected dlib's face recogniser at {path}; {error}.",
            fix="Get it again: `animaray weights pull permissive/identity`.",
            reason="damaged",
        ) from error
    return DlibRecogniser(colour_means=means, convolutions=convolutions, linear=linear)


def _convolution(reader: _Reader, channels: int) -> DlibConvolution:
    """Read a convolution and the affine layer behind it.

    Raises:
        ValueError: The numbers do not fit together.
    """
    reader.find(_CONVOLUTION)
    numbers = reader.tensor().reshape(-1)
    outputs, height, width = (reader.whole() for _ in range(3))
    stride, _, padding, _ = (reader.whole() for _ in range(4))
    if len(numbers) != outputs * (channels * height * width + 1):
        raise ValueError(
            f"{len(numbers)} numbers are no convolution of {channels} to {outputs} channels"
        )
    reader.find(_AFFINE)
    scale, offset = reader.tensor().reshape(2, outputs)
    return DlibConvolution(
        weight=numbers[:-outputs].reshape(outputs, channels, height, width),
        bias=numbers[-outputs:],
        scale=scale,
        offset=offset,
        stride=stride,
        padding=padding,
    )
