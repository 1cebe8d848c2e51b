"""`animaray serve`: durable animation jobs over HTTP on Ray Serve."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from animaray.cli.output import (
    ConfigOption,
    PrintConfigOption,
    SetOption,
    print_config,
    print_hint,
)
from animaray.platform.config import resolve_config
from animaray.platform.weights.store import BUNDLED_ANIMATOR, resolve_weights

NETWORK, MACHINE, STORAGE = "Network", "Machine", "Storage"


WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Weights folder", show_default="the small bundled animator"),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        help="Address to bind; beyond this machine only with --api-keys",
        show_default="127.0.0.1",
        rich_help_panel=NETWORK,
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=65535, help="Port to bind", show_default="8500", rich_help_panel=NETWORK
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--api-keys",
        help="Key file that `animaray keys new` wrote",
        show_default="none, everybody may",
        rich_help_panel=NETWORK,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of jobs and results",
        show_default="serving-data",
        rich_help_panel=STORAGE,
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        envvar="ANIMARAY_DATABASE_URL",
        help="Job database, such as postgresql+psycopg://user@host/name",
        show_default="jobs.sqlite in --data",
        rich_help_panel=STORAGE,
    ),
]
ReplicasOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Animator replicas: jobs that run at the same time",
        show_default="1",
        rich_help_panel=MACHINE,
    ),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="GPUs of each replica; 0.5 lets two replicas share one",
        show_default="1 with --device cuda, else 0",
        rich_help_panel=MACHINE,
    ),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"] | None,
    typer.Option(
        help="Where the networks work; `auto`: on the GPU where --gpus reserves one",
        show_default="auto",
        rich_help_panel=MACHINE,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads of each replica",
        show_default="the cores, shared",
        rich_help_panel=MACHINE,
    ),
]
DrainOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Seconds that a job may go on when the server stops, before it is given back",
        show_default="0",
        rich_help_panel=MACHINE,
    ),
]


def serve(
    weights: WeightsOption = None,
    host: HostOption = None,
    port: PortOption = None,
    api_keys: KeysOption = None,
    data: DataOption = None,
    database_url: DatabaseOption = None,
    replicas: ReplicasOption = None,
    gpus: GpusOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    drain: DrainOption = None,
    changes: SetOption = None,
    config_file: ConfigOption = None,
    show_config: PrintConfigOption = False,
) -> None:
    """Serve a weights folder until Ctrl-C; jobs survive restarts.

    Example: animaray serve --weights demo/runs/animator/weights --port 8500
    """
    from animaray.serving.serve import ServeConfig, start_server

    default = weights or resolve_weights(BUNDLED_ANIMATOR)
    config = resolve_config(
        ServeConfig(weights_dir=default),
        file=config_file,
        overrides=changes or (),
        typed={
            "weights_dir": weights,
            "host": host,
            "port": port,
            "api_keys_path": api_keys,
            "data_dir": data,
            "database_url": database_url,
            "num_replicas": replicas,
            "num_gpus_per_replica": gpus,
            "device": device,
            "num_threads": threads,
            "drain_s": drain,
        },
    )
    if show_config:
        print_config(config)
        return
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
