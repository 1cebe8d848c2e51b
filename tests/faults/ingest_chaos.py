"""Kill acquisition at random points and hold it to its promises against a misbehaving server.

    python -m tests.faults.ingest_chaos --kills 50 --out /tmp/ingest_chaos

A server of this machine (own process, loopback only) serves `--ids` files and misbehaves on three
more ports: one answers 429 with Retry-After now and then, one always 403, one never answers. A
child fetches everything and is ended with SIGKILL at a random point of its work, again and again;
then one run goes to its end and one more follows. Checked:

- nothing is lost: every id ends fetched, with the right bytes, exactly one file each;
- nothing is fetched twice: no id is asked for after its file was complete;
- the rate holds over all runs together, kills or not;
- 429 is obeyed: it is noted, and nothing arrives before the noted time, in this run or a later one;
- 403 opens the breaker, and what hangs is given up, in every single run.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.acquire.fetch import Fetcher
from animaray.platform.json_text import json_text
from animaray.platform.storage import content_id

KINDS = ("good", "limited", "forbidden", "hanging")
RETRY_AFTER_S = 2
SLACK_S = 0.5
"""A request may be under way for this long on a busy machine."""
CONFIG = AcquireConfig(
    allow_private_hosts=True,
    host_rate_per_hour=3600.0 * 60,
    burst=10,
    num_parallel=4,
    backoff_s=0.02,
    read_timeout_s=1.5,
    item_timeout_s=20.0,
    max_attempts=2,
    max_wait_s=2.0 * RETRY_AFTER_S,
    max_consecutive_blocks=3,
)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the server's log."""

    time_s: float
    kind: str
    path: str
    what: str
    """asked, then ok, 429, 403 or nothing."""


def body_of(path: str) -> bytes:
    """Return the bytes of an address: its own, so that a mix-up shows."""
    seed = hashlib.sha256(path.encode()).digest()
    return seed * (600 + seed[0] * 8)


class _Handler(BaseHTTPRequestHandler):
    """Serve one port; `kind`, `log` and `lock` are set on a subclass."""

    kind: str
    log: Any
    lock: Lock
    refuse_until = 0.0
    asked = 0

    def do_GET(self) -> None:
        """Answer as this port does."""
        self._note("asked")
        if self.kind == "hanging":
            time.sleep(4.0)
            self.close_connection = True
        elif self.kind == "forbidden":
            self._refuse(403, {})
        elif self.kind == "limited" and self._is_too_much():
            self._refuse(429, {"Retry-After": str(RETRY_AFTER_S)})
        else:
            self._serve()

    def _is_too_much(self) -> bool:
        kind = type(self)
        with self.lock:
            kind.asked += 1
            return kind.asked % 12 == 5

    def _refuse(self, code: int, headers: dict[str, str]) -> None:
        self._note(str(code))
        self.send_response(code)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _serve(self) -> None:
        data, start = body_of(self.path), 0
        wanted = self.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        for place in range(start, len(data), 8192):  # in pieces, so that kills hit half a file
            self.wfile.write(data[place : place + 8192])
            self.wfile.flush()
            time.sleep(0.002)
        self._note("ok")

    def _note(self, what: str) -> None:
        line = f"{time.time()} {self.kind} {self.path} {what}\n".encode()
        with self.lock:
            self.log.write(line)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(log: Path) -> None:
    """Serve all kinds on ports of their own, print the ports, never return."""
    ports = {}
    lock = Lock()
    with log.open("ab", buffering=0) as file:
        for kind in KINDS:
            names = {"kind": kind, "log": file, "lock": lock}
            server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (_Handler,), names))
            server.handle_error = lambda *_: None  # type: ignore[method-assign]
            ports[kind] = server.server_address[1]
            Thread(target=server.serve_forever, daemon=True).start()
        print(json_text(ports), flush=True)
        sys.stdin.read()  # until the parent is gone


def fetch_all(urls: Sequence[str], folder: Path) -> dict[str, str]:
    """Fetch in this process; return how each address ended.

    Raises:
        RuntimeError: One ended twice.
    """
    items = [item for batch in Fetcher(urls, folder, CONFIG).stream() for item in batch]
    if len({item.url for item in items}) != len(items):
        raise RuntimeError("an address ended twice")
    return {item.url: item.state for item in items}


