"""`animaray evaluate`: metrics on held-out clips of a curated dataset."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import JsonOption, SetOption, print_hint, print_json
from animaray.platform.config import resolve_config


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="Curated dataset folder")],
    weights: Annotated[Path, typer.Option("--weights", help="Weights folder")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the tables")] = Path(
        "evaluation"
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N clips")] = None,
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reconstruct held-out clips and measure L1, PSNR, SSIM, CSIM and Dis."""
    from animaray.evaluation.evaluate import EvaluateConfig
    from animaray.evaluation.evaluate import evaluate as run_evaluation

    base = EvaluateConfig(data_dir=data, weights_dir=weights, out_dir=out, limit=limit)
    table = run_evaluation(resolve_config(base, overrides=changes or ()))
    if as_json:
        print_json(table.to_dict())
    else:
        typer.echo(table.to_markdown())
    print_hint(f"Tables are in {out}")
