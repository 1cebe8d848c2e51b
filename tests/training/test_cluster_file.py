from pathlib import Path

import pytest

from animaray.platform.errors import ConfigError
from animaray.training.cluster_file import lint_cluster_file

CLUSTER_FILE = Path(__file__).resolve().parents[2] / "cluster.yaml"

LOCAL = """
cluster_name: rehearsal
provider: {type: local, head_ip: 10.99.0.10, worker_ips: [10.99.0.11]}
auth: {ssh_user: root, ssh_private_key: ~/key}
idle_timeout_minutes: 5
head_start_ray_commands:
  - ray stop
  - ray start --head --port=6379
worker_start_ray_commands:
  - ray stop
  - ray start --address=$RAY_HEAD_IP:6379
"""


def test_the_shipped_cluster_file_is_valid_without_warnings() -> None:
    assert lint_cluster_file(CLUSTER_FILE) == []


def test_rays_schema_refuses_an_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(LOCAL + "nonsense: 1\n")
    with pytest.raises(ConfigError, match=r"Ray refuses .*'nonsense' was unexpected"):
        lint_cluster_file(path)


def test_costly_and_open_settings_are_warned_about(tmp_path: Path) -> None:
    text = CLUSTER_FILE.read_text()
    path = tmp_path / "cluster.yaml"
    path.write_text(
        text.replace("resources: {CPU: 0}", "resources: {CPU: 8, GPU: 1}")
        .replace("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0")
        .replace("idle_timeout_minutes: 10", "")
        .replace("ray:2.60.0-py311-gpu", "ray:latest")
    )
    warnings = lint_cluster_file(path)
    for part in ("CPU: 0", "has GPUs", "dashboard is open", "idle_timeout", "not pinned"):
        assert any(part in warning for warning in warnings), part


def test_a_file_that_is_missing_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read the cluster file"):
        lint_cluster_file(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        lint_cluster_file(path)
