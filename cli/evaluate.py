"""`animaray evaluate`: metrics on held-out clips of a curated dataset."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.early_checks import check_dataset, check_weights
from animaray.cli.output import (
    ConfigOption,
    JsonOption,
    PrintConfigOption,
    SetOption,
    print_config,
    print_hint,
    print_json,
)
from animaray.platform.config import resolve_config


def evaluate(
    data: Annotated[
        str | None,
        typer.Option("--data", help="Curated dataset, folder or address as s3://...; needed"),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights folder; needed")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the tables", show_default="evaluation"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N clips")] = None,
    changes: SetOption = None,
    config_file: ConfigOption = None,
    show_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Reconstruct held-out clips and measure L1, PSNR, SSIM, CSIM and Dis.

    Example: animaray evaluate --data demo/dataset --weights demo/runs/animator/weights --limit 2
    """
    if not show_config:  # what is typed is checked before torch is loaded
        check_dataset(data)
        check_weights(weights)
    from animaray.evaluation.evaluate import EvaluateConfig
    from animaray.evaluation.evaluate import evaluate as run_evaluation

    config = resolve_config(
        EvaluateConfig,
        file=config_file,
        overrides=changes or (),
        typed={"data_dir": data, "weights_dir": weights, "out_dir": out, "limit": limit},
    )
    if show_config:
        print_config(config)
        return
    table = run_evaluation(config)
    if as_json:
        print_json(table.to_dict())
    else:
        typer.echo(table.to_markdown())
    print_hint(f"Tables are in {config.out_dir}")
