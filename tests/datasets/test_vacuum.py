"""Left-overs of killed writers are deleted; nothing that a commit names, or will name, ever is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.shards import write_shard
from animaray.datasets.vacuum import unnamed_files, vacuum
from animaray.datasets.writers import writing

_KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from animaray.datasets.shards import write_shard
from animaray.datasets.writers import writing
root = Path(sys.argv[1])
with writing(root):
    write_shard(root, "sources", [{"input_id": "late", "state": "kept"}])
    print("written", flush=True)
    if len(sys.argv) > 2:
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def commit_one(root: Path, input_id: str) -> str:
    with writing(root):
        file = write_shard(root, "sources", [{"input_id": input_id, "state": "kept"}])
        CommitLog(root).commit([file], inputs=[input_id])
    return file.path


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    kept = [commit_one(tmp_path, "a"), commit_one(tmp_path, "b")]
    replaced = commit_one(tmp_path, "c")
    CommitLog(tmp_path).commit([], removed=[replaced], kind="merge")
    subprocess.run([sys.executable, "-c", _KILLED_WRITER, str(tmp_path)], check=False)  # noqa: S603
    half = [
        tmp_path / f"clips/.part-{'0' * 20}.parquet.0123abcd.tmp",
        tmp_path / "_commits/.00000005.0123abcd.tmp",
    ]
    others = [
        tmp_path / name
        for name in (
            "_acquired/a.parquet", "notes.txt", "report/a.png", "analysis/table.parquet",
            "clips/mine.parquet", "clips/.draft.0123abcd.tmp", f"mine/part-{'0' * 20}.parquet",
            "_commits/.swap.0123abcd.tmp",
        )
    ]  # fmt: skip
    for path in (*half, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / f"part-{'1' * 20}.parquet").write_bytes(b"theirs")
    (tmp_path / "media").symlink_to(outside)
    (tmp_path / f"clips/part-{'2' * 20}.parquet").symlink_to(tmp_path / "notes.txt")
    assert len(vacuum(tmp_path)) == 3
    assert (outside / f"part-{'1' * 20}.parquet").exists()
    assert (tmp_path / f"clips/part-{'2' * 20}.parquet").is_symlink()
    assert unnamed_files(tmp_path) == vacuum(tmp_path) == []
    assert all((tmp_path / path).exists() for path in (*kept, replaced, *others))
    assert not any(path.exists() for path in half)
    assert CommitLog(tmp_path).verify() == []


def test_nothing_is_swept_while_somebody_writes(tmp_path: Path) -> None:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _KILLED_WRITER, str(tmp_path), "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    assert len(unnamed_files(tmp_path)) == 1
    assert vacuum(tmp_path) == []
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(vacuum(tmp_path)) == 1
