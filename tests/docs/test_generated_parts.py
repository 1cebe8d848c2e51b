"""What the pages say about columns, settings, errors and HTTP is what the code says.

A page holds generated parts between `<!-- generated: NAME -->` and `<!-- end -->`.
`python tests/docs/test_generated_parts.py` writes them anew.
"""

import ast
import dataclasses
import inspect
import itertools
import json
import re
import textwrap
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from pydantic_core import PydanticUndefined

import animaray
from animaray.cli.explain import error_meanings
from animaray.cli.main import app
from animaray.datasets import encoded_clips
from animaray.datasets.schemas import COLUMNS, TABLES, schema_of
from animaray.models.animation.options import AnimationOptions
from animaray.models.parts.options import PartsOptions
from animaray.pipelines.policy.policies import POLICIES, THRESHOLDS, Policy
from animaray.serving.config import ServeConfig
from animaray.serving.jobs.limits import ServingLimits
from animaray.training.configs import LoopConfig, OptimizerConfig, ScaleConfig
from animaray.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PART = re.compile(r"(<!-- generated: ([\w .-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    text = ["| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines]
    return "\n".join(text) + "\n"


def field_meanings(kind: type) -> dict[str, str]:
    """Return what stands under each field of a class, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            said = " ".join(ast.literal_eval(text.value).split())
            found[ast.unparse(field.target)] = re.sub(r"\bNone\b", "null", said)
    described = getattr(kind, "__pydantic_fields__", {})
    return found | {name: each.description for name, each in described.items() if each.description}


def columns(name: str) -> str:
    """Return the columns of a table of the dataset."""
    types = {field.name: str(field.type) for field in schema_of(name)}
    types |= {key: "bytes and path" for key, kind in types.items() if "struct" in kind}
    return table(
        ("column", "type", "meaning"),
        [
            (f"`{key}`", types[key].replace("list<item: ", "list of ").rstrip(">"), column.meaning)
            for key, column in COLUMNS[name].items()
        ],
    )


def training_columns() -> str:
    """Return the columns of the table that training reads."""
    own = {"clip_id": "Clip", "num_frames": "Frames at the training frame rate"}
    meanings = field_meanings(encoded_clips.EncodedClip)
    axes = {
        field.name: ", ".join(str(kind.dim_str).split())
        for field in dataclasses.fields(encoded_clips.EncodedClip)
        for kind in (field.type, *typing.get_args(field.type))
        if hasattr(kind, "dim_str")
    }
    rows: list[tuple[object, ...]] = []
    for field in encoded_clips.encoded_schema():
        if field.name.endswith("_shape"):
            continue
        dtype = (field.metadata or {}).get(b"dtype")
        kind = f"bytes of {dtype.decode()}" if dtype else str(field.type)
        meaning = meanings.get(field.name, own.get(field.name, "")).removesuffix(".")
        shape = f" [{axes[field.name]}]" if field.name in axes else ""
        rows.append((f"`{field.name}`", kind, f"{meaning}{shape}"))
    return table(("column", "type", "meaning"), rows)


def settings(kind: type, prefix: str = "") -> str:
    """Return the settings of a configuration with their defaults."""
    meanings = field_meanings(kind)
    rows: list[tuple[object, ...]] = []
    for field in dataclasses.fields(kind):
        if field.name not in meanings or field.default_factory is not dataclasses.MISSING:
            continue
        default = getattr(field.default, "default", field.default)  # of a pydantic field
        if getattr(field.default, "default_factory", None) is not None:
            continue
        default = "needed" if default in (dataclasses.MISSING, PydanticUndefined) else default
        rows.append((f"`{prefix}{field.name}`", shown(default), meanings[field.name]))
    return table(("setting", "default", "meaning"), rows)


def shown(value: object) -> object:
    """Return a default as a user would type it, large numbers with commas."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, int | float) and value >= 10_000:
        return f"{value:,.0f}"
    return value


def options(name: str) -> str:
    """Return the options of a command, in the order of its help page."""
    rows: list[tuple[object, ...]] = []
    for option in typer.main.get_command(app).commands[name].params:
        if option.param_type_name != "option" or option.name in ("as_json", "show_config"):
            continue
        kind = option.type_descriptor.annotation
        words = "|".join(typing.get_args(kind)) if typing.get_origin(kind) is Literal else ""
        letter = "N" if kind in (int, float) else "P" if kind is Path else "X"
        value = "" if option.is_flag else f" {option.metavar or words or letter}"
        default = option.show_default if isinstance(option.show_default, str) else option.default
        named = [f"`{flag}{value}`" for flag in (*option.opts, *option.secondary_opts)]
        rows.append((", ".join(named), option.help, default or ""))
    return table(("option", "meaning", "default"), rows)


def thresholds() -> str:
    """Return every threshold with its value in the shipped policies."""
    meanings = field_meanings(Policy)
    rows: list[tuple[object, ...]] = [
        (
            f"`{name}`",
            *(shown(getattr(policy, name)) for policy in POLICIES.values()),
            meanings[name],
        )
        for name in THRESHOLDS
    ]
    return table(("threshold", *POLICIES, "meaning"), rows)


def recipes() -> str:
    """Return the recipes with the first line of what they say."""
    rows: list[tuple[object, ...]] = [
        (f"`{name}`", (build.__doc__ or "").splitlines()[0]) for name, build in RECIPES.items()
    ]
    return table(("recipe", "what it does"), rows)


