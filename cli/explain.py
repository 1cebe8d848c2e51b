"""`animaray explain ID`: what an error id means, or how a run folder stands.

Error ids are those of error classes, of HTTP refusals and of failed jobs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_json, print_lines, refuse_usage
from animaray.platform.errors import error_classes
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorMeaning:
    """One error id in words."""

    error_id: str
    meaning: str
    exit_code: int | None = None
    """Of a command that ends with it; None for what only a service says."""
    http_status: int | None = None
    """Of an answer that carries it."""

    def line(self) -> str:
        """Return it as one line of text."""
        codes = [] if self.exit_code is None else [f"exit code {self.exit_code}"]
        codes += [] if self.http_status is None else [f"HTTP status {self.http_status}"]
        return f"{self.error_id} ({', '.join(codes) or 'a failed job'}): {self.meaning}"


def error_meanings() -> dict[str, ErrorMeaning]:
    """Return every id that a message, a problem document or a job can carry, sorted."""
    from animaray.serving.http.problems import PROBLEM_KINDS, exit_code_of
    from animaray.serving.jobs.records import JOB_FAILURES

    found = {
        kind.error_id: ErrorMeaning(
            error_id=kind.error_id,
            meaning=(kind.__doc__ or "").strip(),
            exit_code=kind.exit_code,
        )
        for kind in error_classes()
    }
    for code, problem in PROBLEM_KINDS.items():
        found[code] = ErrorMeaning(
            error_id=code,
            meaning=f"{problem.title}. {problem.explanation}",
            exit_code=problem.exit_code,
            http_status=problem.status,
        )
    for code, meaning in JOB_FAILURES.items():
        found[code] = ErrorMeaning(error_id=code, meaning=meaning, exit_code=exit_code_of(code))
    return dict(sorted(found.items()))
