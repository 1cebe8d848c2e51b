"""The importable application: the example is of Ray's form, its arguments are our settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve as ray_serve
from ray.serve.schema import ServeDeploySchema

from animaray.platform.config import resolve_config
from animaray.platform.errors import AnimarayError, ConfigError, WeightsError
from animaray.platform.weights.store import BUNDLED_ANIMATOR, resolve_weights
from animaray.serving import application
from animaray.serving.config import ServeConfig
from animaray.serving.http.tenants import add_key

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "serve_deploy.yaml"


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    add_key(tmp_path / "keys.json", "me")
    return {
        "weights_dir": str(resolve_weights(BUNDLED_ANIMATOR)),
        "data_dir": str(tmp_path / "data"),
        "api_keys_path": str(tmp_path / "keys.json"),
    }


def test_example_is_what_ray_deploys_and_its_arguments_are_settings() -> None:
    deployed = ServeDeploySchema.model_validate(yaml.safe_load(EXAMPLE.read_text()))
    (found,) = deployed.applications
    module, _, name = found.import_path.partition(":")
    assert getattr(application, name) is application.app
    assert module == application.__name__
    config = resolve_config(ServeConfig, typed=found.args)
    assert (config.num_replicas, config.torch_device, config.limits.max_video_s) == (2, "cuda", 30)


def test_application_is_built_from_settings_a_file_and_texts(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    assert isinstance(application.app(arguments), ray_serve.Application)
    # `serve run animaray.serving.application:app config=... num_replicas=2` passes texts.
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({**arguments, "num_replicas": 5}))
    built = application.app({"config": str(file), "num_replicas": "2", "limits.max_video_s": "20"})
    assert isinstance(built, ray_serve.Application)
    config = built._bound_deployment.init_args[0]
    assert (config.num_replicas, config.limits.max_video_s) == (2, 20.0)
    assert (tmp_path / "data" / "jobs.sqlite").is_file()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"host": "0.0.0.0"}, ConfigError, "under `http_options`"),  # noqa: S104
        ({"api_keys_path": None}, ConfigError, "animaray keys new me"),
        ({"weights_dir": "/nowhere"}, WeightsError, "no weights folder /nowhere"),
        ({"num_replica": 2}, ConfigError, "num_replicas"),
    ],
)
def test_wrong_arguments_are_refused_when_it_is_built(
    change: dict[str, Any], kind: type[AnimarayError], message: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(kind, match=message):
        application.app({**arguments, **change})