def errors() -> str:
    """Return every error id."""
    rows: list[tuple[object, ...]] = [
        (
            f"`{each.error_id}`",
            "" if each.exit_code is None else each.exit_code,
            each.http_status or "",
            each.meaning,
        )
        for each in error_meanings().values()
    ]
    return table(("id", "exit code", "HTTP", "meaning"), rows)


def open_api() -> dict[str, Any]:
    return json.loads((ROOT / "tests/serving/openapi.json").read_text(encoding="utf-8"))


def routes() -> str:
    """Return the routes of the HTTP interface."""
    rows: list[tuple[object, ...]] = []
    for path, methods in open_api()["paths"].items():
        for method, route in methods.items():
            asked = ", ".join(f"`{each['name']}` ({each['in']})" for each in
                              route.get("parameters", []) if each["in"] != "path")  # fmt: skip
            codes = ", ".join(route["responses"])
            said = route["description"] + (f" Takes {asked}." if asked else "")
            rows.append((f"`{method.upper()} {path}`", said, codes))
    return table(("request", "what it does", "answers"), rows)


def form() -> str:
    """Return the parts of the form that starts a job, then its options."""
    post = open_api()["paths"]["/v1/animations"]["post"]
    schema = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    options = schema["properties"]["options"]["properties"]
    parts = [
        (f"`{name}`", "needed" if name in schema["required"] else "",
         each.get("description") or "JSON object, the next table")
        for name, each in schema["properties"].items()
    ]  # fmt: skip
    rows = [
        (f"`{name}`", type_of(each), each.get("description", "")) for name, each in options.items()
    ]
    return (
        table(("part", "", "what it is"), parts) + "\n" + table(("option", "type", "meaning"), rows)
    )


def documents() -> str:
    """Return the fields of every document that the service answers with."""
    texts = []
    for name, schema in open_api()["components"]["schemas"].items():
        said = schema.get("description", "").splitlines()[0] if "description" in schema else ""
        texts.append(f"### {name}\n\n{said}\n")
        if "enum" in schema:
            texts.append(", ".join(f"`{value}`" for value in schema["enum"]) + "\n")
            continue
        rows = [
            (f"`{key}`", type_of(each), each.get("description", ""))
            for key, each in schema["properties"].items()
        ]
        texts.append(table(("field", "type", "meaning"), rows))
    return "\n".join(texts)


def type_of(schema: dict[str, Any]) -> str:
    """Return a JSON schema's type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        kinds = [type_of(each) for each in schema.get("anyOf") or schema["oneOf"]]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    low, high = schema.get("minimum"), schema.get("maximum")
    span = f", {low} to {high}" if low is not None and high is not None else ""
    return str(schema.get("type", "anything")) + span


def decisions() -> str:
    """Return the decisions with their titles."""
    rows = []
    for path in sorted((DOCS / "decisions").glob("0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        title = re.sub(r"^0*\d+[:. ]*", "", title)
        rows.append(f"- [{path.stem[:4]}]({path.name}) {title}")
    return "\n".join(rows) + "\n"


PARTS = {
    **{f"columns of {name}": (columns, name) for name in TABLES},
    "columns of training": (training_columns,),
    "thresholds": (thresholds,),
    "recipes": (recipes,),
    "settings of optimizer": (settings, OptimizerConfig, "optimizer."),
    "settings of loop": (settings, LoopConfig, "loop."),
    "settings of scale": (settings, ScaleConfig, "scale."),
    "settings of serve": (settings, ServeConfig),
    "fields of AnimationOptions": (settings, AnimationOptions),
    "fields of PartsOptions": (settings, PartsOptions),
    "options of animate": (options, "animate"),
    "options of serve": (options, "serve"),
    "limits": (settings, ServingLimits, "limits."),
    "errors": (errors,),
    "routes": (routes,),
    "form": (form,),
    "documents": (documents,),
    "decisions": (decisions,),
}
"""What makes each part: a function and its arguments."""


def pages() -> list[Path]:
    return [path for path in sorted(DOCS.rglob("*.md")) if "<!-- generated: " in path.read_text()]


def renewed(text: str) -> str:
    """Return a page with all its parts as they should be."""
    return PART.sub(lambda part: f"{part[1]}\n{make(part[2])}\n{part[3]}", text)


def make(name: str) -> str:
    function, *arguments = PARTS[name]
    return function(*arguments)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_generated_parts_are_fresh(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == renewed(text), "run: python tests/docs/test_generated_parts.py"


def test_every_part_stands_on_a_page() -> None:
    named = [part[1] for page in pages() for part in PART.findall(page.read_text())]
    assert sorted(named) == sorted(PARTS)


def test_the_reference_names_every_public_name() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: animaray\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == sorted(set(animaray.__all__) - {"__version__"})


def test_every_column_says_what_it_holds() -> None:
    for name in TABLES:
        assert all(len(column.meaning) > 3 for column in COLUMNS[name].values())
    assert set(field_meanings(encoded_clips.EncodedClip)) >= {
        field.name for field in dataclasses.fields(encoded_clips.EncodedClip)
    } - {"clip_id"}


if __name__ == "__main__":
    for page in pages():
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
