"""`animaray serve`: durable animation jobs over HTTP on Ray Serve."""

import time
from collections.abc import Mapping
from typing import Any

from animaray.cli.options import with_options
from animaray.cli.output import (
    ConfigOption,
    PrintConfigOption,
    SetOption,
    print_config,
    print_hint,
)
from animaray.platform.config import resolve_config
from animaray.platform.options import fields_of
from animaray.platform.weights.store import BUNDLED_ANIMATOR, resolve_weights
from animaray.serving.config import ServeConfig

FLAGS = {
    "weights_dir": "--weights",
    "api_keys_path": "--api-keys",
    "data_dir": "--data",
    "num_replicas": "--replicas",
    "num_gpus_per_replica": "--gpus",
    "num_threads": "--threads",
    "drain_s": "--drain",
}
PANELS: dict[str, str | None] = {
    "weights_dir": None,
    **dict.fromkeys(("host", "port", "api_keys_path"), "Network"),
    **dict.fromkeys(("data_dir", "database_url"), "Storage"),
    **dict.fromkeys(
        ("num_replicas", "num_gpus_per_replica", "device", "num_threads", "drain_s"), "Machine"
    ),
}
"""Every setting can be changed by --set; these have options of their own."""


@with_options(
    ServeConfig,
    without=fields_of(ServeConfig).keys() - PANELS,
    flags=FLAGS,
    panels=PANELS,
    envvars={"database_url": "ANIMARAY_DATABASE_URL"},
)
def serve(
    changes: SetOption = None,
    config_file: ConfigOption = None,
    show_config: PrintConfigOption = False,
    *,
    options: Mapping[str, Any],
) -> None:
    """Serve a weights folder until Ctrl-C; jobs survive restarts.

    Example: animaray serve --weights demo/runs/animator/weights --port 8500
    """
    weights = options.get("weights_dir")
    default = weights or resolve_weights(BUNDLED_ANIMATOR)
    config = resolve_config(
        ServeConfig(weights_dir=default),
        file=config_file,
        overrides=changes or (),
        typed=options,
    )
    if show_config:
        print_config(config)
        return
    from animaray.serving.serve import start_server

    server = start_server(config)
    try:
        print_hint(
            f"Serving {config.weights_dir} at {server.url} (web page there; API under"
            " /v1/animations)"
        )
        if weights is None and config.weights_dir == default:
            print_hint("The bundled animator knows drawn people only; real ones need --weights.")
        key = "" if config.api_keys_path is None else " --api-key KEY"
        print_hint(f"Try: animaray jobs submit picture.jpg driving.mp4 --server {server.url}{key}")
        while True:
            time.sleep(3600)
    finally:
        server.stop()
