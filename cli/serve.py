"""`animaray serve`: durable animation jobs over HTTP on Ray Serve."""

import time
from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import print_hint
from animaray.platform.ray_session import ray_session


def serve(
    weights: Annotated[Path, typer.Option("--weights", help="Weights folder")],
    host: Annotated[str, typer.Option(help="Address to bind")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to bind")] = 8500,
    data: Annotated[Path, typer.Option("--data", help="Folder of jobs and results")] = Path(
        "serving-data"
    ),
    replicas: Annotated[int, typer.Option(min=1, help="Animator replicas")] = 1,
) -> None:
    """Serve a weights folder until Ctrl-C; jobs survive restarts.

    Example: animaray serve --weights demo/runs/animator/weights --port 8500
    """
    from animaray.serving.serve import ServeConfig, start_server

    config = ServeConfig(
        weights_dir=weights, host=host, port=port, data_dir=data, num_replicas=replicas
    )
    with ray_session():
        server = start_server(config)
        print_hint(f"Serving {weights} at {server.url} (web page there; API under /v1/animations)")
        print_hint(f"Try: animaray jobs submit picture.jpg driving.mp4 --server {server.url}")
        try:
            while True:
                time.sleep(3600)
        finally:
            server.stop()
