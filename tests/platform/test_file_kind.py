import pytest

from animaray.platform.media.file_kind import VIDEO_FORMATS, is_video, recognise


@pytest.mark.parametrize(
    ("head", "described"),
    [
        (b"The free lunch, and what became of it", "a text file"),
        (b"G" + b"o" * 187 + b"G" + b"o" * 187 + b"x" * 100, "a text file"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42", "a sound file"),
        (b"OggS" + bytes(24) + b"\1vorbis" + bytes(40), "a sound file"),
        (b"OggS" + bytes(24) + b"\x80theora" + bytes(40), "an Ogg video"),
        (b"\0\0\1\xba" + bytes(40), "an MPEG video"),
        (b"\0\0\0\x08wide\0\0\1\0mdat", "a QuickTime video"),
        (bytes([0x47, *bytes(187)]) * 3, "an MPEG-TS video"),
    ],
)
def test_first_bytes_tell_videos_from_sound_and_text(tmp_path, head, described):
    kind = recognise(head)
    assert kind is not None
    assert kind.described == described
    nameless = tmp_path / "nameless"
    nameless.write_bytes(head)
    assert is_video(nameless) == (kind.family == "video") == (kind.name in VIDEO_FORMATS)


def test_a_name_is_believed(tmp_path):
    named = tmp_path / "clip.MTS"
    named.write_bytes(b"The free lunch")
    assert is_video(named)
    assert not is_video(tmp_path / "gone")
