"""What a curation of so many videos needs: hours, bytes, requests, and which of them is the bound.

    python -m benchmarks.scale.plan --videos 100000 --hours 8000 --keep 0.2 \
        --cpu-nodes 16 --gpu-nodes 4

Multiplies what was measured for one hour of footage, one clip and one commit (`Costs`; where each
figure comes from stands in docs/scale.md) and divides by what the nodes of cluster.yaml offer.
Nothing runs. `--check RESULT` takes what benchmarks/scale/simulation.py printed and compares the
driver's predicted time with the measured one; exits 1 when they are more than a third apart.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What was measured; each may be another one on other footage or machines."""

    read_cpu_s: float = 183.0
    """CPU seconds for hashing, probing and shots, of an hour of footage."""
    look_cpu_s: float = 1650.0
    """CPU seconds of all measurements, of an hour of footage that is looked at."""
    store_cpu_s: float = 890.0
    """CPU seconds of cutting, encoding and previews, of an hour of footage that is stored."""
    download_mbit: float = 2.0
    """Mean rate of the sources, megabits a second of footage."""
    stored_mbit: float = 1.3
    """Mean rate of stored clips, megabits a second of footage."""
    rows_bytes_of_clip: float = 30_000.0
    """Previews, tracks and rows of a clip, bytes."""
    driver_ms_of_clip: float = 4.7
    """Of the driver, per clip, milliseconds of one CPU."""
    commit_ms: float = 60.0
    """A commit beside its clips, milliseconds of the driver."""
    puts_of_commit: float = 11.0
    """Objects written for a commit: its files and its entry."""
    gets_of_commit: float = 4.0
    """Requests that read or list, for a commit."""
    footage_bytes_of_second: float = 140.0
    """What the driver remembers of a second of footage, to know it again."""
    frame_tflop: float = 2.609
    """The autoencoder for one frame of 576x1024, counted (benchmarks.costs.tables)."""
    frames_of_second: float = 8.0
    """Training frame rate."""
    passes_of_frame: float = 2.0
    """Each frame is encoded without and with noise on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What there is to curate."""

    videos: int
    hours: float
    keep: float = 0.2
    """Share of the footage that a policy keeps, which is what is stored and encoded."""
    looked_at: float = 0.8
    """Share of the footage that reaches the costly networks."""
    clips_of_hour: float = 600.0
    sources_of_commit: float = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """Nodes as cluster.yaml has them."""

    cpu_nodes: int = 16
    cpus_of_node: int = 32
    gpu_nodes: int = 4
    gpu_tflops: float = 9.4
    """What one GPU does in float32: a third of the 31 that an A10G names."""
    network_gbit: float = 12.5
    """Of a CPU node."""
    internet_mbit: float = 1000.0
    """At which all nodes together may download."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What the object store asks for, in money of any kind."""

    puts_of_thousand: float = 0.005
    gets_of_thousand: float = 0.0004
    gigabyte_month: float = 0.023


def amounts(job: Job, costs: Costs) -> dict[str, float]:
    """Return what a job needs: CPU and GPU hours, gigabytes, requests."""
    clips = job.hours * job.clips_of_hour
    commits = job.videos / job.sources_of_commit
    gigabytes_of_mbit = HOUR_S / 8 / 1000
    kept_hours = job.hours * job.keep
    frames = kept_hours * HOUR_S * costs.frames_of_second * costs.passes_of_frame
    return {
        "clips": clips,
        "commits": commits,
        "read, CPU h": job.hours * costs.read_cpu_s / HOUR_S,
        "look, CPU h": job.hours * job.looked_at * costs.look_cpu_s / HOUR_S,
        "store, CPU h": kept_hours * costs.store_cpu_s / HOUR_S,
        "driver, CPU h": (clips * costs.driver_ms_of_clip + commits * costs.commit_ms) / 3.6e6,
        "driver memory for footage, GB": job.hours * HOUR_S * costs.footage_bytes_of_second / 1e9,
        "download, GB": job.hours * costs.download_mbit * gigabytes_of_mbit,
        "clips stored, GB": kept_hours * costs.stored_mbit * gigabytes_of_mbit,
        "rows, tracks, previews, GB": clips * costs.rows_bytes_of_clip / 1e9,
        "requests that write": commits * costs.puts_of_commit,
        "requests that read": commits * costs.gets_of_commit,
        "latents, GPU PFLOP": frames * costs.frame_tflop / 1000,
    }


