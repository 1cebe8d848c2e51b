"""`animaray explain ID`: what an error id means, or how a run folder stands."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_json, print_lines, refuse_usage
from animaray.platform.storage import read_json


def explain(
    what: Annotated[str, typer.Argument(help="An error id, or a run folder")],
    as_json: JsonOption = False,
) -> None:
    """Explain an error id or a run folder.

    Example: animaray explain AR-MED-01
    """
    if what.upper().startswith("AR-"):
        _explain_error(what.upper(), as_json=as_json)
        return
    if not (Path(what) / "status.json").is_file():
        refuse_usage(
            f"`{what}` is neither an error id nor a run folder.",
            fix=f"Of a clip or source: animaray dataset show DATASET {what} --why",
        )
    status = read_json(Path(what) / "status.json")
    if as_json:
        print_json({"run_dir": what, "status": status})
    else:
        print_lines(*(f"{key}: {value}" for key, value in status.items()))


def _explain_error(error_id: str, *, as_json: bool) -> None:
    from animaray.cli.error_ids import error_meanings
    from animaray.cli.error_remedies import REMEDIES

    meanings = error_meanings()
    if error_id not in meanings:
        refuse_usage(f"Unknown error id {error_id}.", fix=f"Known: {', '.join(meanings)}.")
    found, remedy = meanings[error_id], REMEDIES[error_id]
    parts = {"cause": remedy.cause, "fix": remedy.fix, "example": remedy.example}
    if as_json:
        facts = {"id": error_id, "meaning": found.meaning, "exit_code": found.exit_code}
        print_json({**facts, **parts})
    else:
        print_lines(found.line(), *(f"  {name + ':':<9}{text}" for name, text in parts.items()))
