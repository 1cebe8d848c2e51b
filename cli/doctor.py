"""`animaray doctor`: what is here, what is missing, and the command that gets it."""

from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.models.perception.files import reads_earlier_files
from animaray.platform.errors import MachineError
from animaray.platform.machine import inspect_machine
from animaray.platform.packages import Finding
from animaray.platform.progress import stage_progress
from animaray.platform.weights.store import profile_entries, weights_state

_CODEC = ("permissive/codec_encoder", "permissive/codec_decoder")
_CURATE = "curate real videos"
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "curate, train, animate, serve (generated world)": ("generated", ()),
    _CURATE: ("permissive", ()),
    "move a photo": ("permissive", ()),
    "encode and train on real videos": ("permissive", _CODEC),
    "the published model": ("paper", ()),
}
"""For each: the profile whose files it needs, and the ids of what it needs besides."""


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
    for task, (profile, others) in TASKS.items():
        ids = (*(entry.id for entry in profile_entries(profile)), *others)
        absent = [weights_id for weights_id in ids if weights_state(weights_id).state != "ok"]
        if task == _CURATE and absent and reads_earlier_files():
            rows.append((task, "ready, by the files of earlier versions", None))
            continue
        if not absent:
            rows.append((task, "ready", None))
            continue
        chosen = [name for name in absent if name in others]
        if len(chosen) < len(absent):
            chosen.append(f"--profile {profile}")
        fix = f"animaray weights pull {' '.join(chosen)}"
        rows.append((task, f"weights missing: {', '.join(absent)}", fix))
    return rows


def _build_extensions() -> None:
    from animaray.training.launch import build_extensions

    with stage_progress("check DeepSpeed", 1) as progress:
        progress.advance(note=build_extensions())
