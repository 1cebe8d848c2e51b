"""Untrusted pictures are decoded in a bounded child."""

import io
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from animaray.platform.errors import MediaError
from animaray.platform.media import bounded_decoding, decoder_child
from animaray.platform.media.video import (
    DecodeLimits,
    probe_in_child,
    read_picture,
    read_picture_in_child,
    write_mp4,
)

LIMITS = DecodeLimits(max_frame_pixels=40_000_000, timeout_s=20.0)


def save(tmp_path: Path, image: Image.Image, kind: str = "PNG") -> Path:
    path = tmp_path / "reference_image"
    buffer = io.BytesIO()
    image.save(buffer, kind)
    path.write_bytes(buffer.getvalue())
    return path


def test_pixels_arrive_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    read = read_picture_in_child(save(tmp_path, Image.fromarray(pixels)), LIMITS)
    np.testing.assert_array_equal(read, pixels)


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    limits = DecodeLimits(max_frame_pixels=99)
    path = save(tmp_path, Image.new("RGB", (10, 10)))
    with pytest.raises(MediaError, match="has 10 x 10 pixels; at most 99") as caught:
        read_picture_in_child(path, limits)
    assert caught.value.reason == "too_large"


def test_decompression_bomb_ends_in_the_child(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("1", (8000, 8000)))
    assert path.stat().st_size < 200_000
    with pytest.raises(MediaError, match=r"at most 40,000,000|more memory than allowed") as caught:
        read_picture_in_child(path, LIMITS)
    assert caught.value.reason == "too_large"


def test_picture_that_needs_more_memory_than_allowed_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("RGB", (4000, 4000)))
    limits = DecodeLimits(max_frame_pixels=40_000_000, memory_bytes=200 * 2**20)
    with pytest.raises(MediaError, match="memory") as caught:
        read_picture_in_child(path, limits)
    assert caught.value.reason in ("too_large", "broken")


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_damaged_pictures_are_refused_without_the_stored_name(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(noise), "JPEG")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)] or b"\x00" * 99)
    with pytest.raises(MediaError) as caught:
        read_picture_in_child(path, LIMITS, name="The picture")
    assert caught.value.reason in ("broken", "not_a_picture")
    assert "reference_image" not in caught.value.message


def test_slow_decoding_is_ended(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("RGB", (4000, 4000)))
    with pytest.raises(MediaError, match=r"took longer than 0\.01 s") as caught:
        read_picture_in_child(path, DecodeLimits(max_frame_pixels=40_000_000, timeout_s=0.01))
    assert "smaller picture" in (caught.value.fix or "")


def variants() -> dict[str, bytes]:
    """Return a picture of each kind that is read in a way of its own."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(rng.integers(0, 65536, (40, 30), dtype=np.uint16))
    made: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "turned": (rgb, "JPEG", {"exif": exif, "icc_profile": profile}),
        "progressive": (rgb, "JPEG", {"progressive": True}),
        "cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "alpha": (rgb.convert("RGBA"), "PNG", {}),
        "palette": (rgb.convert("P"), "PNG", {}),
        "deep": (deep, "PNG", {}),
        "deep.tiff": (deep, "TIFF", {}),
        "float.tiff": (Image.fromarray(rng.random((40, 30), np.float32)), "TIFF", {}),
        "packed.tiff": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tiff": (rgb, "TIFF", {"compression": "jpeg"}),
        "webp": (rgb, "WEBP", {"lossless": True}),
        "gif": (rgb, "GIF", {}),
        "bmp": (rgb, "BMP", {}),
    }
    if features.check("avif"):
        made["avif"] = (rgb, "AVIF", {})
    found = {}
    for name, (image, kind, options) in made.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    return found


def test_a_confined_child_reads_every_kind_as_this_process_does(tmp_path: Path) -> None:
    """It can open no module, codec or profile that was not there before it was confined."""
    path = tmp_path / "picture"
    for name, data in variants().items():
        path.write_bytes(data)
        expected = read_picture(path)
        np.testing.assert_array_equal(read_picture_in_child(path), expected, err_msg=name)
        for cut in (30, len(data) // 2, len(data) - 20):  # also where it is damaged
            path.write_bytes(data[:cut])
            assert outcome(read_picture, path) == outcome(read_picture_in_child, path), name


def outcome(read: Callable[[Path], np.ndarray], path: Path) -> object:
    try:
        return read(path).shape
    except MediaError as error:
        return error.reason, error.message, error.fix


ATTEMPTS: dict[str, Callable[[str], object]] = {
    "another file": lambda path: Path(path).with_name("other").read_bytes(),
    "a folder": lambda path: list(Path(path).parent.iterdir()),
    "writing": lambda path: Path(path).with_name("new").write_bytes(b"x"),
    "a socket": lambda _: socket.socket(),
    "a process": lambda _: os.fork() or os._exit(0),
    "a program": lambda _: os.execv("/bin/true", ["true"]),  # noqa: S606
}


@pytest.mark.usefixtures("landlock")
@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_picture_that_took_its_decoder_over_reaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The child's own handler runs with a decoder that tries what an attacker would."""
    path = save(tmp_path, Image.new("RGB", (10, 10)))
    path.with_name("other").write_bytes(b"secret")

    def taken_over(source: Path, **_: object) -> np.ndarray:
        ATTEMPTS[name](str(source))
        raise AssertionError(f"{name} was reached")

    monkeypatch.setattr(decoder_child, "read_picture", taken_over)
    request = {"path": str(path), "limits": asdict(LIMITS), "picture": None}
    answer = answer_of_child(request)
    assert answer[:1] == b"E", answer
    failure = json.loads(answer[decoder_child.HEADER.size :])
    assert "PermissionError" in failure["message"]
    assert "secret" not in failure["message"]
    assert not path.with_name("new").exists()


def answer_of_child(request: dict[str, object]) -> bytes:
    """Serve a request in a process of its own, as the fork server does; return what it wrote."""
    output, their_output = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(their_output, "wb") as file:
            decoder_child._serve(request, file)
        os._exit(0)
    os.close(their_output)
    with os.fdopen(output, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


def test_pictures_and_videos_share_one_server(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("RGB", (10, 10)))
    read_picture_in_child(path)
    server = bounded_decoding._DECODERS._process
    assert server is not None
    write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.uint8), 2.0)
    probe_in_child(tmp_path / "a.mp4")
    assert bounded_decoding._DECODERS._process is server
