"""What is wrong in a command line is refused before torch is imported or Ray is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from animaray.platform.media.picture import write_png
from animaray.platform.media.video import write_mp4

RUN_ALL = """
import contextlib, io, json, sys
from animaray.cli.main import run

for command in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = run(command)
    ray = sys.modules.get("ray")
    heavy = ["torch"] if "torch" in sys.modules else []
    heavy += ["a Ray session"] if ray is not None and ray.is_initialized() else []
    print(json.dumps([command, code, said.getvalue(), heavy]), flush=True)
    if heavy:
        break
"""
MADE = ("--out", "made")
WRONG = [
    (["curate", "none", *MADE], 2, "none"),
    (["curate", "text.mp4", *MADE], 5, "text.mp4"),
    (["curate", "text.mp4", *MADE, "--profile", "generated"], 5, "text.mp4"),
    (["curate", "good.mp4", *MADE], 4, "permissive/pose_detection"),
    (["curate", "good.mp4", *MADE, "--profile", "moon"], 2, "`moon`"),
    (["curate", "report", "none"], 5, "There is no dataset in none"),
    (["curate", "verdicts", "none"], 5, "There is no dataset in none"),
    (["curate", "tune", "max_drift", "none"], 5, "There is no dataset in none"),
    (["demo", *MADE, "--videos", "none"], 2, "There is no folder none"),
    (["demo", *MADE, "--videos", "empty"], 2, "Expected a folder with videos"),
    (["demo", *MADE, "--weights", "none"], 2, "There is no folder none"),
    (["demo", *MADE, "--image", "text.png"], 5, "text.png"),
    (["animate", "none.png", "good.mp4"], 2, "There is no file none.png"),
    (["animate", "text.png", "good.mp4"], 5, "text.png"),
    (["animate", "good.png", "text.mp4"], 5, "text.mp4"),
    (["animate", "good.png", "good.mp4", "--weights", "none"], 4, "no weights folder none"),
    (["animate", "good.png", "good.mp4", "--identity", "none.png"], 2, "no file none.png"),
    (["train", "aligner", "--data", "none"], 5, "There is no dataset in none"),
    (["train", "animator", "--data", "empty"], 5, "There is no dataset in empty"),
    (["train", "aligner"], 5, "There is no dataset in dataset"),
    (["train", "animator", "--out", "run"], 5, "There is no dataset in dataset"),
    (["evaluate", "--data", "none", "--weights", "none"], 5, "There is no dataset in none"),
    (["jobs", "submit", "good.png", "text.mp4"], 5, "text.mp4"),
    (["jobs", "submit", "text.png", "good.mp4"], 5, "text.png"),
    (["dataset", "list", "none"], 5, "There is no dataset in none"),
    (["dataset", "show", "none"], 5, "There is no dataset in none"),
    (["dataset", "validate", "none"], 5, "There is no dataset in none"),
    (["dataset", "export", "none", *MADE, "--format", "webdataset"], 5, "no dataset in none"),
    (["dataset", "export", "none", *MADE, "--format", "published-png"], 5, "no dataset in none"),
    (["dataset", "misalign", "none", *MADE], 2, "There is no folder none"),
    (["dataset", "holdout", "none", *MADE], 5, "There is no dataset in none"),
    (["dataset", "leakage", "none", "none"], 5, "There is no dataset in none"),
    (["dataset", "compact", "none"], 5, "There is no dataset in none"),
    (["dataset", "encode", "none"], 5, "There is no dataset in none"),
    (["dataset", "encode", "--fps", "8"], 5, "There is no dataset in dataset"),
    (["dataset", "import-frames", "none", *MADE], 2, "none"),
    (["cluster", "lint", "none.yaml"], 2, "There is no file none.yaml"),
    (["weights", "import", "none", *MADE], 2, "There is no folder none"),
    (["serve", "--weights", "none"], 4, "There is no weights folder none"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.mp4").write_text("this is a text\n" * 9)
    (tmp_path / "text.png").write_text("this is a text\n" * 9)
    (tmp_path / "empty").mkdir()
    write_png(tmp_path / "good.png", np.full((64, 64, 3), 90, dtype=np.uint8))
    write_mp4(tmp_path / "good.mp4", np.full((8, 64, 64, 3), 90, dtype=np.uint8), 8.0)
    return tmp_path


def test_wrong_calls_are_refused_before_torch_or_ray(folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "ignore", "-c", RUN_ALL],
        input=json.dumps([command for command, _, _ in WRONG]),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        timeout=240,
        env={k: v for k, v in os.environ.items() if k != "ANIMARAY_WEIGHTS"}
        | {"ANIMARAY_CACHE_DIR": str(folder / "cache")},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    for (command, code, message), (_, got, said, heavy) in zip(WRONG, answers, strict=False):
        assert heavy == [], f"{command} needed {heavy}: {said}"
        assert (got, message in said) == (code, True), f"{command} ended with {got}: {said}"
    assert len(answers) == len(WRONG), done.stderr


def test_the_default_dataset_is_that_of_the_configurations() -> None:
    from animaray.cli.early_checks import DEFAULT_DATASET
    from animaray.cli.train import ALIGNER_RECIPE, ANIMATOR_RECIPE
    from animaray.pipelines.curation.config import CurationConfig
    from animaray.pipelines.encode.config import EncodeConfig
    from animaray.training.recipes import RECIPES

    folders = [CurationConfig(sources=("a.mp4",)).output_dir, EncodeConfig().data_dir]
    folders += [RECIPES[name]().data_dir for name in (ALIGNER_RECIPE, ANIMATOR_RECIPE)]
    assert {str(folder) for folder in folders} == {DEFAULT_DATASET}


def test_animate_speaks_before_it_loads_anything(folder: Path) -> None:
    code = (
        "import sys; from animaray.cli import output\n"
        "from animaray.cli.animate import command as animate\n"
        "def speak(text): print(text, 'torch' in sys.modules); sys.exit()\n"
        "animate.print_hint = speak\n"
        "from animaray.cli.main import run; run(['animate', 'good.png', 'good.mp4'])"
    )
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    assert done.stdout.endswith("... False\n"), done.stdout


def test_the_files_of_each_perception_are_those_it_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from animaray.models.perception.files import PERCEPTION_FILES, check_perception_files
    from animaray.models.perception.profiles import PROFILES, load_perception
    from animaray.platform.errors import WeightsError

    assert set(PERCEPTION_FILES) == set(PROFILES)
    check_perception_files("generated")
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    for profile in ("permissive", "paper"):
        with pytest.raises(WeightsError) as early:
            check_perception_files(profile)
        with pytest.raises(WeightsError) as late:
            load_perception(profile)
        assert str(early.value) == str(late.value)
