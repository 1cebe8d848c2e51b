"""docs/cli.md holds a table of `animate`'s options, made of the command itself.

`python tests/cli/test_options_table.py` writes it anew.
"""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from animaray.cli.main import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
START, END = "<!-- options of animate, made by tests/cli/test_options_table.py -->", "<!-- end -->"


def metavar(descriptor: Any) -> str:
    """Return what stands for an option's value."""
    kind = descriptor.annotation
    words = get_args(kind) if get_origin(kind) is Literal else ()
    return "|".join(words) or ("N" if kind in (int, float) else "P" if kind is Path else "X")


def table() -> str:
    """Return the options in the order of the help page, one row each."""
    command = typer.main.get_command(app).commands["animate"]
    lines = ["| option | meaning | default |", "|---|---|---|"]
    for option in command.params:
        if option.param_type_name != "option" or option.name == "as_json":
            continue
        names = [*option.opts, *option.secondary_opts]
        value = "" if option.is_flag else f" {option.metavar or metavar(option.type_descriptor)}"
        default = option.show_default
        shown = default if isinstance(default, str) else option.default if default else ""
        cells = (
            ", ".join(f"`{name}{value}`" for name in names),
            option.help,
            str(shown or ""),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Return the page with the table of today."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def test_the_page_shows_the_options_of_today() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert START in page
    assert END in page
    assert page == with_table(page), "run: python tests/cli/test_options_table.py"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
