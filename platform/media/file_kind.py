"""Tell what a file is from its first bytes, by the name that people know it by.

Only pose files, which are JSON or NPZ like others, are told by the name they have.
"""

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEAD_BYTES = 512
"""So many first bytes are enough."""

_PICTURE_MARKS = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL \r\n", "JPEG XL"),
    (4, b"jP  \r\n", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "icon"),
    (0, b"v/1\1", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
)
_VIDEO_MARKS = (
    (0, b"\x1a\x45\xdf\xa3", "WebM/Matroska"),
    (8, b"AVI ", "AVI"),
    (0, b"\0\0\1\xba", "MPEG"),
    (0, b"\0\0\1\xb3", "MPEG"),
    (0, b"\x30\x26\xb2\x75", "Windows Media"),
    (0, b"FLV\1", "FLV"),
)
PICTURE_FORMATS_TEXT = (
    "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and, where pillow-heif is installed, HEIC"
)
"""Pictures that can be read, for people; here, because reading them takes heavy packages."""
VIDEO_FORMATS = (
    "MP4", "QuickTime", "WebM/Matroska", "AVI", "GIF", "MPEG-TS", "MPEG", "Windows Media", "Ogg",
    "FLV",
)  # fmt: skip
"""Videos that are known by their first bytes; all are read, and GIF counts as a picture, too."""
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".gif",
    ".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".vro", ".ts", ".mts", ".m2t", ".m2ts",
    ".tp", ".trp", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".ogm",
})  # fmt: skip
"""Names of the containers that are read, whatever their case."""
POSE_SUFFIXES = (".json", ".npz")
"""Of a driving input that holds poses, not pictures."""
_OTHER_MARKS = (
    (0, b"%PDF", "PDF document"),
    (0, b"PK\3\4", "zip archive"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"PAR1", "Parquet file"),
    (0, b"RIFF", "sound file"),
    (0, b"ID3", "sound file"),
)
_BOXES = {
    **dict.fromkeys((b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"), "QuickTime"),
    **dict.fromkeys((b"moof", b"sidx", b"styp", b"uuid"), "MP4"),
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC"),
    b"crx ": "camera raw",
}
_SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")
_OGG_PICTURES = (b"\x80theora", b"OVP80", b"BBCD", b"\1video")
_ANY_HEIF = (b"mif1", b"msf1")
_TS_PACKET_BYTES, _TS_SYNC = 188, 0x47
_SPOKEN_WITH_A_VOWEL = ("A", "I", "O", "i", "FLV", "MP4", "MPEG", "SVG")


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is."""

    name: str
    """As in "PNG", "MP4" or "PDF document"."""
    family: Literal["picture", "video", "other"]

    @property
    def described(self) -> str:
        """Return it with its article, as in "a PNG picture"."""
        noun = self.name if self.family == "other" else f"{self.name} {self.family}"
        return f"an {noun}" if noun.startswith(_SPOKEN_WITH_A_VOWEL) else f"a {noun}"


_SOUND = FileKind("sound file", "other")


def is_pose_file(path: Path) -> bool:
    """Tell whether a path names a pose file, or a folder of OpenPose's, rather than a video."""
    return path.suffix.lower() in POSE_SUFFIXES or path.is_dir()


def is_video(path: Path) -> bool:
    """Return whether a file is a video by its name or, under any other, by its first bytes."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            kind = recognise(file.read(HEAD_BYTES))
    except OSError:
        return False
    return kind is not None and kind.family == "video"


def recognise(head: bytes) -> FileKind | None:
    """Return what a file is, or None where its first HEAD_BYTES do not tell."""
    if head[4:8] == b"ftyp":
        return _recognise_brand(head)
    if head[4:8] in _BOXES and not head[:4].decode("latin-1").isprintable():  # "The free ..."
        return FileKind(_BOXES[head[4:8]], "video")
    if head.startswith(b"OggS"):
        shows = any(mark in head for mark in _OGG_PICTURES)
        return FileKind("Ogg", "video") if shows else _SOUND
    for marks, family in (
        (_PICTURE_MARKS, "picture"), (_VIDEO_MARKS, "video"), (_OTHER_MARKS, "other"),
    ):  # fmt: skip
        for offset, mark, name in marks:
            if head[offset : offset + len(mark)] == mark:
                return FileKind(name, family)  # type: ignore[arg-type]
    return _recognise_by_structure(head)


def _recognise_brand(head: bytes) -> FileKind:
    """Tell pictures from videos in the ISO container that both use."""
    end = min(len(head), int.from_bytes(head[:4], "big"))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    if brands[0] in _BRANDS or brands[0] in _ANY_HEIF:
        name = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "HEIC")
        return FileKind(name, "picture")
    if brands[0] in _SOUND_BRANDS:
        return _SOUND
    return FileKind("QuickTime" if brands[0] == b"qt  " else "MP4", "video")


def _recognise_by_structure(head: bytes) -> FileKind | None:
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return FileKind("BMP", "picture")
    for start in (0, 4):  # camcorders put a time of four bytes before each packet
        step = _TS_PACKET_BYTES + start
        if len(head) > start + step and set(head[start::step]) == {_TS_SYNC}:
            return FileKind("MPEG-TS", "video")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return FileKind("SVG", "picture")
    if text.startswith((b"<!doctype html", b"<html")):
        return FileKind("web page", "other")
    is_text = bool(text) and not any(byte < 32 and byte not in b"\t\r\n" for byte in text)
    return FileKind("text file", "other") if is_text and _is_utf8(head) else None


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last letter may be cut
    except UnicodeDecodeError:
        return False
    return True
