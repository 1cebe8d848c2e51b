"""Read and write still pictures: upright by EXIF, in sRGB, alpha over white, bounded size."""

import io
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError, features

from animaray.platform.errors import MediaError
from animaray.platform.media.file_kind import HEAD_BYTES, FileKind, recognise
from animaray.platform.media.picture_colour import over_white, to_srgb
from animaray.platform.media.picture_depth import TiffFacts, read_deep_tiff, to_8_bit
from animaray.platform.packages import this_installation
from animaray.platform.storage import write_bytes_atomic

MAX_PICTURE_PIXELS = 120_000_000
"""The largest pictures of telephones have 108 million; 360 MB of them are held in memory."""
_FORMATS = {"JPEG": "JPEG", "PNG": "PNG", "WebP": "WEBP", "GIF": "GIF", "BMP": "BMP",
            "TIFF": "TIFF", "AVIF": "AVIF", "HEIC": "HEIF"}  # fmt: skip
"""For texts that are the same on every machine."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def picture_formats() -> tuple[str, ...]:
    """Return the names of the picture formats that are read on this machine."""
    absent = set() if features.check("avif") else {"AVIF"}
    return tuple(name for name in _FORMATS if name not in absent | ({"HEIC"} - _heif_reader()))


@cache
def _heif_reader() -> frozenset[str]:
    """Register the reader of HEIC pictures, an optional package; return what it reads."""
    try:
        import pillow_heif
    except ImportError:
        return frozenset()
    pillow_heif.register_heif_opener(thumbnails=False)
    return frozenset({"HEIC"})


def read_picture(
    source: Path | str | bytes, *, max_pixels: int = MAX_PICTURE_PIXELS, name: str | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Read a picture as sRGB: turned upright, transparent parts over white.

    Colour profiles are applied, 16-bit and floating-point values scaled to 8 bits. Of an animation
    the first picture is taken.

    Args:
        source: Local file, or the file's bytes.
        max_pixels: Larger pictures are refused before they are decoded.
        name: What messages call it; None: its file name.

    Raises:
        MediaError: `reason` is missing, empty, not_a_picture, broken or too_large.
    """
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            where = f"at {source}, got nothing there" if name is None else "that is not there"
            raise MediaError(
                f"Expected a picture {where} ({error.strerror}).", reason="missing"
            ) from error
        name = name or Path(source).name
    name = name or "The picture"
    if not data:
        raise MediaError(f"{name} is an empty file.", reason="empty")
    kind = recognise(data[:HEAD_BYTES])
    if kind is None or kind.name not in picture_formats():
        refuse_kind(kind, name, remedy=_remedy(kind))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(data, kind, name, max_pixels)
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"{name} has too many pixels; at most {max_pixels:,} are accepted.",
            fix="Give a smaller picture.",
            reason="too_large",
        ) from error
    except (
        OSError, SyntaxError, ValueError, TypeError, KeyError, RuntimeError, struct.error
    ) as error:  # fmt: skip
        detail = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise MediaError(
            f"{name} is a damaged {kind.name} picture{detail}.",
            fix="Save or fetch it anew.",
            reason="broken",
        ) from error


def _remedy(kind: FileKind | None) -> str:
    if kind is None or kind.name != "HEIC":
        return ""
    return f" Or install the reader: {this_installation().install('pillow-heif')}"


def refuse_kind(kind: FileKind | None, name: str, *, remedy: str = "") -> NoReturn:
    """Refuse a file that is no picture of an accepted format.

    Args:
        kind: What it is; None where that is not known.
        name: The file, to begin the message with.
        remedy: What else would help.

    Raises:
        MediaError: Always; `reason` is not_a_picture.
    """
    what = "is of an unknown kind" if kind is None else f"is {kind.described}"
    fix = "Give a picture file."
    if kind is not None and kind.family == "picture":
        fix = f"{kind.name}: convert it to JPEG or PNG."
    elif kind is not None and kind.family == "video":
        fix = "Give a picture file. Were picture and video swapped?"
    raise MediaError(
        f"{name} {what}, not a picture of an accepted format ({', '.join(picture_formats())}).",
        fix=fix + remedy,
        reason="not_a_picture",
    )


def _read(
    data: bytes, kind: FileKind, name: str, max_pixels: int
) -> UInt8[np.ndarray, "height width 3"]:
    facts = TiffFacts(data) if kind.name == "TIFF" else None
    if facts is not None and facts.is_thumbnail:
        refuse_kind(FileKind("camera raw", "picture"), name)
    picture: Image.Image | None
    try:
        picture = Image.open(io.BytesIO(data), formats=[_FORMATS[kind.name]])
        size = picture.size
    except UnidentifiedImageError:
        if facts is None:
            raise
        picture, size = None, facts.size_px
    if size[0] * size[1] > max_pixels:
        raise MediaError(
            f"{name} has {size[0]} x {size[1]} pixels; at most {max_pixels:,} are accepted.",
            fix="Give a smaller picture.",
            reason="too_large",
        )
    if facts is not None and (picture is None or picture.mode in {"I", "F"}):
        picture = read_deep_tiff(data, facts, name)
    assert picture is not None  # noqa: S101 - only a TIFF file comes here without one
    picture.load()
    upright = _upright(to_8_bit(picture, facts))
    return np.asarray(over_white(to_srgb(upright))).copy()


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF tells; an EXIF block that cannot be read tells nothing."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return picture
    return picture if turn is None else picture.transpose(turn)


def encode_jpeg(frame_uint8: UInt8[np.ndarray, "height width 3"], *, quality: int = 85) -> bytes:
    """Encode one RGB frame as JPEG; quality from 1 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(frame_uint8).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_png(path: Path, frame_uint8: UInt8[np.ndarray, "height width 3"]) -> None:
    """Write one RGB frame as PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(frame_uint8).save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())


def write_picture(path: Path | str, frame_uint8: UInt8[np.ndarray, "height width 3"]) -> None:
    """Write an RGB picture atomically; the suffix chooses PNG or JPEG.

    Raises:
        MediaError: The suffix is neither .png nor .jpg or .jpeg.
    """
    path = Path(path)
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower())
    if kind is None:
        raise MediaError(
            f"Expected a .png or .jpg file name, got {path.name}.", reason="not_a_picture"
        )
    buffer = io.BytesIO()
    Image.fromarray(frame_uint8).save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
    write_bytes_atomic(path, buffer.getvalue())