class Rig:
    """Server, log and folder of one experiment."""

    def __init__(self, out: Path, num_ids: int, seed: int) -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        self.folder, self._log = out / "acquired", out / "server.log"
        self._random = random.Random(seed)  # noqa: S311 - kill points, no secret
        self._server = subprocess.Popen(  # noqa: S603 - this file
            [sys.executable, "-m", "tests.faults.ingest_chaos", "--serve", str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        ports = json.loads(self._server.stdout.readline())
        sizes = {"good": num_ids, "limited": num_ids // 4, "forbidden": 12, "hanging": 4}
        self.urls = {
            kind: [f"http://127.0.0.1:{ports[kind]}/{kind}-{n}.mp4" for n in range(size)]
            for kind, size in sizes.items()
        }
        self.all_urls = [url for kind in KINDS for url in self.urls[kind]]
        self._random.shuffle(self.all_urls)
        self.problems: list[str] = []
        self.waits: set[float] = set()
        """Times of day before which the ledger said, after some run, that nobody may ask."""
        self._limited = f"file:127.0.0.1:{ports['limited']}"

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def events(self) -> list[Event]:
        """Return what the server has seen, in order of time."""
        found = []
        for line in self._log.read_text().splitlines():
            moment, kind, path, what = line.split(" ")
            found.append(Event(float(moment), kind, path, what))
        return sorted(found, key=lambda event: event.time_s)

    def complete(self) -> set[str]:
        """Return paths of addresses whose files are complete under their final names."""
        ids = {path.name.partition(".")[0] for path in (self.folder / "files").glob("*.mp4")}
        return {
            "/" + url.rpartition("/")[2]
            for url in self.all_urls
            if content_id("remote", url) in ids
        }

    def note_waits(self, started_s: float, ended_s: float) -> None:
        """Look up which wait a run that has ended left behind; a kill may come before the note."""
        with sqlite3.connect(self.folder / "ledger.sqlite") as database:
            row = database.execute(
                "SELECT blocked_until FROM pace WHERE platform = ?", (self._limited,)
            ).fetchone()
        if row is not None and row[0] > 0:
            self.waits.add(row[0])
        answers = [e for e in self.events() if e.what == "429" and started_s < e.time_s]
        if answers and answers[-1].time_s < ended_s - SLACK_S:
            is_noted = row is not None and row[0] >= answers[-1].time_s + RETRY_AFTER_S - 0.1
            self.expect(is_noted, "a 429 was not noted")

    def run_and_kill(self) -> tuple[int, set[str]]:
        """Start a child, kill it at a random point; return requests seen and what is complete."""
        before, started_s = len(self.events()), time.time()
        wanted = before + self._random.randint(1, 30)
        delay_s = self._random.uniform(0.0, 0.05)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                fetch_all(self.all_urls, self.folder)
                code = 0
            finally:
                os._exit(code)
        deadline = time.monotonic() + 30
        while len(self.events()) < wanted and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.expect(status == 0, "a run ended with an error")
                self.note_waits(started_s, time.time())
                return len(self.events()) - before, self.complete()
            time.sleep(0.002)
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.note_waits(started_s, time.time())
        return len(self.events()) - before, self.complete()

    def expect(self, holds: bool, promise: str) -> None:
        """Note a broken promise."""
        if not holds and promise not in self.problems:
            self.problems.append(promise)


def check_run(rig: Rig, events: Sequence[Event], done_before: set[str]) -> None:
    """Check one run's requests."""
    asked = [event for event in events if event.what == "asked"]
    twice = {event.path for event in asked} & done_before
    rig.expect(not twice, f"asked again for complete {sorted(twice)[:3]}")
    per_kind = Counter(event.kind for event in asked)
    most = CONFIG.max_consecutive_blocks + CONFIG.num_parallel - 1
    rig.expect(per_kind["forbidden"] <= most, f"{per_kind['forbidden']} requests in spite of 403")
    tries = Counter(event.path for event in asked if event.kind == "hanging")
    most_tries = max(tries.values(), default=0)
    rig.expect(most_tries <= CONFIG.max_attempts, f"{most_tries} requests for what hangs")


def check_waits(rig: Rig, events: Sequence[Event]) -> float:
    """Check that no request comes before a noted time; return the shortest wait seen, seconds."""
    shortest = float("inf")
    asked = [e.time_s for e in events if e.kind == "limited" and e.what == "asked"]
    for until in rig.waits:
        noted_s = until - RETRY_AFTER_S
        # Requests that were on their way when the answer came do not count.
        later = [moment - noted_s for moment in asked if moment > noted_s + SLACK_S]
        shortest = min([shortest, *later])
    rig.expect(shortest >= RETRY_AFTER_S - 0.05, f"asked {shortest:.2f} s after a noted 429")
    return shortest


def check_rate(rig: Rig, events: Sequence[Event]) -> float:
    """Check the rate over all runs; return the most requests beyond what had come in as tokens."""
    rate = CONFIG.host_rate_per_hour / 3600
    times = [event.time_s for event in events if event.kind == "good" and event.what == "asked"]
    # The fullest window ends where requests minus tokens is largest over its own earlier minimum.
    low, worst = 0.0, 0.0
    for count, moment in enumerate(times, 1):
        # Requests less tokens since the first request, and the least of it before any request.
        excess = count - rate * (moment - times[0])
        low = min(low, excess - 1)
        worst = max(worst, excess - low)
    rig.expect(worst <= CONFIG.burst + CONFIG.num_parallel, f"{worst:.1f} requests in one burst")
    return worst


def check_end(rig: Rig, states: dict[str, str]) -> None:
    """Check how every address ended, and the files."""
    ends = {"good": "fetched", "limited": "fetched", "hanging": "failed"}
    for kind, state in ends.items():
        wrong = {url: states.get(url) for url in rig.urls[kind] if states.get(url) != state}
        rig.expect(not wrong, f"{len(wrong)} of {kind} are not {state}: {list(wrong.items())[:2]}")
    refused = {states[url] for url in rig.urls["forbidden"]}
    rig.expect(refused <= {"blocked", "queued"}, f"forbidden ended as {refused}")
    files = sorted((rig.folder / "files").glob("*.mp4"))
    wanted = [*rig.urls["good"], *rig.urls["limited"]]
    rig.expect(len(files) == len(wanted), f"{len(files)} files for {len(wanted)} ids")
    for url in wanted:
        path = rig.folder / "files" / f"{content_id('remote', url)}.mp4"
        right = path.is_file() and path.read_bytes() == body_of("/" + url.rpartition("/")[2])
        rig.expect(right, f"{url} has other bytes")


def main() -> int:
    """Print one JSON object; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ids", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("ingest_chaos"))
    parser.add_argument("--serve", type=Path, help="be the server, logging to this file")
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return 0
    rig = Rig(arguments.out, arguments.ids, arguments.seed)
    try:
        done: set[str] = set()
        kills, half_files = 0, 0
        for _ in range(arguments.kills):
            requests, complete = rig.run_and_kill()
            # A request may reach the log a moment after the kill.
            time.sleep(0.02)
            check_run(rig, rig.events()[-requests:] if requests else [], done)
            kills += 1
            half_files += len(list((rig.folder / "work").glob("*/video.part")))
            done = complete
        before, before_last, started_s = len(rig.events()), len(done), time.time()
        states = fetch_all(rig.all_urls, rig.folder)
        rig.note_waits(started_s, time.time())
        wanted = [*rig.urls["good"], *rig.urls["limited"]]
        for _ in range(5):  # what timed out on a busy machine is the next run's business
            if all(states[url] == "fetched" for url in wanted):
                break
            time.sleep(RETRY_AFTER_S)
            states = fetch_all(rig.all_urls, rig.folder)
        check_end(rig, states)
        finished, done = len(rig.events()), rig.complete()
        fetch_all(rig.all_urls, rig.folder)
        check_run(rig, rig.events()[finished:], done)
        events = rig.events()
        result = {
            "kills": kills,
            "ids": len(rig.all_urls),
            "complete_before_the_last_run": before_last,
            "half_files_found_after_kills": half_files,
            "requests": sum(event.what == "asked" for event in events),
            "requests_of_the_last_run": sum(
                event.what == "asked" for event in events[before:finished]
            ),
            "fullest_burst": round(check_rate(rig, events), 1),
            "waits_noted": len(rig.waits),
            "shortest_wait_after_noted_429_s": round(check_waits(rig, events), 2),
            "answers": Counter(event.what for event in events if event.what != "asked"),
            "states": Counter(states.values()),
            "broken_promises": rig.problems,
        }
    finally:
        rig.close()
    print(json_text(result, indent=1))
    return int(bool(rig.problems))


if __name__ == "__main__":
    sys.exit(main())
