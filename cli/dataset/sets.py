"""`animaray dataset export | misalign | holdout | leakage | import-frames`: sets made from sets."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.early_checks import check_dataset, check_folder_exists
from animaray.cli.output import (
    DatasetArgument,
    JsonOption,
    leave,
    print_hint,
    print_json,
    print_lines,
    print_table,
    refuse_usage,
)
from animaray.platform.stores import is_remote

PolicyOption = Annotated[str, typer.Option(help="A policy that was applied to the dataset")]
SeedOption = Annotated[int, typer.Option(help="Same seed, same choice")]
FORMATS = ("published-png", "webdataset")


def add_to(app: typer.Typer) -> None:
    """Register the commands below on the `dataset` group."""
    app.command("export")(export)
    app.command("misalign")(misalign)
    app.command("holdout")(holdout)
    app.command("leakage")(leakage)
    app.command("import-frames")(import_frames)


def export(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write")],
    format_: Annotated[str, typer.Option("--format", help="published-png or webdataset")],
    policy: PolicyOption = "standard",
    white_masks: Annotated[
        bool, typer.Option("--white-masks", help="published-png: all-white masks without a face")
    ] = False,
    shard_mb: Annotated[int, typer.Option(help="webdataset: largest shard, MB")] = 256,
    as_json: JsonOption = False,
) -> None:
    """Write kept clips as the published code's PNG folders, or as WebDataset shards.

    Example: animaray dataset export dataset --format webdataset --out shards
    """
    from animaray.platform.progress import stage_progress

    if format_ not in FORMATS:
        refuse_usage(f"Unknown format `{format_}`.", fix=f"Known: {', '.join(FORMATS)}.")
    check_dataset(dataset)
    with stage_progress("export", None) as shown:
        if format_ == "webdataset":
            from animaray.pipelines.exchange.export_webdataset import export_webdataset

            result = export_webdataset(
                dataset,
                out,
                policy=policy,
                shard_bytes=shard_mb * 1_000_000,
                advance=lambda name: shown.advance(1, name),
            )
        else:
            from animaray.pipelines.exchange.export_published import export_published

            result = export_published(
                dataset,
                out,
                policy=policy,
                white_masks=white_masks,
                advance=lambda name: shown.advance(1, name),
            ).to_dict()
    if as_json:
        print_json({"format": format_, "out": str(out), **result})
    else:
        print_lines(*(f"{name}: {value}" for name, value in result.items()))


def misalign(
    source: Annotated[str, typer.Argument(help="Dataset (address), or any folder of videos")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Recipe file (JSON)")],
    count: Annotated[int, typer.Option(help="Clips wanted")] = 100,
    seed: SeedOption = 0,
    policy: PolicyOption = "standard",
    render: Annotated[
        Path | None, typer.Option(help="Also write the misaligned videos into this folder")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Store a seeded rotation, scale and shift for each of some clips (MisAlign100 style).

    Example: animaray dataset misalign dataset --out misalign100.json --render videos
    """
    if not is_remote(source):
        check_folder_exists(Path(source))
    from animaray.pipelines.sets.misalign import misalign as make_recipe
    from animaray.pipelines.sets.misalign import render_items
    from animaray.platform.storage import write_json_atomic

    recipe = make_recipe(source, count=count, seed=seed, policy=policy)
    write_json_atomic(out, recipe)
    files = [] if render is None else render_items(recipe, render)
    if as_json:
        print_json({**recipe, "files": [str(path) for path in files]})
        return
    print_table(
        f"{len(recipe['items'])} of {count} clips, seed {seed}",
        ("item", "clip", "rotation (deg)", "scale", "shift x", "shift y"),
        [
            (
                item["item_id"],
                item["clip_id"],
                f"{item['rotation_deg']:.1f}",
                f"{item['scale']:.3f}",
                f"{item['shift_x']:.3f}",
                f"{item['shift_y']:.3f}",
            )
            for item in recipe["items"]
        ],
    )
    print_hint(f"Wrote {out}" + (f" and {len(files)} videos to {render}" if files else ""))


def holdout(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Recipe file (JSON)")],
    count: Annotated[int, typer.Option(help="People wanted, one clip each")] = 100,
    seed: SeedOption = 0,
    policy: PolicyOption = "standard",
    as_json: JsonOption = False,
) -> None:
    """Hold people out of training, evenly over framing and motion (Unseen100 style).

    Example: animaray dataset holdout dataset --out unseen100.json
    """
    check_dataset(dataset)
    from animaray.pipelines.sets.holdout import hold_out
    from animaray.platform.storage import write_json_atomic

    recipe = hold_out(dataset, count=count, seed=seed, policy=policy)
    write_json_atomic(out, recipe)
    if as_json:
        print_json(recipe)
        return
    print_table(
        f"{len(recipe['items'])} of {recipe['num_people']} people held out, seed {seed}",
        ("stratum", "kept clips", "held out"),
        [(name, row["kept"], row["held_out"]) for name, row in recipe["strata"].items()],
    )
    print_lines(
        f"training keeps {len(recipe['training_clips'])} clips; {recipe['num_excluded_clips']} "
        f"clips of {len(recipe['excluded_sources'])} sources are excluded"
    )
    print_hint(f"Wrote {out}")


def leakage(
    training: Annotated[str, typer.Argument(help="Training dataset (address)")],
    evaluation: Annotated[str, typer.Argument(help="Evaluation dataset (address)")],
    policy: PolicyOption = "standard",
    as_json: JsonOption = False,
) -> None:
    """Find people and footage of an evaluation set in a training set; exit with 5 when found."""
    check_dataset(training)
    check_dataset(evaluation)
    from animaray.pipelines.sets.leakage import find_leakage

    report = find_leakage(training, evaluation, policy=policy)
    if as_json:
        print_json(report.to_dict())
    else:
        print_table(
            f"{report.num_evaluation_clips} evaluation clips against "
            f"{report.num_training_clips} training clips",
            ("kind", "evaluation", "training", "value"),
            [
                (leak.kind, leak.evaluation_file, leak.training_file, f"{leak.value:.3f}")
                for leak in report.leaks
            ],
        )
        print_lines(
            f"{len(report.leaks)} leaks; {report.num_without_identity} clips without an identity"
        )
    if report.leaks:
        leave(5)


def import_frames(
    folder: Annotated[Path, typer.Argument(help="Folder of picture sequences")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of videos to write")],
    fps: Annotated[float, typer.Option(help="Frame rate of the sequences")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Turn folders of PNG frames (the TikTok dataset's layout) into videos to curate.

    Example: animaray dataset import-frames TikTok_dataset --out tiktok
    """
    check_folder_exists(folder)
    from animaray.pipelines.exchange.import_frames import import_frames as write_videos

    if fps <= 0:
        refuse_usage(f"Expected a positive frame rate, got {fps}.")
    results = write_videos(folder, out, fps=fps)
    failed = sum(row["state"] == "failed" for row in results)
    if as_json:
        print_json({"source": str(folder), "out": str(out), "sequences": results})
    else:
        print_table(
            f"{len(results) - failed} of {len(results)} sequences",
            ("sequence", "frames", "state", "why"),
            [(r["sequence"], r["num_frames"], r["state"], r["detail"]) for r in results],
        )
    sys.stderr.write(f"Next: animaray curate {out} --out dataset\n")
    if failed:
        leave(3)
