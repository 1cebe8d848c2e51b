"""The service as an application that `serve deploy`, `serve run` and a RayService import.

import_path: animaray.serving.application:app
args: settings of ServeConfig by name, dotted where they are nested, or `config: file`
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve

from animaray.platform.config import resolve_config
from animaray.platform.errors import ConfigError
from animaray.serving.config import ServeConfig
from animaray.serving.serve import build_application, check_before_start

_OF_THE_PROXY = ("host", "port")


def app(args: Mapping[str, Any]) -> serve.Application:
    """Build the application; everything that can be checked is checked before it starts.

    Address and port belong to Ray's proxy (`http_options`), which may listen to the whole network:
    therefore keys are asked for always.

    Args:
        args: Settings, such as `weights_dir` and `api_keys_path`; paths as every node sees them.

    Raises:
        ConfigError: A setting is unknown, wrong or missing, or belongs to the proxy.
    """
    settings = dict(args)
    for name in _OF_THE_PROXY:
        if name in settings:
            raise ConfigError(
                f"Setting `{name}` is not the application's.",
                fix=f"Set `{name}` under `http_options` of the file that you deploy.",
            )
    file = settings.pop("config", None)
    # `serve run ... num_replicas=2` hands over texts: they are read by the setting's type.
    texts = [f"{name}={value}" for name, value in settings.items() if isinstance(value, str)]
    others = {name: value for name, value in settings.items() if not isinstance(value, str)}
    config = resolve_config(
        ServeConfig,
        file=None if file is None else Path(str(file)),
        overrides=texts,
        typed=others,
    )
    if config.api_keys_path is None:
        raise ConfigError(
            "Deployed on a cluster without API keys, the service would let everybody in.",
            fix="Make a key with `animaray keys new me`, and set `api_keys_path` to the file.",
        )
    return build_application(check_before_start(config))
