"""Read and write still pictures: upright by EXIF, alpha over white, bounded size."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from animaray.platform.errors import MediaError
from animaray.platform.storage import write_bytes_atomic

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MAX_PIXELS = 50_000_000


def read_picture(source: Path | str | bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Read a picture as RGB: turned upright, transparent parts over white.

    Args:
        source: Local file, or the file's bytes.

    Raises:
        MediaError: `reason` is missing, empty, not_a_picture, broken or too_large.
    """
    name = "The picture" if isinstance(source, bytes) else Path(source).name
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise MediaError(
                f"Expected a picture at {source}, got nothing there ({error.strerror}).",
                reason="missing",
            ) from error
    if not data:
        raise MediaError(f"{name} is an empty file.", reason="empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=_FORMATS)
        if opened.width * opened.height > _MAX_PIXELS:
            raise MediaError(
                f"{name} has {opened.width}x{opened.height} pixels, over the limit of "
                f"{_MAX_PIXELS // 1_000_000} million.",
                fix="Give a smaller picture.",
                reason="too_large",
            )
        return _flatten(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{name} is not a picture of an accepted format (png, jpeg, webp, gif, bmp, tiff).",
            fix="Give a picture file.",
            reason="not_a_picture",
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"{name} is a damaged picture: {error}.", reason="broken") from error


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


def _flatten(picture: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if picture.mode in {"I", "I;16", "F"}:  # 16-bit pictures: PIL would clip, not scale
        values = np.asarray(picture, dtype=np.float64)
        scale = 255.0 / max(255.0, 65535.0 if picture.mode.startswith("I") else values.max())
        grey = (values * scale).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB")).copy()


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
