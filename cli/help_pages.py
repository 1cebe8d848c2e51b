"""Make help pages of docstrings and options: what is for readers of the code stays out of them."""

import re
from typing import Any

_CODE_SECTIONS = re.compile(
    r"\n\s*\n(Args|Returns|Raises|Yields|Attributes|References):.*", re.DOTALL
)


def tidy_help(command: Any, parent: Any = None) -> None:  # noqa: ANN401 - typer's own click
    """Tidy the help page of a command and of all below it.

    Sections that tell programmers of arguments and errors are cut off, and no type stands after
    flags, which take no value.

    Args:
        command: A command or group of typer.
        parent: Context of the group it belongs to; None for the top.
    """
    if command.help:
        command.help = _CODE_SECTIONS.sub("", command.help).rstrip()
    context = command.context_class(
        command, info_name=command.name, parent=parent, **command.context_settings
    )
    for option in (*command.params, command.get_help_option(context)):
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for child in getattr(command, "commands", {}).values():
        tidy_help(child, context)
