"""Who may write into a dataset of an object store: leases, fences, and what is swept."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from animaray.datasets import commit_history, writers
from animaray.datasets.commit_log import FENCE, CommitLog
from animaray.datasets.compaction import compact, merge_small_files
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shards import write_shard
from animaray.datasets.vacuum import unnamed_files, vacuum
from animaray.datasets.writers import WRITERS_DIR, writing
from animaray.platform.errors import DatasetError
from animaray.platform.stores import RemoteStore, open_store
from tests.faults.races import commit_while_killed, race_for_numbers
from tests.faults.s3_server import S3Server

_OTHER_WRITER = """
import sys
from animaray.datasets import commit_history, writers
from animaray.datasets.commit_log import CommitLog
from animaray.datasets.shards import write_shard
from animaray.platform.errors import DatasetError
writers._HEARTBEAT_S = 0.3
address = sys.argv[1]
with writers.writing(address, exclusive=True) as writer:
    row = {"input_id": "late", "uri": "late.mp4", "state": "kept"}
    file = write_shard(address, "sources", [row], token=writer.token)
    print("written", flush=True)
    sys.stdin.readline()
    try:
        CommitLog(address, writer).commit([file], inputs=["late"])
    except DatasetError as error:
        print(error.reason, flush=True)
"""


@pytest.fixture(autouse=True)
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "LEASE_S", 2.0)
    monkeypatch.setattr(writers, "_HEARTBEAT_S", 0.3)


@pytest.fixture
def other(s3_folder: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _OTHER_WRITER, s3_folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def newly_opened(address: str) -> CommitLog:
    """Return the log as a process sees it that has not read it before."""
    commit_history._HISTORIES.clear()
    return CommitLog(address)


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd").to_pybytes()


def commit_one(address: str, input_id: str) -> str:
    with writing(address) as writer:
        row = {"input_id": input_id, "uri": f"{input_id}.mp4", "state": "kept"}
        file = write_shard(address, "sources", [row], token=writer.token)
        CommitLog(address, writer).commit([file], inputs=[input_id])
    return file.path


def test_the_only_writer_is_alone_and_its_files_are_not_swept(
    s3_folder: str, other: subprocess.Popen[bytes]
) -> None:
    with (
        pytest.raises(DatasetError, match=rf"Process {other.pid} of .* is curating") as found,
        writing(s3_folder, exclusive=True),
    ):
        raise AssertionError
    assert found.value.reason == "locked"
    assert vacuum(s3_folder) == []
    assert len(unnamed_files(s3_folder)) == 1
    commit_one(s3_folder, "beside")  # others that write may do so meanwhile
    assert other.communicate(b"\n")[0] == b""
    assert [e.inputs for e in CommitLog(s3_folder).commits()] == [("beside",), ("late",)]
    assert not list(open_store(s3_folder).files(WRITERS_DIR))


def test_a_writer_that_slept_past_its_lease_cannot_commit(
    s3_folder: str, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(other.pid, signal.SIGSTOP)
    # Its last sign of life ages by the store's clock, whose ticks are whole seconds.
    monkeypatch.setattr(writers, "_FIRST_TRIES", 30)
    with writing(s3_folder, exclusive=True) as writer:
        os.kill(other.pid, signal.SIGCONT)
        assert other.communicate(b"\n")[0] == b"fenced\n"
        file = write_shard(
            s3_folder, "sources", [{"input_id": "a", "state": "kept"}], token=writer.token
        )
        CommitLog(s3_folder, writer).commit([file], inputs=["a"])
    kinds = [entry.kind for entry in CommitLog(s3_folder).commits()]
    assert kinds == [FENCE, "append"]
    assert len(vacuum(s3_folder)) == 1
    assert CommitLog(s3_folder).verify() == []


def test_what_a_killed_writer_left_is_swept_when_its_lease_has_run_out(
    s3_folder: str, other: subprocess.Popen[bytes]
) -> None:
    kept = commit_one(s3_folder, "a")
    other.kill()
    other.wait()
    swept: list[str] = []
    while not swept:
        swept = vacuum(s3_folder)
    assert len(swept) == 1
    assert [file.path for file in CommitLog(s3_folder).snapshot().files] == [kept]
    assert CommitLog(s3_folder).verify() == []


def test_a_dataset_in_a_store_is_withdrawn_compacted_and_merged(
    s3_folder: str, tmp_path: Path
) -> None:
    for number in range(3):
        row = {
            "input_id": f"in{number}", "source_id": f"src{number}", "uri": f"{number}.mp4",
            "state": "kept",
        }  # fmt: skip
        for address in (s3_folder, str(tmp_path)):
            with writing(address) as writer:
                file = write_shard(address, "sources", [row], token=writer.token)
                CommitLog(address, writer).commit([file], inputs=[row["input_id"]])
    for address in (s3_folder, str(tmp_path)):
        CommitLog(address).withdraw(["src1"], "asked to")
        compact(address)
        merge_small_files(address, min_files=2)
        assert CommitLog(address).verify() == []
    ours, local = CurationDataset.open(s3_folder), CurationDataset.open(tmp_path)
    assert ours.sources() == local.sources()
    assert [row["source_id"] for row in ours.sources()] == ["src0", "src2"]
    assert ours.snapshot.version == local.snapshot.version


def test_a_changed_or_missing_entry_is_refused(s3_folder: str) -> None:
    commit_one(s3_folder, "a")
    commit_one(s3_folder, "b")
    store = open_store(s3_folder)
    first = store.read("_commits/00000001.json")
    store.write("_commits/00000001.json", first.replace(b'"a"', b'"z"'))
    with pytest.raises(DatasetError, match="follows another history"):
        newly_opened(s3_folder).snapshot()
    store.remove("_commits/00000001.json", "a test")
    with pytest.raises(DatasetError, match="missing or damaged"):
        newly_opened(s3_folder).snapshot()


def test_a_checkpoint_saves_requests_and_nothing_in_it_is_trusted(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_history, "CHECKPOINT_ENTRIES", 3)
    for number in range(7):
        CommitLog(s3_folder).withdraw([f"s{number}"], "asked to")
    store = open_store(s3_folder)
    path = "_commits/checkpoint-00000003.zst"
    good, second = store.read(path), store.read("_commits/checkpoint-00000006.zst")
    asked: list[str] = []
    real = RemoteStore.read
    monkeypatch.setattr(
        RemoteStore, "read", lambda self, path: asked.append(path) or real(self, path)
    )
    snapshot = newly_opened(s3_folder).snapshot()
    assert snapshot.withdrawn == {f"s{number}" for number in range(7)}
    assert sum(name.endswith(".json") for name in asked) == 2  # what follows, and the last in them
    CommitLog(s3_folder).withdraw(["s7"], "asked to")
    for bad in (second, good[:-9], b"", zstd(b'["{}"]')):
        store.write(path, bad)
        assert newly_opened(s3_folder).snapshot().entries[:7] == snapshot.entries
        assert newly_opened(s3_folder).head() == 8
    store.write(path, good)
    entry = store.read("_commits/00000006.json")
    store.write("_commits/00000006.json", entry.replace(b"s5", b"s9"))
    with pytest.raises(DatasetError, match="follows another history"):
        newly_opened(s3_folder).snapshot()


def test_a_log_that_was_replaced_is_read_anew(s3_folder: str) -> None:
    for address in (s3_folder, f"{s3_folder}/other"):
        commit_one(address, "a")
        commit_one(address, "b")
    store = open_store(s3_folder)
    ours = CommitLog(s3_folder).commits()
    for number in (1, 2):
        name = f"_commits/{number:08d}.json"
        store.write(name, store.read(f"other/{name}") + b" " * number)
    with pytest.raises(DatasetError, match="follows another history"):
        CommitLog(s3_folder).commits()
    store.write("_commits/00000001.json", store.read("other/_commits/00000001.json"))
    assert CommitLog(s3_folder).commits()[0] != ours[0]


def test_every_number_has_one_winner(s3_folder: str) -> None:
    assert race_for_numbers(s3_folder, rounds=20) == []


def test_commits_outlive_the_server(s3_server: S3Server, s3_folder: str) -> None:
    found = commit_while_killed(s3_server, s3_folder, kills=1, commits=3)
    assert found["problems"] == []
    assert found["acknowledged"] >= 18
