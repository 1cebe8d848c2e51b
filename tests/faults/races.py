"""Let writers race for the numbers of a commit log on a real S3 server that is killed meanwhile.

    python -m tests.faults.races --rounds 1000 --kills 10 --out report.json

In each round some writers put an entry of the same number at the same moment: one is told that it
won, and its bytes are there. Then writers commit while the server is killed and started again:
every commit that was acknowledged is there, at its number, and no other one.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from animaray.datasets.commit_history import History, entry_path
from animaray.datasets.commit_log import Commit, CommitLog
from animaray.platform.json_text import json_text
from animaray.platform.storage import write_json_atomic
from animaray.platform.stores import open_store
from tests.faults.s3_server import S3Server

_DOWN_S = 1.0


def race_for_numbers(address: str, *, rounds: int, writers: int = 4) -> list[str]:
    """Let writers race for one number after the other; return what is wrong."""
    # Each writer has connections of its own, as a process has.
    stores = [open_store(address) for _ in range(writers)]
    start = threading.Barrier(writers)
    problems: list[str] = []

    def put(writer: int, number: int) -> bool:
        start.wait()
        return stores[writer].write_if_absent(entry_path(number), _bytes(writer, number))

    with ThreadPoolExecutor(writers) as pool:
        for number in range(1, rounds + 1):
            won = list(pool.map(put, range(writers), [number] * writers))
            there = stores[0].read(entry_path(number))
            if sum(won) != 1:
                problems.append(f"number {number} has {sum(won)} winners")
            elif there != _bytes(won.index(True), number):
                problems.append(f"number {number} holds the bytes of a loser")
    return problems


def _bytes(writer: int, number: int) -> bytes:
    return f"entry {number} of writer {writer}".encode()


def commit_while_killed(
    server: S3Server, address: str, *, kills: int, commits: int, writers: int = 3
) -> dict[str, Any]:
    """Commit from several writers while the server is killed and started again.

    Args:
        server: A running server; it runs again in the end.
        address: Of a new dataset there.
        kills: How often it is killed, while commits are under way.
        commits: By each writer between two kills, at least.
        writers: How many commit at once.

    Returns:
        Number of acknowledged commits, and problems.
    """
    acknowledged: list[Commit] = []
    is_over = threading.Event()

    def write(writer: int) -> None:
        # What one process knows of the log does not help another.
        log = CommitLog(address)
        log._history = History(open_store(address))
        number = 0
        while not is_over.is_set():
            acknowledged.append(log.commit(inputs=[f"{writer}-{number}"]))
            number += 1

    with ThreadPoolExecutor(writers) as pool:
        running = [pool.submit(write, writer) for writer in range(writers)]
        try:
            for _ in range(kills):
                _wait_for(acknowledged, len(acknowledged) + commits * writers)
                server.kill()
                time.sleep(_DOWN_S)
                server.start()
            _wait_for(acknowledged, len(acknowledged) + commits * writers)
        finally:
            is_over.set()
        for each in running:
            each.result()
    entries = History(open_store(address)).entries()
    told = sorted(acknowledged, key=lambda commit: commit.version)
    problems = [] if entries == told else _differences(entries, told)
    return {"acknowledged": len(told), "kills": kills, "problems": problems}


def _differences(entries: Sequence[Commit], told: Sequence[Commit]) -> list[str]:
    there = {commit.version: commit for commit in entries}
    lost = [f"lost: {each.version}" for each in told if there.get(each.version) != each]
    versions = {commit.version for commit in told}
    return lost + [f"nobody was told: {number}" for number in there if number not in versions]


def _wait_for(acknowledged: Sequence[Commit], number: int, patience_s: float = 180.0) -> None:
    deadline = time.monotonic() + patience_s
    while len(acknowledged) < number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(acknowledged)} of {number} commits after {patience_s} s")
        time.sleep(0.05)


def main() -> int:
    """Run both; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--commits", type=int, default=20, help="Of each writer between two kills")
    parser.add_argument("--out", type=Path, default=Path("races.json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        server.start()
        try:
            with mock.patch.dict("os.environ", server.environment):
                bucket = server.make_bucket("races")
                problems = race_for_numbers(f"{bucket}/numbers", rounds=arguments.rounds)
                killed = commit_while_killed(
                    server, f"{bucket}/log", kills=arguments.kills, commits=arguments.commits
                )
        finally:
            server.kill()
    report = {
        "rounds": arguments.rounds, "problems": problems, "killed": killed,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    write_json_atomic(arguments.out, report)
    print(json_text(report, indent=2))
    return 1 if problems or killed["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
