"""The `animaray` command: one command per kind of work.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 unexpected, 2 usage,
3 done but some items failed, 4 machine not ready, 5 a check refused, 6 a service failed,
130 Ctrl-C, 143 SIGTERM.
"""

import os
import re
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any

import typer

from animaray import __version__
from animaray.cli import (
    cache,
    cluster,
    curate,
    doctor,
    estimate,
    evaluate,
    explain,
    jobs,
    keys,
    runs,
    serve,
    train,
    weights,
)
from animaray.cli.animate import command as animate
from animaray.cli.dataset import command as dataset
from animaray.cli.demo import command as demo
from animaray.platform.disk import disk_error
from animaray.platform.errors import AnimarayError
from animaray.platform.ray_session import quiet_ray

_CTRL_C = 130
_CODE_SECTIONS = re.compile(
    r"\n\s*\n(Args|Returns|Raises|Yields|Attributes|References):.*", re.DOTALL
)
_MOVED = {
    ("dataset", "inspect"): "animaray dataset show DATASET CLIP",
    ("dataset", "sources"): "animaray dataset show DATASET --sources",
    ("ledger",): "python -m benchmarks.costs.tables (in a clone)",
    ("verify-golden",): "python -m benchmarks.golden DIR (in a clone)",
}
"""Commands of older scripts."""
_STOPPED = "Stopped. The same command goes on from here."

# typer brings its own click; its exceptions are reached through the public one.
_ClickError: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="animaray",
    help="Videos of people in, a trained animation model and a service out.",
    epilog="Start with `animaray doctor`, then `animaray demo`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.add_typer(curate.app, name="curate")
app.add_typer(train.app, name="train")
app.command("evaluate")(evaluate.evaluate)
app.command("animate")(animate.animate)
app.command("serve")(serve.serve)
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(dataset.app, name="dataset")
app.add_typer(runs.app, name="runs")
app.add_typer(weights.app, name="weights")
app.add_typer(cache.app, name="cache")
app.add_typer(cluster.app, name="cluster")
app.command("estimate")(estimate.estimate)
app.command("explain")(explain.explain)


def _print_version(value: bool) -> bool:
    if value:
        typer.echo(f"animaray {__version__}")
        raise typer.Exit
    return value


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Show the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error.", envvar="ANIMARAY_DEBUG")
    ] = False,
) -> None:
    """Videos of people in, a trained animation model and a service out."""
    del version
    if debug:
        os.environ["ANIMARAY_DEBUG"] = "1"


class _TerminatedError(BaseException):
    """SIGTERM arrived: unwind like Ctrl-C, so that every `with` block cleans up."""


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _TerminatedError


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with the documented exit code."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str], commands: typer.Typer = app) -> int:
    """Run one command and return its exit code; errors become one clear line on stderr."""
    quiet_ray()
    command = typer.main.get_command(commands)
    tidy_help(command)
    try:
        result = command.main(args=arguments, prog_name="animaray", standalone_mode=False)
    except AnimarayError as error:
        return _fail(str(error), error.exit_code, error)
    except _ClickError as error:
        for words, now in _MOVED.items():
            if commands is app and tuple(arguments[: len(words)]) == words:
                return _fail(f"`animaray {' '.join(words)}` is now: {now}", 2, None)
        error.show()
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail(_STOPPED, _CTRL_C, None)
    except _TerminatedError:
        return _fail("Terminated. The same command goes on from here.", 143, None)
    except Exception as error:  # noqa: BLE001 - the last border before the user
        if (no_disk := disk_error(error)) is not None:
            return _fail(str(no_disk), no_disk.exit_code, error)
        kind = type(error).__name__
        text = f"{str(error).strip().splitlines()[0]}" if str(error).strip() else "no message"
        hint = "Repeat with --debug before the command for the trace, and report it."
        return _fail(f"Unexpected {kind}: {text} {hint} [AR-BUG-01]", 1, error)
    if result == _CTRL_C:  # typer makes an exit code of Ctrl-C and says nothing
        return _fail(_STOPPED, _CTRL_C, None)
    return result if isinstance(result, int) else 0


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


def _fail(message: str, exit_code: int, error: BaseException | None) -> int:
    sys.stderr.write(f"animaray: {message}\n")
    if error is not None and os.environ.get("ANIMARAY_DEBUG"):
        traceback.print_exception(error)
    return exit_code


if __name__ == "__main__":
    main()
