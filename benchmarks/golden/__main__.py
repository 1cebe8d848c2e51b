"""Do our modules give what the authors' modules gave? Golden vectors through the product's code.

python -m benchmarks.golden tests/golden
python -m benchmarks.golden DIR --json
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.early_checks import check_folder_exists
from animaray.cli.main import run
from animaray.cli.output import JsonOption, print_hint, print_json
from benchmarks.golden.report import print_report, report_document
from benchmarks.golden.verify import verify

FAILED = 1
app = typer.Typer(add_completion=False)


@app.command()
def verify_golden(
    folder: Annotated[
        Path, typer.Argument(help="A folder of golden vectors and key tables, or one vector")
    ],
    as_json: JsonOption = False,  # noqa: FBT002 - typer's form of an option
) -> int:
    """Run golden vectors through our modules; exit 1 if anything is beyond its tolerance.

    Every tensor's largest deviation is printed with what its vector's config.json allows. A
    folder that cannot be run fails, and the others still run.
    """
    check_folder_exists(folder)
    report = verify(folder, on_vector=lambda name: print_hint(f"{name} ..."))
    if report.errors and not report.checks:
        raise report.errors[0]
    if as_json:
        print_json(report_document(report))
    else:
        print_report(report)
    return 0 if report.passed else FAILED


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], app))
