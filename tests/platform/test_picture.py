"""Pictures as people have them come out upright, in sRGB and as bright as their 8-bit form."""

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from animaray.platform.errors import MediaError
from animaray.platform.media import picture as pictures
from animaray.platform.media.picture import picture_formats, read_picture

FIELD = Path(__file__).parents[1] / "data/field"
RAMP = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
RAMP_RGB = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)
SRGB_TO_XYZ_D50 = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
ADOBE_TO_XYZ_D50 = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, *, order: str = "<", photometric: int | None = None) -> bytes:
    """Write a plain TIFF file of one strip, as the standard says."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    number_format = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    photometric = (2 if channels == 3 else 1) if photometric is None else photometric
    bits_at = 8 + len(data)
    shorts = [pixels.dtype.itemsize * 8] * channels + [number_format] * channels
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits_at), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, channels), (278, 4, 1, height),
        (279, 4, 1, len(data)), (339, 3, channels, bits_at + 2 * channels),
    ]  # fmt: skip
    out = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, bits_at + 12 + 12)
    out += data + struct.pack(f"{order}{len(shorts)}H", *shorts).ljust(24, b"\0")
    out += struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        is_short = kind == 3 and count <= 2
        values = shorts[:count] if tag == 258 else shorts[channels : channels + count]
        if is_short:
            packed = struct.pack(f"{order}H", values[0] if tag in (258, 339) else value)
        else:
            packed = struct.pack(f"{order}I", value)
        out += struct.pack(f"{order}HHI", tag, kind, count) + packed.ljust(4, b"\0")
    return out + bytes(4)


def profile(space: bytes, gamma: float, to_xyz: np.ndarray | None = None) -> bytes:
    """Return a small ICC profile: a curve, and three colours of light for RGB."""

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    tags = [(b"desc", text), (b"cprt", b"text\0\0\0\0none\0\0\0\0")]
    tags.append((b"wtpt", xyz(np.array([0.9642, 1.0, 0.8249]))))
    if to_xyz is None:
        tags.append((b"kTRC", curve))
    else:
        tags += [(name + b"XYZ", xyz(to_xyz[:, k])) for k, name in enumerate((b"r", b"g", b"b"))]
        tags += [(name + b"TRC", curve) for name in (b"r", b"g", b"b")]
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags:
        data = content.ljust(-(-len(content) // 4) * 4, b"\0")
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI", size, b"test", 0x02400000) + b"mntr" + space + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def srgb_of(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    curve = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return curve * 255


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_is_scaled_in_both_byte_orders(order: str) -> None:
    read = read_picture(tiff(RAMP, order=order)).astype(int)
    assert np.abs(read - RAMP[..., None] / 257).max() <= 1
    inverted = read_picture(tiff(RAMP, order=order, photometric=0)).astype(int)
    assert np.abs(inverted - (255 - RAMP[..., None] / 257)).max() <= 1


def test_field_grey_is_as_bright_as_its_eight_bit_form() -> None:
    read = read_picture(FIELD / "i09_grey16be.tiff")
    grey = np.asarray(Image.open(FIELD / "ref_person.png").convert("L")).astype(int)
    assert np.abs(read[..., 0] - grey).mean() < 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("pixels", [RAMP, RAMP_RGB])
def test_floating_point_tiff_is_scaled(pixels: np.ndarray, full: float, order: str) -> None:
    read = read_picture(tiff((pixels / 65535 * full).astype(np.float32), order=order)).astype(int)
    expected = pixels / 257 if pixels.ndim == 3 else pixels[..., None] / 257
    assert np.abs(read - expected).max() <= 1


def test_sixteen_bit_png_and_colour_tiff_are_scaled() -> None:
    png = read_picture(saved(Image.fromarray(RAMP), "PNG")).astype(int)
    assert np.abs(png - RAMP[..., None] / 257).max() <= 1
    colour = read_picture(tiff(RAMP_RGB, order=">")).astype(int)
    assert np.abs(colour - RAMP_RGB / 257).max() <= 1


def test_numbers_that_are_no_picture_are_refused_with_what_they_are() -> None:
    with pytest.raises(MediaError, match="1 channels of 32-bit unsigned numbers"):
        read_picture(tiff(RAMP.astype(np.uint32) * 65537))
    with pytest.raises(MediaError, match=r"values up to 1e\+09"):
        read_picture(tiff(np.full((4, 4), 1e9, np.float32)))


def test_display_p3_becomes_srgb() -> None:
    read = read_picture(FIELD / "i40_p3.jpg").astype(int)
    reference = read_picture(FIELD / "ref_person.png").astype(int)
    assert np.abs(read - reference).mean() < 3
    saturation = [np.ptp(each, axis=-1).mean() for each in (read, reference)]
    assert saturation[0] == pytest.approx(saturation[1], rel=0.02)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_adobe_rgb_becomes_srgb_in_every_format(kind: str) -> None:
    pixels = np.full((16, 16, 3), (120, 150, 90), np.uint8)
    icc = profile(b"RGB ", 2.19921875, ADOBE_TO_XYZ_D50)
    options = {} if kind in ("PNG", "TIFF") else {"quality": 100}
    read = read_picture(saved(Image.fromarray(pixels), kind, icc_profile=icc, **options))
    light = np.linalg.solve(
        SRGB_TO_XYZ_D50, ADOBE_TO_XYZ_D50 @ (np.array([120, 150, 90]) / 255) ** 2.19921875
    )
    assert np.abs(read[8, 8] - srgb_of(light)).max() <= 4
    assert np.abs(read[8, 8].astype(int) - pixels[8, 8]).max() >= 10  # it did change


def test_grey_profile_is_applied() -> None:
    grey = Image.new("L", (8, 8), 128)
    read = read_picture(saved(grey, "PNG", icc_profile=profile(b"GRAY", 1.0)))
    assert np.abs(read[4, 4] - srgb_of(np.full(3, 128 / 255))).max() <= 2


def test_alpha_survives_the_profile() -> None:
    icc = profile(b"RGB ", 1.0, SRGB_TO_XYZ_D50)
    image = Image.new("RGBA", (8, 8), (128, 128, 128, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    read = read_picture(saved(image, "PNG", icc_profile=icc)).astype(int)
    assert (read[:, :4] == 255).all()
    assert np.abs(read[4, 6] - srgb_of(np.full(3, 128 / 255))).max() <= 2


@pytest.mark.parametrize("icc", [b"junk", profile(b"GRAY", 1.0), profile(b"CMYK", 1.0)])
def test_profile_that_does_not_fit_is_passed_over_as_in_browsers(icc: bytes) -> None:
    picture = Image.new("RGB", (8, 8), (120, 150, 90))
    assert read_picture(saved(picture, "PNG", icc_profile=icc))[4, 4].tolist() == [120, 150, 90]


def test_cmyk_jpeg_shows_its_colours() -> None:
    read = read_picture(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(read[8, 8].astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGB"])
def test_palettes_and_alpha_come_out(mode: str) -> None:
    source = Image.new("RGBA", (8, 8), (255, 255, 255, 255))
    source.paste((0, 0, 0, 255), (0, 0, 4, 8))
    kind = "TIFF" if mode == "PA" else "PNG"
    image = source.convert("RGBA").convert("P" if mode == "PA" else mode)
    read = read_picture(saved(image.convert(mode) if mode != "PA" else image, kind))
    assert read[4, 2].max() <= 2
    assert read[4, 6].min() >= 253


def test_transparent_palette_is_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert read_picture(saved(image, "PNG", transparency=0)).min() == 255
    assert read_picture(saved(image, "GIF", transparency=0)).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    if kind == "HEIF" and "HEIC" not in picture_formats():
        pytest.skip("the optional package pillow-heif is not installed")
    pixels = np.zeros((48, 32, 3), np.uint8)
    pixels[:24, :16] = 255  # top left: every turn and mirror moves it or swaps the sides
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(pixels)
    data = saved(stored, kind, exif=exif.tobytes())
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    read = read_picture(data).astype(int)
    assert read.shape == expected.shape
    assert np.abs(read - expected).mean() < 12


def test_broken_exif_turns_nothing() -> None:
    data = saved(Image.new("RGB", (8, 6)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_picture(data).shape == (6, 8, 3)


def test_telephone_picture_is_read_where_its_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    path = FIELD / "i22_phone.heic"
    if "HEIC" in picture_formats():
        reference = read_picture(FIELD / "ref_person.png").astype(int)
        assert np.abs(read_picture(path) - reference).mean() < 3
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for cached in (pictures._heif_reader, pictures.picture_formats):
        cached.cache_clear()
    try:
        with pytest.raises(MediaError, match="is a HEIC picture") as caught:
            read_picture(path)
        assert str(caught.value.fix).startswith("HEIC: convert it to JPEG or PNG.")
        assert "install pillow-heif" in str(caught.value.fix)
        assert "MP4" not in str(caught.value)
        assert "HEIC" not in picture_formats()
    finally:
        for cached in (pictures._heif_reader, pictures.picture_formats):
            cached.cache_clear()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\0\0\0\x18ftypisom\0\0\2\0isomavc1", "is an MP4 video.*swapped"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "is a QuickTime video.*swapped"),
        (b"\x1a\x45\xdf\xa3", "is a WebM/Matroska video.*swapped"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a camera raw picture.*convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL picture.*convert it"),
        (b"8BPS\0\1", "is a Photoshop picture.*convert it"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG picture.*convert it"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"<!doctype html><title>403</title>", "is a web page"),
        (b"no picture at all\n", "is a text file"),
        (b"\x01\x02\x03\x04" * 8, "is of an unknown kind"),
    ],
)
def test_other_files_are_named(head: bytes, message: str) -> None:
    with pytest.raises(MediaError, match=message) as caught:
        read_picture(head)
    assert caught.value.reason == "not_a_picture"
    assert ("swapped" in str(caught.value)) == ("swapped" in message)


def test_large_pictures_are_refused_before_they_are_decoded() -> None:
    data = saved(Image.new("1", (20000, 20000)), "PNG")
    with pytest.raises(MediaError, match="at most 120,000,000") as caught:
        read_picture(data)
    assert caught.value.reason == "too_large"
    assert read_picture(saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")).tolist() == [[[9, 8, 7]]]
