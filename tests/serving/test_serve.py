"""What is checked before the service starts. The running service: tests/integration."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from animaray.platform.errors import ConfigError, DiskError, PortError, WeightsError
from animaray.serving import serve
from animaray.serving.config import ServeConfig
from animaray.serving.serve import start_server

ANYWHERE = "0.0.0.0"  # noqa: S104 - what is to be refused


def fine(*_: object) -> None:
    """Find nothing wrong."""


def test_wrong_weights_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = ServeConfig(weights_dir=tmp_path / "none", data_dir=tmp_path / "data")
    with pytest.raises(WeightsError, match="There is no weights folder"):
        start_server(config)
    assert not (tmp_path / "data").exists()


def test_taken_port_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "require_whole_folder", fine)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = ServeConfig(weights_dir=tmp_path, data_dir=tmp_path / "data", port=port)
        with pytest.raises(PortError, match=f"Port {port} of 127.0.0.1 is taken"):
            start_server(config)
    assert not (tmp_path / "data").exists()


def test_unusable_data_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "require_whole_folder", fine)
    monkeypatch.setattr(serve, "check_port", fine)
    (tmp_path / "file").write_text("")
    config = ServeConfig(weights_dir=tmp_path, data_dir=tmp_path / "file" / "data")
    with pytest.raises(DiskError, match=r"but .* is a file"):
        start_server(config)


def test_open_service_stays_on_the_loopback_address(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        ServeConfig(weights_dir=tmp_path, host=host)
    for host in (ANYWHERE, "10.0.0.1", "example.org"):
        with pytest.raises(ConfigError, match="without API keys would let everybody in"):
            ServeConfig(weights_dir=tmp_path, host=host)
        ServeConfig(weights_dir=tmp_path, host=host, api_keys_path=tmp_path / "keys.json")


@pytest.mark.parametrize(
    ("setting", "value"), [("port", 0), ("port", 70000), ("num_replicas", 0), ("lease_s", 1.0)]
)
def test_settings_out_of_range_are_named(tmp_path: Path, setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"Option `{setting}`: Input should be"):
        ServeConfig(weights_dir=tmp_path, **{setting: value})


def test_replicas_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert ServeConfig(weights_dir=tmp_path).threads == 8
    assert ServeConfig(weights_dir=tmp_path, num_replicas=3).threads == 2
    assert ServeConfig(weights_dir=tmp_path, num_replicas=99).threads == 1
    assert ServeConfig(weights_dir=tmp_path, num_threads=5).threads == 5


def test_addresses_can_be_opened_from_this_machine(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    assert ServeConfig(weights_dir=tmp_path, port=80).url == "http://127.0.0.1:80"
    anywhere = ServeConfig(weights_dir=tmp_path, host=ANYWHERE, port=80, api_keys_path=keys)
    assert anywhere.url == "http://127.0.0.1:80"
    assert ServeConfig(weights_dir=tmp_path, host="::1", port=80).url == "http://[::1]:80"


def test_ingress_process_never_imports_the_model() -> None:
    code = (
        "import sys, animaray.serving.serve\n"
        "assert 'animaray.serving.http.app' in sys.modules\n"
        "print([name for name in ('torch', 'diffusers', 'onnxruntime') if name in sys.modules])\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "[]"
