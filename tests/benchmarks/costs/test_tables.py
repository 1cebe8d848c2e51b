"""Counts of operations and memory of the published model, and the limits that hold for them."""

import json
from functools import cache

import pytest

from benchmarks.costs.operation_counts import count_flops, count_peak_bytes
from benchmarks.costs.published_parts import arcface_gradient
from benchmarks.costs.tables import CLIP_SIZES, PARTS, CostRow, clip_totals, count_part, main

LARGE, SMALL = CLIP_SIZES["576x1024"], CLIP_SIZES["512x512"]


@cache
def row(part, size=LARGE):
    return count_part(part, size)


@pytest.mark.parametrize(
    ("part", "tflop", "gib"),
    [
        ("u-net, stock, one branch", 51.6, 2.4),
        ("pose net, all frames", 0.091, None),
        ("image encoder (CLIP), one picture", 0.335, None),
        ("autoencoder, encode one frame", 2.61, 0.70),
        ("autoencoder, decode the clip", 111.1, 18.0),
        ("decoder gradient, whole frames", 225.0, 179.0),
        ("arcface-100 gradient, all frames", 0.774, 0.83),
        pytest.param(
            "training step, stock, temporal blocks too", 198.5, 12.2, marks=pytest.mark.slow
        ),
    ],
)
def test_parts_cost_what_the_reference_counted(part, tflop, gib):
    counted = row(part)
    assert counted.tflop == pytest.approx(tflop, rel=0.01)
    if gib is not None:
        # The reference gives two digits.
        assert counted.peak_gib == pytest.approx(gib, rel=0.01, abs=0.05)


def test_small_size_costs_what_the_reference_counted():
    assert row("autoencoder, encode one frame", SMALL).tflop == pytest.approx(1.12, rel=0.01)
    assert row("autoencoder, decode the clip", SMALL).tflop == pytest.approx(48.7, rel=0.01)


@pytest.mark.slow
def test_our_sampler_step_costs_no_more_than_the_stock_networks():
    step = row("sampler step, ours with adapter")
    assert step.tflop <= 103.3
    assert step.peak_gib <= 2.6


def test_fast_face_gradient_stays_below_its_limits():
    fast = row("face gradient, fast")
    assert fast.tflop <= 7.0
    assert fast.peak_gib <= 3.8


@pytest.mark.slow
def test_whole_clip_with_fast_optimization_stays_below_its_limit():
    needed = (
        "sampler step, ours with adapter",
        "pose net, all frames",
        "image encoder (CLIP), one picture",
        "autoencoder, encode one frame",
        "autoencoder, decode the clip",
        "face gradient, fast",
        "face record, fast (once per step)",
    )
    rows = [row(part) for part in needed]
    # One literal gradient is the decoder's and the recogniser's; counted apart above.
    literal = CostRow(
        part="face gradient, literal", counts=row("decoder gradient, whole frames").counts
    )
    totals = clip_totals([*rows, literal])
    assert totals.off <= 2_700
    assert totals.fast <= 3_500
    assert totals.literal == pytest.approx(25_269, rel=0.01)


@pytest.mark.slow
def test_training_with_all_blocks_recomputed_stays_below_its_limit():
    assert row("training step, stock, temporal blocks too").peak_gib <= 12.5
    assert row("training step, stock, temporal blocks too").tflop <= 1.07 * 186.0


def test_every_part_has_a_name_and_both_counts_are_of_one_run():
    assert len(PARTS) == 17
    counts = row("arcface-100 gradient, all frames").counts
    assert count_flops(arcface_gradient(SMALL)) == counts.flops
    assert count_peak_bytes(arcface_gradient(SMALL)) == counts.peak_bytes


def test_counts_are_printed_as_json(capsys):
    main(["--part", "arcface", "--size", "512x512", "--json"])
    document = json.loads(capsys.readouterr().out)
    (part,) = document["parts"]
    # 16 faces of 48.4 GFLOP each, forward and backward.
    assert 0.76e12 < part["flops"] < 0.79e12
    assert part["peak_bytes"] < 2**30
    assert document["clip_of_25_steps"] is None


def test_table_names_the_parts(capsys):
    main(["--part", "pose net"])
    out = capsys.readouterr().out
    assert "pose net, all frames" in out
    assert "0.091" in out


def test_unknown_size_and_part_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--size", "1x1"])
    assert "576x1024" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="No part's name holds teapot"):
        main(["--part", "teapot"])
