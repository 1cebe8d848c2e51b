"""Untrusted pictures are decoded in a bounded child."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animaray.platform.errors import MediaError
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.work.picture_child import read_picture_in_child

LIMITS = ServingLimits(decode_s=20.0)


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
    limits = ServingLimits(max_picture_pixels=99)
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
    limits = ServingLimits(decode_memory_bytes=200 * 2**20)
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
        read_picture_in_child(path, LIMITS)
    assert caught.value.reason in ("broken", "not_a_picture")
    assert "reference_image" not in caught.value.message


def test_slow_decoding_is_ended(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("RGB", (10, 10)))
    with pytest.raises(MediaError, match=r"took longer than 0\.01 s"):
        read_picture_in_child(path, ServingLimits(decode_s=0.01))
