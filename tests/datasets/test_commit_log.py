"""The commit log: all or nothing, one winner per number, takedowns, tampering shows."""

import json
import os
import threading
from pathlib import Path

import pytest

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.platform.errors import DatasetError, DiskError
from animaray.platform.storage import sha256_file, write_bytes_atomic


def add_file(root: Path, name: str, data: bytes = b"data") -> CommittedFile:
    path = f"clips/{name}"
    write_bytes_atomic(root / path, data)
    return CommittedFile(
        table="clips",
        path=path,
        rows=1,
        size_bytes=len(data),
        sha256=sha256_file(root / path),
    )


def test_empty_folder_is_version_zero(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    assert log.head() == 0
    assert log.snapshot().files == ()


def test_files_count_only_once_committed(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    one, two = add_file(tmp_path, "one"), add_file(tmp_path, "two")
    log.commit([one], inputs=["a"])
    assert [file.path for file in log.snapshot().files] == ["clips/one"]
    log.commit([two], inputs=["b"])
    assert [file.path for file in log.snapshot().of_table("clips")] == ["clips/one", "clips/two"]
    assert [file.path for file in log.snapshot(1).files] == ["clips/one"]
    assert log.verify() == []


def test_removed_files_no_longer_count(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    log.commit([add_file(tmp_path, "old")])
    log.commit([add_file(tmp_path, "new")], removed=["clips/old"], kind="compact")
    assert [file.path for file in log.snapshot().files] == ["clips/new"]
    with pytest.raises(DatasetError, match="already replaced clips/old"):
        log.commit([], removed=["clips/old"])


def test_withdrawn_sources_add_up(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    log.withdraw(["s1"], "asked to")
    log.withdraw(["s2"], "asked to")
    assert log.snapshot().withdrawn == {"s1", "s2"}
    assert log.commits()[0].facts == {"reason": "asked to"}


def test_of_many_writers_none_is_lost(tmp_path: Path) -> None:
    files = [add_file(tmp_path, f"f{i}") for i in range(12)]

    def write(part: list[CommittedFile]) -> None:
        for file in part:
            CommitLog(tmp_path).commit([file], inputs=[file.path])

    threads = [threading.Thread(target=write, args=(files[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = CommitLog(tmp_path).snapshot()
    assert snapshot.version == 12
    assert {file.path for file in snapshot.files} == {file.path for file in files}


def test_verify_names_missing_and_changed_files(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    log.commit([add_file(tmp_path, "gone"), add_file(tmp_path, "bent"), add_file(tmp_path, "cut")])
    (tmp_path / "clips/gone").unlink()
    (tmp_path / "clips/bent").write_bytes(b"dat!")
    (tmp_path / "clips/cut").write_bytes(b"d")
    assert log.verify() == [
        "clips/gone: missing",
        "clips/bent: checksum differs",
        "clips/cut: 1 bytes, not 4",
    ]


def test_changed_history_is_refused(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    log.commit([], inputs=["a"])
    log.commit([], inputs=["b"])
    first = tmp_path / "_commits/00000001.json"
    entry = json.loads(first.read_text())
    first.write_text(json.dumps({**entry, "inputs": ["z"]}))
    with pytest.raises(DatasetError, match="follows another history"):
        log.snapshot()
    first.write_text("{ torn")
    with pytest.raises(DatasetError, match="missing or damaged"):
        log.snapshot()
    first.unlink()
    with pytest.raises(DatasetError, match="missing or damaged"):
        log.snapshot()


def test_data_is_synced_before_its_entry_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        order.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        order.append(f"link {Path(target).name}")
        real_link(source, target)

    file = add_file(tmp_path, "one")
    (tmp_path / "_commits").mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    CommitLog(tmp_path).commit([file])
    kinds = [step if "tmp" not in step else "sync entry" for step in order]
    assert kinds == ["sync clips", "sync entry", "link 00000001.json", "sync _commits"]


def test_crash_between_entry_and_link_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise OSError(28, "No space left on device")

    log = CommitLog(tmp_path)
    monkeypatch.setattr(os, "link", die)
    with pytest.raises(DiskError, match="no room left"):
        log.commit([add_file(tmp_path, "one")])
    monkeypatch.undo()
    assert log.head() == 0
    log.commit([add_file(tmp_path, "one")])
    assert log.head() == 1
