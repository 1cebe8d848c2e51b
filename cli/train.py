"""`animaray train`: the pose aligner, then the animator, on Ray Train."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from animaray.cli.early_checks import check_dataset, default_dataset
from animaray.cli.output import (
    ConfigOption,
    JsonOption,
    PrintConfigOption,
    SetOption,
    print_config,
    print_hint,
    print_json,
    print_table,
)
from animaray.platform.config import resolve_config
from animaray.platform.errors import ConfigError
from animaray.platform.ray_session import ray_session

app = typer.Typer(help="Train the pose aligner or the animator.", no_args_is_help=True)

ALIGNER_RECIPE, ANIMATOR_RECIPE = "aligner_demo_cpu", "animator_demo_cpu"

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Curated dataset: a folder, or an address as s3://...",
        show_default="the recipe's: dataset",
    ),
]


def _out(default: str) -> Any:  # noqa: ANN401 - typer's own
    shown = f"the recipe's: {default}"
    return typer.Option("--out", "-o", help="Run folder to write or resume", show_default=shown)


@app.command()
def aligner(
    data: DataOption = None,
    out: Annotated[Path | None, _out("runs/aligner")] = None,
    recipe: Annotated[str, typer.Option(help="A recipe of `train recipes`")] = ALIGNER_RECIPE,
    changes: SetOption = None,
    config_file: ConfigOption = None,
    show_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the pose aligner on a dataset's keypoints; the same command again resumes.

    Example: animaray train aligner --data dataset --out runs/aligner --set loop.num_steps=200
    """
    typed = {"data_dir": data, "run_dir": out}
    _train("aligner", recipe, typed, changes, config_file, show_config, as_json)


@app.command()
def animator(
    data: DataOption = None,
    out: Annotated[Path | None, _out("runs/animator")] = None,
    aligner_weights: Annotated[
        Path | None,
        typer.Option("--aligner", help="Aligner's weights folder to put beside the animator's"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A recipe of `train recipes`")] = ANIMATOR_RECIPE,
    changes: SetOption = None,
    config_file: ConfigOption = None,
    show_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train U-Net, PoseNet and Face Encoder with DeepSpeed; the same command again resumes.

    Example: animaray train animator --data dataset --aligner runs/aligner/weights
    """
    typed = {"data_dir": data, "run_dir": out, "aligner_weights": aligner_weights}
    _train("animator", recipe, typed, changes, config_file, show_config, as_json)


@app.command()
def recipes() -> None:
    """List the recipes: what each is for and on which machine."""
    from animaray.training.recipes import RECIPES

    rows = [(name, (build.__doc__ or "").splitlines()[0]) for name, build in RECIPES.items()]
    print_table("Recipes", ("name", "for"), rows)


def _train(
    kind: str,
    recipe: str,
    typed: dict[str, str | Path | None],
    changes: list[str] | None,
    config_file: Path | None,
    show_config: bool,
    as_json: bool,
) -> None:
    if not show_config:  # before torch is loaded
        others = (changes, config_file, recipe not in {ALIGNER_RECIPE, ANIMATOR_RECIPE})
        check_dataset(typed["data_dir"] or default_dataset(*others))
    config = resolve_config(
        _recipe(recipe, kind), file=config_file, overrides=changes or (), typed=typed
    )
    if show_config:
        print_config(config)
        return
    check_dataset(config.data_dir)
    train: Callable[[Any], Any]
    if kind == "aligner":
        from animaray.training.aligner import train_aligner

        train = train_aligner
    else:
        from animaray.training.animator import train_animator

        train = train_animator
    with ray_session():
        result = train(config)
    _print_result(result, as_json=as_json)


def _recipe(name: str, kind: str) -> Any:  # noqa: ANN401 - a configuration of either trainer
    from animaray.training.recipes import RECIPES

    known = [recipe for recipe in RECIPES if recipe.startswith(kind)]
    if name not in known:
        raise ConfigError(f"Unknown {kind} recipe `{name}`.", fix=f"Known: {', '.join(known)}.")
    return RECIPES[name]()


def _print_result(result: Any, *, as_json: bool) -> None:  # noqa: ANN401 - a TrainResult
    from animaray.cli.run_curves import write_curves

    curves = write_curves(result.run_dir / "curves.png", result.metrics)
    if as_json:
        print_json({**result.to_dict(), "curves": str(curves) if curves else None})
    print_hint(f"{result.found}")
    print_hint(f"Run folder: {result.run_dir}; weights: {result.weights_dir}")
    if curves is not None:
        print_hint(f"Curves: {curves}; in the terminal: animaray runs show {result.run_dir}")
