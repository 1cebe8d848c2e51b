"""`animaray doctor`: what is here, what is missing, and the command that gets it."""

from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.platform.errors import MachineError
from animaray.platform.machine import inspect_machine
from animaray.platform.packages import Finding
from animaray.platform.progress import stage_progress
from animaray.platform.weights import profile_entries, weights_state

TASKS = {
    "curate, train, animate, serve (generated world)": "generated",
    "the same on real videos": "permissive",
    "the published model": "paper",
}


def doctor(
    build: Annotated[
        bool, typer.Option("--build", help="Check at set-up that DeepSpeed starts here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what this machine can do, what is missing and how to get it."""
    if build:
        _build_extensions()
    findings = inspect_machine()
    tasks = _tasks()
    if as_json:
        print_json(
            {
                "findings": [
                    {"subject": f.subject, "state": f.state, "detail": f.detail, "fix": f.fix}
                    for f in findings
                ],
                "tasks": [dict(zip(("task", "state", "fix"), task, strict=True)) for task in tasks],
            }
        )
    elif not build:
        print_table(
            "This machine",
            ("what", "state", "found", "to get it"),
            [(f.subject, f.state, f.detail, f.fix) for f in findings],
        )
        print_table("What can be done", ("task", "state", "to get it"), tasks)
    else:
        for finding in findings:
            if finding.subject == "GPU":
                print_hint(f"GPU: {finding.detail}")
    _refuse_gaps(findings)


def _refuse_gaps(findings: list[Finding]) -> None:
    missing = [finding for finding in findings if finding.state == "missing"]
    if missing:
        names = ", ".join(finding.subject for finding in missing)
        raise MachineError(f"This machine lacks: {names}.", fix=missing[0].fix)


def _tasks() -> list[tuple[str, str, str | None]]:
    rows: list[tuple[str, str, str | None]] = []
    for task, profile in TASKS.items():
        absent = [
            entry.id for entry in profile_entries(profile) if weights_state(entry.id).state != "ok"
        ]
        if absent:
            fix = f"animaray weights list --profile {profile}"
            rows.append((task, f"weights missing: {', '.join(absent)}", fix))
        else:
            rows.append((task, "ready", None))
    return rows


def _build_extensions() -> None:
    from animaray.training.launch import build_extensions

    with stage_progress("check DeepSpeed", 1) as progress:
        progress.advance(note=build_extensions())
