"""Print how our modules compare with golden vectors."""

from collections.abc import Sequence
from typing import Any

from animaray.cli.output import print_hint, print_table
from animaray.platform.errors import AnimarayError
from benchmarks.golden.vectors import Check
from benchmarks.golden.verify import GoldenReport


def report_document(report: GoldenReport) -> dict[str, Any]:
    """Return plain data for --json."""
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
    unreached = {vector: list(names) for vector, names in report.unreached.items()}
    return {"passed": report.passed, "checks": checks, "errors": errors, "unreached": unreached}


def print_report(report: GoldenReport) -> None:
    """Print one row per comparison, then the errors and a summary."""
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
    for vector, names in report.unreached.items():
        made = sum(check.vector == vector for check in report.checks)
        print_hint(f"{vector}: {made} comparisons were made before that; {_not_reached(names)}.")
    print_hint(_summary(report.checks, report.errors))


def _summary(checks: Sequence[Check], errors: Sequence[AnimarayError]) -> str:
    failed = [f"{check.vector}/{check.name}" for check in checks if not check.passed]
    if not failed and not errors:
        vectors = len({check.vector for check in checks})
        return f"All {len(checks)} comparisons of {vectors} vectors hold."
    names = f": {', '.join(failed[:8])}{' ...' if len(failed) > 8 else ''}" if failed else ""
    return (
        f"{len(failed)} of {len(checks)} comparisons fail{names}; "
        f"{len(errors)} vectors could not be run to the end."
    )


def _not_reached(names: Sequence[str]) -> str:
    shown = f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    return (
        f"{len(names)} tensors were not reached: {shown}" if names else "all tensors were reached"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
