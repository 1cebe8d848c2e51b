"""`animaray dataset encode`: every refusal comes before Ray starts and says what helps."""

import json
from pathlib import Path

import pytest

from animaray.cli.main import run
from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import table_prefix
from animaray.datasets.shards import write_shard
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.training.recipes import animator_8xa100, animator_demo_cpu, animator_permissive_cpu


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a dataset folder with one kept clip of profile permissive."""
    root = tmp_path / "dataset"
    clip = {"clip_id": "a", "source_id": "s", "media_file": "media/x", "media_row_group": 0}
    rows = {"clip_id": "a", "source_id": "s"}
    source = {"input_id": "i", "source_id": "s", "uri": "a.mp4", "profile": "permissive"}
    verdicts = [
        {**rows, "policy": name, "keep": name == "standard"} for name in ("standard", "strict")
    ]
    files = [
        write_shard(root, "sources", [source]),
        write_shard(root, "clips", [clip]),
        *(
            write_shard(root, "verdicts", [row], folder=f"verdicts/{row['policy']}")
            for row in verdicts
        ),
    ]
    CommitLog(root).commit(files)
    return root


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--profile", "paper"], 4, "animaray weights pull paper/stable-video-diffusion/vae"),
        ([], 4, "animaray weights pull permissive/codec_encoder permissive/codec_decoder"),
        (["--policy", "strict"], 5, "Policy strict keeps no clip"),
        (["--policy", "moon"], 5, "Policy moon was never applied"),
        (["--profile", "moon"], 2, "Unknown perception profile `moon`"),
        (["--size", "192"], 2, "--size takes WIDTHxHEIGHT"),
        (["--set", "num_workers=none"], 2, "`num_workers` must be a whole number, got 'none'"),
        (["--set", "fps=0"], 2, "encode.fps must be above 0"),
    ],
)
def test_wrong_requests_are_refused_with_what_helps(
    dataset: Path,
    options: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    assert run(["dataset", "encode", str(dataset), *options]) == code
    assert message in capsys.readouterr().err


def test_a_folder_without_dataset_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "encode", str(tmp_path / "absent")]) == 5
    assert "Make one: animaray curate VIDEOS --out" in capsys.readouterr().err


def test_the_dataset_and_its_profile_choose_the_recipe(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "encode", str(dataset), "--print-config"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["profile"], found["width_px"], found["num_gpus_per_worker"]) == (
        "permissive", 192, 0.0,
    )  # fmt: skip
    asked = [str(dataset), "--set", "profile=paper", "--gpus", "0.5", "--size", "512x512"]
    assert run(["dataset", "encode", *asked, "--print-config"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["profile"], found["fps"], found["num_gpus_per_worker"]) == ("paper", 6.0, 0.5)
    assert (found["width_px"], found["height_px"]) == (512, 512)


@pytest.mark.parametrize(
    ("profile", "animator"),
    [
        ("generated", animator_demo_cpu().animator),
        ("permissive", animator_permissive_cpu().animator),
        ("paper", animator_8xa100().animator),
    ],
)
def test_each_profile_is_encoded_as_its_animator_wants_it(
    profile: str, animator: AnimatorConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "encode", "--profile", profile, "--print-config"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = ("width_px", "height_px", "fps", "reference_noise")
    made = table_prefix(profile, *(found[name] for name in names))
    wanted = animator.width_px, animator.height_px, animator.fps, animator.noise_aug_strength
    assert made == table_prefix(animator.profile, *wanted)
