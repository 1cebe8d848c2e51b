"""`animaray dataset encode`: kept clips to what the animator trains on."""

from typing import Annotated

import typer

from animaray.cli.early_checks import check_dataset, default_dataset
from animaray.cli.options import read_size
from animaray.cli.output import (
    ConfigOption,
    JsonOption,
    PrintConfigOption,
    SetOption,
    print_config,
    print_hint,
    print_json,
    print_lines,
)
from animaray.platform.config import resolve_config

NUM_SKIPPED_SHOWN = 5

DatasetArgument = Annotated[
    str | None,
    typer.Argument(
        help="Dataset: a folder, or an address as s3://bucket/dataset", show_default="dataset"
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="Whose codec and encoders: generated, permissive or paper (published model)",
        show_default="the curation's",
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(help="Whose kept clips are encoded", show_default="standard"),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        help="Training frame, WIDTHxHEIGHT", show_default="192x192; 576x1024 for profile paper"
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option(help="Frame rate of training", show_default="8; 6 for profile paper"),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="GPUs that each worker holds", show_default="0; 1 for profile paper"
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes with the encoders", show_default="2; 1 for profile paper"),
]


def encode(
    dataset: DatasetArgument = None,
    profile: ProfileOption = None,
    policy: PolicyOption = None,
    size: SizeOption = None,
    fps: FpsOption = None,
    gpus: GpusOption = None,
    workers: WorkersOption = None,
    changes: SetOption = None,
    config_file: ConfigOption = None,
    show_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode kept clips for training; the same command again encodes only what is missing.

    Example: animaray dataset encode dataset --profile permissive --workers 2
    """
    if not show_config:
        check_dataset(dataset or default_dataset(changes, config_file))
    from animaray.pipelines.encode.config import EncodeConfig, encode_recipe
    from animaray.pipelines.encode.encode import curation_profile, encode_dataset

    width_px, height_px = read_size(size) if size is not None else (None, None)
    typed = {
        "data_dir": dataset,
        "profile": profile,
        "policy": policy,
        "width_px": width_px,
        "height_px": height_px,
        "fps": fps,
        "num_gpus_per_worker": gpus,
        "num_workers": workers,
    }
    # Whatever names the profile chooses the recipe, which the same settings then change.
    asked = resolve_config(EncodeConfig, file=config_file, overrides=changes or (), typed=typed)
    recipe = encode_recipe(asked.profile or curation_profile(asked.data_dir))
    config = resolve_config(recipe, file=config_file, overrides=changes or (), typed=typed)
    if show_config:
        print_config(config)
        return
    summary = encode_dataset(config)
    if as_json:
        print_json(summary.to_dict())
    else:
        print_lines(f"{summary.encoder_id}: {summary.one_line()}")
    for clip_id, reason in list(summary.skipped.items())[:NUM_SKIPPED_SHOWN]:
        print_hint(f"not encoded: {clip_id}: {reason}")
    if len(summary.skipped) > NUM_SKIPPED_SHOWN:
        print_hint(f"not encoded: {len(summary.skipped) - NUM_SKIPPED_SHOWN} more (see --json)")
    print_hint(f"Next: animaray train aligner --data {config.data_dir}, then train animator")
