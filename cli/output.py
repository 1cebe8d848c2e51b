"""How commands print results: a table for people, one JSON document for machines."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from animaray.platform.config import SCHEMA_VERSION, config_to_dict
from animaray.platform.errors import UsageError
from animaray.platform.json_text import json_text

JSON_SCHEMA_VERSION = SCHEMA_VERSION

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
JsonLinesOption = Annotated[
    bool, typer.Option("--json-lines", help="Print one JSON object per line on stdout.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting, dotted, as in `--set group.name=value`."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML or JSON file of settings, as --print-config shows"),
]
DatasetArgument = Annotated[
    str, typer.Argument(help="Dataset: a folder, or an address as s3://bucket/dataset")
]
PrintConfigOption = Annotated[
    bool, typer.Option("--print-config", help="Show every setting and stop")
]
"""An option that overlaps a setting is None until it is typed: then it beats --set and --config."""


class DefaultCommandGroup(TyperGroup):
    """A group whose first command runs when no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's click
        """Insert the default command's name where the user left it out."""
        first = next(iter(self.commands))
        wants_help = args[:1] in (["-h"], ["--help"])
        if args and args[0] not in self.commands and not wants_help:
            args = [first, *args]
        return super().parse_args(ctx, args)


def print_json(data: Mapping[str, Any]) -> None:
    """Print one JSON document, schema version first."""
    document = {"schema_version": JSON_SCHEMA_VERSION, **data}
    sys.stdout.write(json_text(document, indent=2, default=str) + "\n")


def print_config(config: Any) -> None:  # noqa: ANN401 - any frozen dataclass
    """Print every setting as one JSON document, which --config takes again."""
    print_json(config_to_dict(config))


def print_json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object per line."""
    for row in rows:
        sys.stdout.write(json_text(dict(row), default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*["" if cell is None else escape(str(cell)) for cell in row])
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def print_lines(*lines: str) -> None:
    """Print plain lines on stdout."""
    sys.stdout.write("\n".join(lines) + "\n")


def print_hint(text: str) -> None:
    """Print a hint on stderr: what happened or what to do next."""
    sys.stderr.write(f"{text}\n")


def leave(code: int) -> NoReturn:
    """End the command with an exit code after its results were printed.

    Raises:
        Exit: Always.
    """
    raise typer.Exit(code)


def refuse_usage(message: str, *, fix: str | None = None) -> NoReturn:
    """Refuse the command's arguments.

    Raises:
        UsageError: Always.
    """
    raise UsageError(message, fix=fix)
