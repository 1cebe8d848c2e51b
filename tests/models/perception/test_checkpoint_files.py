import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from animaray.models.perception.checkpoint_files import (
    fill_network,
    load_state,
    open_state,
    require_shapes,
)
from animaray.platform.errors import WeightsError


class Bomb:
    """What a hostile file holds: unpickling it runs a command."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_with_code_are_refused_and_nothing_runs(tmp_path, form):
    file, canary = tmp_path / "unet.pth", tmp_path / "canary"
    content = {"weight": torch.zeros(2), "more": Bomb(canary)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    message = "is refused: it holds code" if form == "zip" else "Nothing of it was run"
    for read in (load_state, open_state):
        with pytest.raises(WeightsError, match=message) as caught:
            read(file)
        assert "\n" not in str(caught.value)
    assert not canary.exists()
    if form == "zip":
        assert caught.value.reason == "code"
        assert "(posix.system)" in str(caught.value)


def test_whole_networks_are_refused_by_name(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"holds code \(torch\.nn\.modules\.linear\.Linear\)"):
        open_state(tmp_path / "net.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_state_dicts_are_read(tmp_path, legacy):
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        found = open_state(tmp_path / name)
        assert set(found) == set(state)
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_damaged_and_nested_files_are_named(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-50])
    (tmp_path / "cut.safetensors").write_bytes(b"0123456789")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "a": torch.zeros(1)}, tmp_path / "nested.pth")
    for name in ("cut.pth", "cut.safetensors", "absent.pth"):
        with pytest.raises(WeightsError, match="cannot be read") as caught:
            open_state(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="not a flat state dict: state_dict hold no tensor"):
        open_state(tmp_path / "nested.pth")


def test_mismatch_names_every_kind_of_problem():
    expected = {"a": (2, 3), "b": (1,), "c": (), "d": (4,)}
    found = {"a": (3, 2), "c": (), "x": (1,), "y": (1,), "z": (1,), "w": (1,), "old": (1,)}
    with pytest.raises(
        WeightsError,
        match=r"f\.pth do not fit: 2 missing: b, d; 4 unexpected: x, y, z and 1 more; "
        r"1 of another shape: a \(3x2 instead of 2x3\)\.",
    ):
        require_shapes(found, expected, "The weights of f.pth", may_be_there={"old"})
    require_shapes(expected, expected, "anything")


def test_network_is_filled_only_by_its_own_state():
    network = nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.ones(3).half()}
    fill_network(network, state | {"note": torch.ones(1)}, "w", may_be_there={"note"})
    assert network.bias.tolist() == [1, 1, 1]
    with pytest.raises(WeightsError, match="1 missing: bias"):
        fill_network(network, {"weight": torch.ones(3, 2)}, "w")
