"""`animaray explain ID`: what a clip, a run, a job or an error id means."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_json, print_lines
from animaray.platform.errors import UsageError
from animaray.platform.storage import read_json


def explain(
    what: Annotated[str, typer.Argument(help="A clip, source or error id, or a run folder")],
    data: Annotated[Path, typer.Option("--data", help="Curated dataset folder")] = Path("dataset"),
    as_json: JsonOption = False,
) -> None:
    """Explain an error id, a clip or source of a dataset, or a run folder.

    Example: animaray explain AR-MED-01
    """
    if what.upper().startswith("AR-"):
        _explain_error(what.upper(), as_json=as_json)
    elif (Path(what) / "status.json").is_file():
        status = read_json(Path(what) / "status.json")
        if as_json:
            print_json({"run_dir": what, "status": status})
        else:
            print_lines(*(f"{key}: {value}" for key, value in status.items()))
    else:
        _explain_clip(what, data, as_json=as_json)


def _explain_error(error_id: str, *, as_json: bool) -> None:
    from animaray.cli.error_ids import error_meanings
    from animaray.cli.error_remedies import REMEDIES

    meanings = error_meanings()
    if error_id not in meanings:
        raise UsageError(f"Unknown error id {error_id}.", fix=f"Known: {', '.join(meanings)}.")
    found, remedy = meanings[error_id], REMEDIES[error_id]
    parts = {"cause": remedy.cause, "fix": remedy.fix, "example": remedy.example}
    if as_json:
        facts = {"id": error_id, "meaning": found.meaning, "exit_code": found.exit_code}
        print_json({**facts, **parts})
    else:
        print_lines(found.line(), *(f"  {name + ':':<9}{text}" for name, text in parts.items()))


def _explain_clip(what: str, data: Path, *, as_json: bool) -> None:
    from animaray.pipelines.reports.story import explain as explain_in_dataset

    story = explain_in_dataset(data, what)
    if as_json:
        print_json(story.to_dict())
    else:
        print_lines(*story.lines())
