"""The statement of origin in an mp4."""

import io
import struct

import av
import numpy as np
import pytest

from animaray.platform.errors import MediaError
from animaray.platform.media.video import encode_mp4
from animaray.platform.provenance import add_provenance
from tests.provenance import read_provenance

FACTS = {"model": "abc", "seed": 3, "note": 'quotes " and <tags> & ümlauts'}


@pytest.fixture(scope="module")
def mp4() -> bytes:
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[:, 8:16, 8:16] = 255
    return encode_mp4(frames, 8.0)


def test_facts_come_back_and_the_video_is_untouched(mp4: bytes) -> None:
    marked = add_provenance(mp4, "animaray 1", FACTS)
    assert marked.startswith(mp4)
    assert read_provenance(marked) == FACTS
    with av.open(io.BytesIO(marked)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_generated_media_is_declared_in_iptc_terms(mp4: bytes) -> None:
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in add_provenance(mp4, "animaray 1", {})


def test_unmarked_and_odd_files_have_no_statement(mp4: bytes) -> None:
    assert read_provenance(mp4) is None
    assert read_provenance(b"") is None
    assert read_provenance(struct.pack(">I4s", 4, b"ftyp") + bytes(8)) is None  # impossible size
    large = struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4)  # a box with a 64-bit size
    (first_box,) = struct.unpack_from(">I", mp4)
    assert read_provenance(add_provenance(mp4[:first_box] + large, "x", FACTS)) == FACTS


def test_other_files_are_not_marked() -> None:
    with pytest.raises(MediaError, match="Expected an mp4 file"):
        add_provenance(b"RIFF0000AVI LIST", "x", {})
