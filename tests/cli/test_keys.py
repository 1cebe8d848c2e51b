"""`animaray keys`, and the settings of `animaray serve`: what its advice says can be followed."""

import json
import re
import shlex
from pathlib import Path

import pytest

from animaray.cli.main import run
from animaray.serving import serve
from animaray.serving.config import ServeConfig
from animaray.serving.http.tenants import Tenants

Capture = pytest.CaptureFixture[str]
PUBLIC = "0.0.0.0"  # noqa: S104 - what needs keys


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANIMARAY_DATABASE_URL", raising=False)


def printed_config(arguments: list[str], capsys: Capture) -> dict[str, object]:
    assert run(["serve", *arguments, "--print-config"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_key_is_printed_once_and_listed_by_tenant(capsys: Capture) -> None:
    assert run(["keys", "new", "team-a"]) == 0
    made = capsys.readouterr()
    key = made.out.strip()
    assert re.fullmatch(r"ar_[\w-]{40,}", key)
    assert key not in made.err
    assert "--api-keys api-keys.json" in made.err
    assert run(["keys", "new", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tenant"] == "b"
    assert run(["keys", "list"]) == 0
    table = capsys.readouterr().out
    assert "team-a" in table
    assert key not in table + Path("api-keys.json").read_text()
    assert run(["keys", "revoke", "team-a"]) == 0
    assert "1 left" in capsys.readouterr().err
    assert run(["keys", "list", "--json"]) == 0
    assert [row["tenant"] for row in json.loads(capsys.readouterr().out)["keys"]] == ["b"]
    assert run(["keys", "revoke", "b"]) == 0
    assert "lets nobody in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "Team A"], "lower-case letters"),
        (["new", "me"], "`me` has a key in api-keys.json. To change it"),
        (["revoke", "you"], "`you` has no key in api-keys.json. Known: me."),
        (["list", "--file", "none.json"], "animaray keys new me --file none.json"),
    ],
)
def test_wrong_calls_say_what_to_do(arguments: list[str], message: str, capsys: Capture) -> None:
    assert run(["keys", "new", "me"]) == 0
    assert run(["keys", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_advice_of_an_open_public_server_works_word_by_word(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["serve", "--host", PUBLIC]) == 2
    first, second = re.findall(r"`([^`]+)`", capsys.readouterr().err)
    assert first.startswith("animaray keys new ")
    assert run(shlex.split(first)[1:]) == 0
    key = capsys.readouterr().out.strip()
    started: list[ServeConfig] = []

    def start(config: ServeConfig) -> None:
        started.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "start_server", start)
    assert run(["serve", "--host", PUBLIC, *shlex.split(second)]) == 130
    (config,) = started
    assert Tenants.load(config.api_keys_path).tenant_of(key) == "me"


def test_every_setting_of_the_server_can_be_reached(capsys: Capture) -> None:
    assert run(["keys", "new", "me"]) == 0
    Path("serve.yaml").write_text(
        "port: 9000\nhost: 10.0.0.1\napi_keys_path: api-keys.json\nlease_s: 60\n"
        "limits: {max_video_s: 20, max_queued_jobs: 5}\nnum_replicas: 3\n"
    )
    capsys.readouterr()
    arguments = [
        "--config", "serve.yaml", "--set", "limits.max_queued_jobs=7", "--set", "port=9001",
        "--port", "9002", "--gpus", "0.5", "--threads", "2", "--drain", "30",
        "--database-url", "postgresql+psycopg://me@db/jobs", "--data", "run #2",
    ]  # fmt: skip
    config = printed_config(arguments, capsys)
    assert (config["port"], config["host"], config["lease_s"]) == (9002, "10.0.0.1", 60.0)
    assert (config["num_replicas"], config["num_gpus_per_replica"]) == (3, 0.5)
    assert (config["num_threads"], config["drain_s"], config["data_dir"]) == (2, 30.0, "run #2")
    assert config["database_url"] == "postgresql+psycopg://me@db/jobs"
    limits = config["limits"]
    assert isinstance(limits, dict)
    assert (limits["max_video_s"], limits["max_queued_jobs"]) == (20.0, 7)
    Path("again.json").write_text(json.dumps(config))
    assert printed_config(["--config", "again.json"], capsys) == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "limits.max_vido_s=3"], "limits.max_video_s"),
        (["--device", "cpu", "--gpus", "1"], "`device` is cpu"),
        (["--device", "cuda", "--gpus", "0"], "`--gpus 1`"),
        (["--api-keys", "none.json"], "animaray keys new me --file none.json"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--set", "limits.max_video_s=-1"], "`max_video_s` must be positive"),
    ],
)
def test_wrong_settings_are_named_before_anything_starts(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert run(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_gpu_is_reserved_where_cuda_is_asked_for(tmp_path: Path) -> None:
    def placed(**settings: object) -> tuple[str, float]:
        config = ServeConfig(weights_dir=tmp_path, **settings)  # type: ignore[arg-type]
        return config.torch_device, config.gpus_per_replica

    assert placed() == ("cpu", 0.0)
    assert placed(device="cuda") == ("cuda", 1.0)
    assert placed(device="cuda", num_gpus_per_replica=0.5) == ("cuda", 0.5)
    assert placed(num_gpus_per_replica=1.0) == ("cuda", 1.0)
    assert placed(device="cpu") == ("cpu", 0.0)
