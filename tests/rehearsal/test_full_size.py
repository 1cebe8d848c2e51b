"""The measurement of the published model runs whole in small, and `estimate` reads its peaks."""

import json
import subprocess
import sys

import pytest
import torch

from animaray.evaluation.measured_memory import read_measured
from benchmarks.costs.full_size_gpu import TINY, Session
from benchmarks.costs.full_size_parts import Parts


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("measured")
    subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-m", "benchmarks.costs.full_size_gpu", "--out", str(out), "--tiny",
         "--device", "cpu"],
        check=True,
    )  # fmt: skip
    return out


def test_every_case_runs_and_tells_seconds_and_memory(measured):
    document = json.loads((measured / "results.json").read_text())
    assert document["left_out"] == []
    cases = {case["case"]: case for case in document["cases"]}
    assert not [case for case in cases.values() if "failed" in case]
    training = cases["training, published recipe"]
    assert training["samples_per_s"] > 0
    assert {part["name"] for part in training["parts"]} == {"networks made", "first step", "steps"}
    published = cases["2 steps, faces published, bf16"]
    parts = {part["name"]: part for part in published["parts"]}
    assert parts["face optimization"]["calls"] == 2
    assert published["face_s"] > 0
    assert published["peak_bytes"] > 0
    assert published["estimated_bytes"] > 0


def test_its_peaks_are_what_estimate_believes(measured):
    rows = read_measured([measured / "measured.json"])
    assert {row.work for row in rows} == {"animation", "training"}
    assert {row.mode for row in rows if row.work == "animation"} == {"off", "fast", "published"}
    assert all(row.on.startswith("CPU, ") for row in rows[:3])


def test_what_does_not_fit_the_budget_is_named(tmp_path):
    session = Session(tmp_path, torch.device("cpu"), TINY, budget_s=5.0)
    session.run("long", 10.0, dict)
    session.run("broken", 0.0, lambda: {"x": 1 / 0})
    assert session.left_out == ["long"]
    assert session.cases[0]["failed"].startswith("ZeroDivisionError")


def test_inner_parts_count_for_the_outer_ones():
    parts = Parts(torch.device("cpu"))
    with parts.measure("outer"):
        with parts.measure("inner"):
            held = torch.ones(40_000_000)
        del held
    assert parts.found["outer"].peak_bytes >= parts.found["inner"].peak_bytes
    assert parts.found["inner"].above_bytes > 100_000_000
