"""Files of one's own replace registered ones where their owner says so, and are checked."""

import hashlib

import pytest

from animaray.platform.errors import WeightsError
from animaray.platform.weights.own import OWN_WEIGHTS_FILE, OwnFile, write_own_weights
from animaray.platform.weights.store import resolve_weights, verify_weights, weights_state

CONTENT = b"my own network"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "yolox_l.onnx").write_bytes(CONTENT)
    return tmp_path


def test_another_size_is_refused_unless_its_owner_says_so(folder):
    with pytest.raises(WeightsError, match="has 14 bytes, expected 216,746,733"):
        resolve_weights("paper/person_detector")
    write_own_weights(folder, {"paper/person_detector": OwnFile(note="mine")})
    assert resolve_weights("paper/person_detector") == folder / "yolox_l.onnx"
    assert verify_weights("paper/person_detector") == folder / "yolox_l.onnx"
    state = weights_state("paper/person_detector")
    assert state.entry.purpose.endswith("here a file of your own: mine")
    assert not state.entry.is_confirmed
    assert "your own" not in weights_state("paper/pose").entry.purpose


def test_what_the_owner_states_is_checked(folder):
    right = hashlib.sha256(CONTENT).hexdigest()
    for stated, message in (
        (OwnFile(note="mine", size_bytes=15), "has 14 bytes, expected 15"),
        (OwnFile(note="mine", sha256="0" * 64), "has SHA-256"),
    ):
        write_own_weights(folder, {"paper/person_detector": stated})
        with pytest.raises(WeightsError, match=message):
            verify_weights("paper/person_detector")
    own = OwnFile(note="mine", size_bytes=14, sha256=right)
    write_own_weights(folder, {"paper/person_detector": own})
    verify_weights("paper/person_detector")


def test_files_elsewhere_keep_their_registered_size(folder):
    write_own_weights(folder, {"paper/pose": OwnFile(note="mine")})
    cached = folder / "cache" / "weights"
    cached.mkdir(parents=True)
    (cached / "dw-ll_ucoco_384.onnx").write_bytes(CONTENT)
    # ... also where the cache lies inside the folder.
    assert weights_state("paper/pose").state == "size"


@pytest.mark.parametrize("text", ["[]", "{", '{"paper/person_detector": {"size": 1}}'])
def test_a_file_of_another_form_is_named(folder, text):
    (folder / OWN_WEIGHTS_FILE).write_text(text)
    with pytest.raises(WeightsError, match=r"own_weights\.json cannot be used") as caught:
        resolve_weights("paper/person_detector")
    assert '"note": "what it is"' in caught.value.fix
