"""Caps on uploads and driving videos."""

from typing import Any

import pytest

from animaray.platform.errors import ConfigError, MediaError
from animaray.serving.jobs.limits import ServingLimits, check_driving_video, check_upload

JPEG, MP4 = b"\xff\xd8\xff\xe0" + bytes(60), b"\x00\x00\x00\x18ftypisom" + bytes(52)
LIMITS = ServingLimits(max_picture_bytes=100, max_video_bytes=200)


@pytest.mark.parametrize(
    ("kind", "head", "name"),
    [
        ("reference_image", JPEG, "JPEG"),
        ("reference_image", b"\x89PNG\r\n\x1a\n" + bytes(8), "PNG"),
        ("reference_image", b"RIFF\x00\x00\x00\x00WEBPVP8 ", "WebP"),
        ("reference_image", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        ("reference_image", b"MM\0*\0\0\0\x08", "TIFF"),
        ("driving_video", MP4, "MP4"),
        ("driving_video", b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "QuickTime"),
        ("driving_video", b"\0\0\0\x08wide\0\0\1\0mdat", "QuickTime"),
        ("driving_video", b"\0\0\1\0moov" + bytes(8), "QuickTime"),  # not an icon
        ("driving_video", b"GIF89a\x10\0\x10\0", "GIF"),
        ("driving_video", (b"\x47" + bytes(187)) * 3, "MPEG-TS"),
        ("driving_video", (bytes(4) + b"\x47" + bytes(187)) * 3, "MPEG-TS"),
        ("driving_video", b"\x1a\x45\xdf\xa3" + bytes(12), "WebM/Matroska"),
        ("driving_video", b"RIFF\x00\x00\x00\x00AVI LIST", "AVI"),
    ],
)
def test_containers_are_known_by_their_first_bytes(kind: str, head: bytes, name: str) -> None:
    assert check_upload(kind, 64, head, LIMITS) == name


@pytest.mark.parametrize(
    ("kind", "num_bytes", "head", "reason", "message"),
    [
        ("reference_image", 0, b"", "empty", "`reference_image` is empty"),
        ("reference_image", 101, JPEG, "too_large", "has 101 bytes; at most 100"),
        ("driving_video", 201, MP4, "too_large", "has 201 bytes; at most 200"),
        (
            "reference_image",
            64,
            MP4,
            "not_a_picture",
            "an MP4 video, not a picture.*JPEG.*swapped",
        ),
        ("driving_video", 64, JPEG, "not_a_video", "is a JPEG picture, not a video .*MP4.*swapped"),
        ("driving_video", 64, b"#EXTM3U\nfile:///etc/passwd", "not_a_video", "is a text file"),
        ("reference_image", 64, b"%PDF-1.7", "not_a_picture", "is a PDF document"),
    ],
)
def test_wrong_uploads_are_refused(
    kind: str, num_bytes: int, head: bytes, reason: str, message: str
) -> None:
    with pytest.raises(MediaError, match=message) as caught:
        check_upload(kind, num_bytes, head, LIMITS)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"width_px": 5000}, "too_large", "has 5000 x 2000 pixels"),
        ({"duration_s": 61.0}, "too_large", "lasts 61.0 s"),
        ({"num_frames": 601}, "too_large", "601 frames"),
        ({"num_frames": 1}, "too_short", "has 1 frames"),
    ],
)
def test_driving_videos_outside_the_caps_are_refused(
    change: dict[str, Any], reason: str, message: str
) -> None:
    fine: dict[str, Any] = {
        "width_px": 1000, "height_px": 2000, "num_frames": 16, "duration_s": 2.0,
        "limits": ServingLimits(),
    }  # fmt: skip
    check_driving_video(**fine)
    with pytest.raises(MediaError, match=message) as caught:
        check_driving_video(**{**fine, **change})
    assert caught.value.reason == reason


def test_limits_must_let_something_through() -> None:
    with pytest.raises(ConfigError, match="Limit `max_video_s` must be positive, got 0"):
        ServingLimits(max_video_s=0.0)


def test_request_cap_holds_both_files() -> None:
    assert LIMITS.max_request_bytes == 100 + 200 + 2**20
