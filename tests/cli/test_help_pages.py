"""Help pages are for users: no sections for programmers, no type after flags, an example each."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from animaray.cli.main import app, run, tidy_help

COMMAND = typer.main.get_command(app)


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


PATHS = [path for path, _ in walk(COMMAND)]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_a_help_page_holds_nothing_for_programmers(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    page = capsys.readouterr().out
    assert "Usage: animaray" in page
    assert [word for word in ("Raises:", "Args:", "Returns:", "<bool>") if word in page] == []


def test_the_tree_has_what_the_test_above_looks_for() -> None:
    # An untidied tree has both faults: the walk finds them, so their absence above means something.
    found = dict(walk(typer.main.get_command(app)))
    assert len(found) > 40
    assert any("Raises:" in (command.help or "") for command in found.values())
    assert any(
        getattr(option, "is_flag", False) and option.metavar is None
        for command in found.values()
        for option in command.params
    )


def test_only_the_sections_for_programmers_are_cut() -> None:
    command = typer.main.get_command(app).commands["evaluate"]
    before = command.help
    tidy_help(command)
    assert command.help == before.partition("\n\nRaises:")[0]
    assert "measure l1, psnr" in command.help.lower()
