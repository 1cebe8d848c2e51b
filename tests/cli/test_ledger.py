import json

from animaray.cli.main import run


def test_counts_are_printed_as_json(capsys):
    assert run(["ledger", "--part", "arcface", "--size", "512x512", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (part,) = document["parts"]
    # 16 faces of 48.4 GFLOP each, forward and backward.
    assert 0.76e12 < part["flops"] < 0.79e12
    assert part["peak_bytes"] < 2**30
    assert document["clip_of_25_steps"] is None


def test_table_names_the_parts(capsys):
    assert run(["ledger", "--part", "pose net"]) == 0
    out = capsys.readouterr().out
    assert "pose net, all frames" in out
    assert "0.091" in out


def test_unknown_size_and_part_are_refused(capsys):
    assert run(["ledger", "--size", "1x1"]) == 2
    assert "Known: 576x1024, 512x512" in capsys.readouterr().err
    assert run(["ledger", "--part", "teapot"]) == 2
    assert "No part's name holds teapot" in capsys.readouterr().err
