"""`animaray verify-golden`: do our modules give what the authors' modules gave?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.evaluation.golden.vectors import Check
from animaray.evaluation.golden.verify import GoldenReport, verify
from animaray.platform.errors import AnimarayError

FAILED = 1


def verify_golden(
    folder: Annotated[
        Path, typer.Argument(help="A folder of golden vectors and key tables, or one vector")
    ],
    as_json: JsonOption = False,
) -> int:
    """Run golden vectors through our modules; exit 1 if anything is beyond its tolerance.

    Every tensor's largest deviation is printed with what its vector's config.json allows. A
    folder that cannot be run fails, and the others still run.
    """
    report = verify(folder, on_vector=lambda name: print_hint(f"{name} ..."))
    if report.errors and not report.checks:
        raise report.errors[0]
    if as_json:
        print_json(_document(report))
    else:
        _print_report(report)
    return 0 if report.passed else FAILED


def _document(report: GoldenReport) -> dict[str, Any]:
    checks = [
        {
            "vector": check.vector,
            "tensor": check.name,
            "deviation": check.deviation,
            "tolerance": check.tolerance,
            "used_share": check.used_share,
            "passed": check.passed,
            "note": check.note,
        }
        for check in report.checks
    ]
    errors = [{"id": error.error_id, "message": str(error)} for error in report.errors]
    return {"passed": report.passed, "checks": checks, "errors": errors}


def _print_report(report: GoldenReport) -> None:
    rows = [
        (
            check.vector,
            check.name,
            _number(check.deviation),
            check.tolerance,
            "" if check.used_share is None else f"{100 * check.used_share:.3g} %",
            "ok" if check.passed else "FAIL",
            check.note,
        )
        for check in report.checks
    ]
    columns = ("vector", "tensor", "deviation", "allowed", "used", "", "note")
    print_table("Golden vectors", columns, rows)
    for error in report.errors:
        print_hint(f"animaray: {error}")
    print_hint(_summary(report.checks, report.errors))


def _summary(checks: Sequence[Check], errors: Sequence[AnimarayError]) -> str:
    failed = [f"{check.vector}/{check.name}" for check in checks if not check.passed]
    if not failed and not errors:
        vectors = len({check.vector for check in checks})
        return f"All {len(checks)} comparisons of {vectors} vectors hold."
    names = f": {', '.join(failed[:8])}{' ...' if len(failed) > 8 else ''}" if failed else ""
    return (
        f"{len(failed)} of {len(checks)} comparisons fail{names}; "
        f"{len(errors)} vectors could not be run."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
