"""Bring pictures of more than 8 bits a channel to 8 bits, as bright as their 8-bit form.

Pillow clips such pictures instead of scaling them, and reads compressed big-endian TIFF of other
numbers wrongly; those go through OpenCV.
"""

import io

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from animaray.platform.errors import MediaError

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277
_SUBFILE_TYPE, _PLANAR, _SAMPLE_FORMAT, _ICC_PROFILE = 254, 284, 339, 34675
_WHITE_IS_ZERO = 0
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_OPENCV_NUMBERS = {(_UNSIGNED, 16), (_SIGNED, 16), (_FLOAT, 32), (_FLOAT, 64)}
_UNIT_MAX = 2.0  # pictures in [0, 1] may pass 1 a little


class TiffFacts:
    """What the first picture of a TIFF file declares."""

    def __init__(self, data: bytes) -> None:
        """Read the first directory."""
        stream = io.BytesIO(data)
        tags = ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        self.size_px = int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0))
        self.bits = int(np.max(tags.get(_BITS, (1,))))
        self.number_format = int(np.max(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))))
        self.num_channels = int(tags.get(_SAMPLES, 1))
        self.is_planar = int(tags.get(_PLANAR, 1)) == 2 and self.num_channels > 1
        self.is_inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        self.is_thumbnail = bool(int(tags.get(_SUBFILE_TYPE, 0)) & 1)
        self.orientation = int(tags.get(_ORIENTATION, 1))
        self.icc_profile = tags.get(_ICC_PROFILE)

    @property
    def described(self) -> str:
        """Return how its pixels are stored."""
        kinds = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "floating-point"}
        kind = kinds.get(self.number_format, "odd")
        layout = ", one plane a channel" if self.is_planar else ""
        return f"{self.num_channels} channels of {self.bits}-bit {kind} numbers{layout}"


def read_deep_tiff(data: bytes, facts: TiffFacts, name: str) -> Image.Image:
    """Read a TIFF file of 16-bit or floating-point numbers as 8-bit grey, RGB or RGBA.

    Raises:
        MediaError: Its pixels are stored in a way that is not read (`reason` not_a_picture), or it
            is damaged (broken).
    """
    is_known = (facts.number_format, facts.bits) in _OPENCV_NUMBERS
    if not is_known or facts.is_planar or facts.num_channels not in (1, 3, 4):
        raise MediaError(
            f"{name} is a TIFF picture of {facts.described}, which is not read.",
            fix="Save it as PNG, or as TIFF with 8 or 16 bits a channel.",
            reason="not_a_picture",
        )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or (pixels.shape[2:] or (1,))[0] != facts.num_channels:
        raise MediaError(
            f"{name} is a damaged TIFF picture: its pixels cannot be decoded.", reason="broken"
        )
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(
            pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        )
    picture = Image.fromarray(_scaled(pixels, facts, name))
    picture.getexif()[_ORIENTATION] = facts.orientation
    if facts.icc_profile:
        picture.info["icc_profile"] = facts.icc_profile
    return picture


def to_8_bit(picture: Image.Image, facts: TiffFacts | None) -> Image.Image:
    """Scale 16-bit grey, in either byte order, to 8 bits; other pictures pass.

    Args:
        facts: What a TIFF file declares; None for other files.
    """
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.float32)
    largest = float((1 << (facts.bits if facts is not None else 16)) - 1)
    grey = (values * (255.0 / largest)).clip(0, 255).round().astype(np.uint8)
    scaled = Image.fromarray(255 - grey if facts is not None and facts.is_inverted else grey)
    scaled.info = {key: value for key, value in picture.info.items() if key != "transparency"}
    if isinstance(see_through := picture.info.get("transparency"), int):
        scaled = scaled.convert("LA")
        scaled.putalpha(Image.fromarray(np.where(values == see_through, 0, 255).astype(np.uint8)))
    return scaled


def _scaled(pixels: np.ndarray, facts: TiffFacts, name: str) -> np.ndarray:
    """Return pixels as 8 bits.

    Raises:
        MediaError: Floating-point values are no numbers, or in no range that pictures have.
    """
    if facts.number_format == _FLOAT:
        largest = float(pixels.max())
        scales = ((_UNIT_MAX, 1.0), (255.0, 255.0), (65535.0, 65535.0))
        full = next((full for limit, full in scales if largest <= limit), None)
        if full is None or not np.isfinite(pixels).all():
            raise MediaError(
                f"{name} holds floating-point values up to {largest:g}; expected 0 to 1, 255 or"
                " 65535.",
                fix="Save it as PNG.",
                reason="not_a_picture",
            )
    else:
        full = 65535.0 if facts.number_format == _UNSIGNED else 32767.0
    scaled = (pixels.astype(np.float32) * (255.0 / full)).clip(0, 255).round().astype(np.uint8)
    return 255 - scaled if facts.is_inverted else scaled
