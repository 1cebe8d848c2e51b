"""Videos that lie in an object store are inputs like those of a folder."""

from pathlib import Path

import pytest

from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.acquire.inputs import expand_sources
from animaray.platform.errors import ConfigError
from animaray.platform.stores import local_copy, open_store


def names(sources: list[str], tmp_path: Path) -> dict[str, str | None]:
    found = expand_sources(sources, tmp_path, AcquireConfig()).inputs
    return {item.uri: item.stored.path if item.stored else None for item in found}


def test_a_folder_an_object_and_a_list_name_objects(s3_folder: str, tmp_path: Path) -> None:
    store = open_store(s3_folder)
    for name in ("a.mp4", "deep/b.MOV", "deep/a.mp4", "notes.txt"):
        store.write(f"videos/{name}", name.encode())
    every = {name: f"{s3_folder}/videos/{name}" for name in ("a.mp4", "deep/a.mp4", "deep/b.MOV")}
    assert names([f"{s3_folder}/videos"], tmp_path) == every
    assert names([f"{s3_folder}/videos/"], tmp_path) == every
    one = f"{s3_folder}/videos/deep/a.mp4"
    assert names([one], tmp_path) == {"a.mp4": one}
    both = names([f"{s3_folder}/videos/a.mp4", one, one], tmp_path)
    assert both == {"a.mp4": every["a.mp4"], "deep/a.mp4": one}
    (tmp_path / "list.txt").write_text(f"# mine\n{one}\n")
    assert names([str(tmp_path / "list.txt")], tmp_path) == {"a.mp4": one}
    with local_copy(one, tmp_path / "copies") as copy:
        assert copy.read_bytes() == b"deep/a.mp4"
    assert list((tmp_path / "copies").iterdir()) == []


def test_nothing_at_an_address_is_told(s3_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing"):
        names([f"{s3_folder}/absent"], tmp_path)
    open_store(s3_folder).write("texts/a.txt", b"x")
    with pytest.raises(ConfigError, match="none of its 1 objects"):
        names([f"{s3_folder}/texts"], tmp_path)
    with pytest.raises(ConfigError, match="address of an object"):
        names(["s3://bucket"], tmp_path)
