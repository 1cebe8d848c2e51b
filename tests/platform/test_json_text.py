import json
import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from animaray.cli.output import print_json, print_json_lines
from animaray.platform.json_text import json_text
from animaray.platform.storage import read_json, write_json_atomic
from animaray.training.run_folder import RunFolder


def strict(text: str) -> Any:
    """Parse as every other reader does: NaN and Infinity are no JSON."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_finite_data_stay_as_they_are() -> None:
    data = {"b": [1, 2.5, None, "é"], "a": {"c": True}}
    assert json_text(data) == json.dumps(data)
    assert json_text(data, indent=2, sort_keys=True) == json.dumps(data, indent=2, sort_keys=True)
    assert json_text({"a": 1, "b": 2}, compact=True) == '{"a":1,"b":2}'


def test_numbers_that_are_none_become_null_and_are_named() -> None:
    document = strict(
        json_text({"loss": math.nan, "rows": [{"psnr": math.inf}, 1.0], "low": np.float64("-inf")})
    )
    assert document == {
        "loss": None,
        "rows": [{"psnr": None}, 1.0],
        "low": None,
        "not_finite": {"loss": "nan", "rows.0.psnr": "inf", "low": "-inf"},
    }


def test_a_document_keeps_its_list_when_it_is_written_again() -> None:
    once = strict(json_text({"a": math.nan, "b": 1.0}))
    again = strict(json_text({**once, "b": math.inf}))
    assert again["not_finite"] == {"a": "nan", "b": "inf"}


def test_what_has_no_room_for_the_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text([1.0, math.nan])


def test_files_lines_and_streams_are_json_for_everybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json_atomic(tmp_path / "table.json", {"psnr_db": math.inf})
    strict((tmp_path / "table.json").read_text())
    assert read_json(tmp_path / "table.json")["not_finite"] == {"psnr_db": "inf"}

    folder = RunFolder(tmp_path)
    folder.append_metrics({"step": 1, "loss": math.nan})
    folder.append_metrics({"step": 2, "loss": 1.0})
    folder.rewind_metrics(1)
    assert [strict(line) for line in folder.metrics_path.read_text().splitlines()] == [
        {"step": 1, "loss": None, "not_finite": {"loss": "nan"}}
    ]

    print_json({"csim": math.nan})
    assert strict(capsys.readouterr().out)["csim"] is None
    print_json_lines([{"csim": math.nan}])
    assert strict(capsys.readouterr().out)["csim"] is None