def durations(need: dict[str, float], machines: Machines) -> dict[str, float]:
    """Return how long each resource is busy, hours; the longest is the bound."""
    cpus = machines.cpu_nodes * machines.cpus_of_node
    work = need["read, CPU h"] + need["look, CPU h"] + need["store, CPU h"]
    gigabits = 8 * (need["download, GB"] + need["clips stored, GB"])
    return {
        "CPU nodes": work / cpus,
        "driver": need["driver, CPU h"],
        "download": 8000 * need["download, GB"] / machines.internet_mbit / HOUR_S,
        "network of the CPU nodes": gigabits
        / (machines.cpu_nodes * machines.network_gbit)
        / HOUR_S,
        "GPU nodes (latents)": 1000
        * need["latents, GPU PFLOP"]
        / (machines.gpu_nodes * machines.gpu_tflops)
        / HOUR_S,
    }


def bill(need: dict[str, float], prices: Prices) -> dict[str, float]:
    """Return what the object store costs: once for requests, then each month."""
    return {
        "requests": need["requests that write"] / 1000 * prices.puts_of_thousand
        + need["requests that read"] / 1000 * prices.gets_of_thousand,
        "a month of storage": prices.gigabyte_month
        * (need["clips stored, GB"] + need["rows, tracks, previews, GB"]),
    }


def main() -> int:
    """Print the plan, or check the driver's part of it against a simulation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--hours", type=float, default=8000.0, help="of footage in all")
    parser.add_argument("--keep", type=float, default=0.2, help="share that a policy keeps")
    parser.add_argument("--cpu-nodes", type=int, default=16, help="of type decoder, 32 CPUs")
    parser.add_argument("--gpu-nodes", type=int, default=4, help="of type encoder, one GPU")
    parser.add_argument("--internet-mbit", type=float, default=1000.0, help="of all downloads")
    parser.add_argument("--put-price", type=float, default=0.005, help="a thousand writes")
    parser.add_argument("--get-price", type=float, default=0.0004, help="a thousand reads")
    parser.add_argument("--check", type=Path, help="what benchmarks.scale.simulation printed")
    arguments = parser.parse_args()
    costs = Costs()
    if arguments.check is not None:
        return _check(json.loads(arguments.check.read_text()), costs)
    job = Job(videos=arguments.videos, hours=arguments.hours, keep=arguments.keep)
    machines = Machines(
        cpu_nodes=arguments.cpu_nodes,
        gpu_nodes=arguments.gpu_nodes,
        internet_mbit=arguments.internet_mbit,
    )
    prices = Prices(puts_of_thousand=arguments.put_price, gets_of_thousand=arguments.get_price)
    need = amounts(job, costs)
    print(f"{job.videos:,} videos, {job.hours:,.0f} hours, {job.keep:.0%} of them kept\n")
    print("\n".join(f"{value:>16,.1f}  {name}" for name, value in need.items()))
    print("\nhours that each is busy, all others free:")
    busy = sorted(durations(need, machines).items(), key=lambda item: -item[1])
    print("\n".join(f"{hours:>16,.1f}  {name}" for name, hours in busy))
    print(f"\nthe bound: {busy[0][0]}\n\nobject store, at the prices given:")
    print("\n".join(f"{value:>16,.2f}  {name}" for name, value in bill(need, prices).items()))
    return 0


def _check(measured: dict[str, float], costs: Costs) -> int:
    """Compare the driver's predicted CPU time with what a simulation measured."""
    clips, commits = measured["clips"], measured["commits"]
    expected_s = (clips * costs.driver_ms_of_clip + commits * costs.commit_ms) / 1000
    ratio = measured["driver_cpu_s"] / expected_s
    print(f"driver: {expected_s:.1f} CPU s expected, {measured['driver_cpu_s']:.1f} measured")
    return int(not 2 / 3 <= ratio <= 4 / 3)


if __name__ == "__main__":
    sys.exit(main())
