"""`animaray estimate` tells what fits a card, and believes what was measured first."""

import json

import pytest

from animaray.cli.main import run
from animaray.evaluation.measured_memory import MeasuredPeak, read_measured, write_measured
from animaray.platform.cards import CARDS, card_named
from animaray.platform.errors import UsageError

ANIMATION = MeasuredPeak(
    work="animation",
    width_px=576,
    height_px=1024,
    num_frames=16,
    mode="off",
    precision="float32",
    peak_bytes=200 * 2**30,
    on="a test",
)


def needs(capsys, *options):
    assert run(["estimate", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_size_and_gpu_recipe_is_judged_for_a_card(capsys):
    found = needs(capsys, "--card", "A100_40", "--card", "h200")
    assert set(found["usable_bytes"]) == {"a100-40", "h200"}
    rows = {row["work"]: row for row in found["needs"]}
    assert len(rows) == 12
    off = rows["animate 16 frames 576x1024, face optimization off"]
    literal = rows["animate 16 frames 576x1024, face optimization published"]
    assert off["fits"] == {"a100-40": True, "h200": True}
    assert literal["fits"] == {"a100-40": False, "h200": True}
    assert {row["source"] for row in rows.values()} == {"estimated"}
    assert any(name.startswith("train animator_8xa100, 16 frames 576x1024") for name in rows)


def test_measured_peaks_come_before_estimates(capsys, tmp_path):
    file = tmp_path / "measured.json"
    write_measured(file, [ANIMATION])
    assert read_measured([file])[0] == ANIMATION
    rows = {row["work"]: row for row in needs(capsys, "--measured", str(file))["needs"]}
    off = rows["animate 16 frames 576x1024, face optimization off"]
    assert off["source"] == "measured: a test"
    assert off["peak_bytes"] == 200 * 2**30 > off["estimated_bytes"]
    assert not any(off["fits"].values())
    assert rows["animate 16 frames 512x512, face optimization off"]["source"] == "estimated"


def test_the_table_says_what_is_known_from_where(capsys):
    assert run(["estimate", "--card", "l40s"]) == 0
    shown = capsys.readouterr()
    assert "estimated" in shown.out
    assert "GiB for tensors: l40s 44.4" in shown.err


def test_wrong_names_and_files_are_named(capsys, tmp_path):
    assert run(["estimate", "--card", "abacus"]) == 2
    assert "Unknown card `abacus`. Known: 4090" in capsys.readouterr().err
    (tmp_path / "m.json").write_text('{"rows": [{"work": "animation"}]}')
    assert run(["estimate", "--measured", str(tmp_path / "m.json")]) == 2
    assert "is no table of measured peaks" in capsys.readouterr().err
    with pytest.raises(UsageError, match="Unknown card"):
        card_named("")
    sizes = [card.total_gib for card in CARDS.values()]
    assert sizes[0] == min(sizes)
    assert sizes[-1] == max(sizes)
