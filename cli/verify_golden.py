"""`animaray verify-golden`: do our modules give what the authors' modules gave?"""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.early_checks import check_folder_exists
from animaray.cli.output import JsonOption, print_hint, print_json

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
    check_folder_exists(folder)
    # Here, because the networks take seconds to import and every command imports this file.
    from animaray.cli.golden_table import print_report, report_document
    from animaray.evaluation.golden.verify import verify

    report = verify(folder, on_vector=lambda name: print_hint(f"{name} ..."))
    if report.errors and not report.checks:
        raise report.errors[0]
    if as_json:
        print_json(report_document(report))
    else:
        print_report(report)
    return 0 if report.passed else FAILED
