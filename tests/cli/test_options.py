"""Options of a command are the fields of a class: names, help, bounds, choices and defaults."""

import typing
from collections.abc import Mapping
from typing import Any, Literal

import pytest
import typer
from pydantic import Field
from pydantic.dataclasses import dataclass

from animaray.cli.main import app
from animaray.cli.options import with_options
from animaray.models.animation.options import NOT_SERVED, PYTHON_ONLY, AnimationRequest
from animaray.platform.errors import ConfigError, UsageError
from animaray.platform.options import STRICT, Options, fields_of


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cake(Options):
    layers: int = Field(default=2, ge=1, le=5, description="Layers, one over the other.")
    icing: Literal["sugar", "cream"] | None = Field(
        default=None, description="What covers `layers`. Left out: nothing; a server takes cream."
    )
    warmth: Literal["cold"] | float = Field(default="cold", description="Degrees, or `cold`.")
    has_plate: bool = Field(default=True, description="With a plate.")
    guests: list[str] = Field(default_factory=list, description="Who eats it.")


def bake(arguments: list[str], **settings: Any) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    made = typer.Typer()

    @made.command()
    @with_options(Cake, flags={"has_plate": "--plate"}, **settings)
    def command(*, options: Mapping[str, Any]) -> None:
        """Bake."""
        typed.update(options)

    typer.main.get_command(made).main(args=arguments, standalone_mode=False)
    return typed


def test_only_what_was_typed_arrives() -> None:
    assert bake([]) == {}
    assert bake([], defaults={"layers": 3}) == {"layers": 3}
    arguments = ["--layers", "4", "--icing", "cream", "--warmth", "21.5", "--no-plate"]
    assert bake([*arguments, "--guests", "a", "--guests", "b"]) == {
        "layers": 4, "icing": "cream", "warmth": 21.5, "has_plate": False, "guests": ["a", "b"],
    }  # fmt: skip
    assert bake(["--warmth", "cold"]) == {"warmth": "cold"}


def test_wrong_values_are_refused_by_option_and_by_field() -> None:
    with pytest.raises(UsageError, match="--warmth takes `cold` or a number, got `hot`"):
        bake(["--warmth", "hot"])
    for wrong in (["--layers", "9"], ["--icing", "jam"]):
        with pytest.raises(typer.BadParameter):
            bake(wrong)
    with pytest.raises(ConfigError, match="`layers`: Input should be less than or equal to 5"):
        Cake(layers=9)
    with pytest.raises(ConfigError, match=r"Unknown option `layer`\. Did you mean `layers`\?"):
        Cake(layer=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(("is_served", "default"), [(False, "nothing"), (True, "takes cream")])
def test_help_names_options_as_they_are_typed(
    is_served: bool, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bake(["--help"], is_served=is_served)
    page = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "What covers --layers" in page
    assert default in page


@pytest.mark.parametrize(
    ("path", "missing"), [(["animate"], PYTHON_ONLY), (["jobs", "submit"], NOT_SERVED)]
)
def test_commands_offer_every_field_of_an_animation(path: list[str], missing: set[str]) -> None:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    offered = {parameter.name: parameter for parameter in command.params}
    assert set(fields_of(AnimationRequest)) - set(offered) == set(missing)
    method = offered["sampler"].type_descriptor.annotation
    assert typing.get_args(method) == ("euler", "heun")
