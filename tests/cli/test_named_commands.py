"""Every command that a document, message, recipe or comment names exists, its options too."""

import ast
import dataclasses
import io
import re
import shlex
import tokenize
import typing
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from animaray.cli.demo.run import DemoSettings
from animaray.cli.main import app, run
from animaray.evaluation.evaluate import EvaluateConfig
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.encode.config import EncodeConfig
from animaray.platform.weights.store import WEIGHTS
from animaray.serving.config import ServeConfig
from animaray.training.aligner import AlignerTrainingConfig
from animaray.training.configs import AnimatorTrainingConfig
from animaray.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
    "benchmarks", "tests/faults",
)  # fmt: skip
TEXTS = (
    "*.md", "*.yaml", "Makefile", "pyproject.toml", ".ci/run", "docs/**/*.md", "runs/*",
    ".github/**/*.yml",
    *(f"{folder}/**/*{end}" for folder in CODE for end in (".md", ".yaml", ".j2", ".html", ".js")),
)  # fmt: skip
HISTORY = ("docs/lab_log.md", "CHANGELOG.md")
"""They tell what was typed then."""
EXAMPLES = {"key", "key.sub", "group.name", "a", "b", "a.b", "optimizer.lrr"}
"""Settings that stand for any, or for a wrong one."""
FOREIGN_OPTIONS = {"--motion-prefix", "--no-deps"}
"""Options of other programs that a remedy names: of benchmarks.bundled_weights.aligner, of pip."""
RUN_AS_MODULE = r"python -m (?:animaray\.)?([a-z_]+\.[a-z_.]*[a-z])"
STARTS = re.compile(r"(?<![\w.-])animaray(?: +|(?<=`animaray)\s+|(?<=/animaray) +)(?=[a-z-])")
BEFORE_A_COMMAND = re.compile(r"[\s#>$@*-]*(run: |exec |Example: |Command: |[\w$()./]*/)?")
ENDS = {"&&", "||", "|", ";", ">", "2>", "·", "<", "&"}


class Named(NamedTuple):
    """Something that looks like a command line."""

    place: str
    words: list[str]
    is_code: bool
    """In backticks or alone on a line, so that it must be a command; else it may be prose."""


class Text(NamedTuple):
    """A piece of text: a file, a string of a program, a comment."""

    file: str
    line: int
    text: str
    is_remedy: bool = False


@cache
def texts() -> tuple[Text, ...]:
    files = sorted({path for pattern in TEXTS for path in ROOT.glob(pattern) if path.is_file()})
    plain = [Text(str(path.relative_to(ROOT)), 1, path.read_text()) for path in files]
    python = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    return (*plain, *chain.from_iterable(map(texts_of_program, python)))


def texts_of_program(path: Path) -> Iterator[Text]:
    """Yield strings (implicit joins are one) and comments (neighbouring ones are one)."""
    file, source = str(path.relative_to(ROOT)), path.read_text()
    tree = ast.parse(source)
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}  # fmt: skip
    remedies = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "fix"
        for part in ast.walk(node.value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield Text(file, node.lineno, "".join(map(str, parts)), node in remedies)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield Text(file, node.lineno, node.value, node in remedies)
    last = -2
    comments: list[tuple[int, list[str]]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                comments.append((token.start[0], []))
            comments[-1][1].append(token.string)
            last = token.start[0]
    for line, rows in comments:
        yield Text(file, line, "\n".join(rows))


def commands() -> Iterator[Named]:
    for text in texts():
        if text.file not in HISTORY:
            yield from commands_in(text)


def commands_in(text: Text) -> Iterator[Named]:
    whole = re.sub(r"\\\n", "  ", text.text)  # a shell's continued line
    for match in STARTS.finditer(whole):
        before, rest = whole[: match.start()], whole[match.end() :]
        line = before.rsplit("\n", 1)[-1]
        place = f"{text.file}:{text.line + whole.count(chr(10), 0, match.start())}"
        if before.endswith("`") or re.search(r"`[\w$()./]*/$", line):
            yield Named(place, rest.split("`")[0].split(), is_code=True)
        else:
            words = rest.split("\n")[0].split("`")[0].split()
            is_prose = text.file.endswith(".md") and before.count("```") % 2 == 0
            is_alone = BEFORE_A_COMMAND.fullmatch(line) is not None
            yield Named(place, words, is_code=is_alone and (not is_prose or line[:4].isspace()))


@cache
def program():
    return typer.main.get_command(app)


def problem_of(named: Named) -> str | None:
    """Return why the words are no command line of ours, or None."""
    node, said = program(), []
    for position, raw in enumerate(named.words):
        if raw in ENDS or raw.startswith(("#", "...", "…")):
            break
        word = raw.strip("[](),.;:\"'")
        said.append(word)
        if word.startswith("-"):
            node = with_option(node, word)
            if word.split("=")[0] not in options_of(node):
                return f"`{' '.join(said)}`: no option {word.split('=')[0]}"
        elif hasattr(node, "commands"):
            node = below(node, word)
            if node is None:  # prose may go on with any word
                return f"`{' '.join(said)}`: no such command" if named.is_code else None
        before = named.words[position - 1] if position else ""
        if (problem := problem_of_value(said, before, word)) is not None:
            return problem
        if not named.is_code and raw[-1] in ".,;:)":
            break
    return None


def with_option(node, word):
    """Return the command that an option belongs to: a group's own, or its default command's."""
    is_own = word.split("=")[0] in options_of(node)
    return node if is_own else default_of(node) or node


def below(node, word):
    """Return the command that a word means in a group; `list|pull` means all of them."""
    found = [node.commands.get(part) for part in word.split("|")]
    return found[-1] if all(found) else default_of(node)


def problem_of_value(said, before, word) -> str | None:
    if before == "--recipe" and re.fullmatch(r"[a-z]\w+", word) and word not in RECIPES:
        return f"no recipe {word}"
    names_weights = said[:2] in (["weights", "pull"], ["weights", "verify"])
    if names_weights and re.fullmatch(r"[a-z]+/[\w/-]+", word) and word not in WEIGHTS:
        return f"no weights {word}"
    return None


def options_of(node) -> set[str]:
    names = {name for option in node.params for name in (*option.opts, *option.secondary_opts)}
    return names | {"--help", "-h"}


def default_of(node):
    """Return the command that runs when a group's is left out, or None."""
    is_default = type(node).__name__ == "DefaultCommandGroup"
    return next(iter(node.commands.values())) if is_default else None


def leaves(node=None, path=()):
    node = program() if node is None else node
    for name, command in getattr(node, "commands", {}).items():
        yield from leaves(command, (*path, name))
    if not hasattr(node, "commands"):
        yield path, node


def test_every_named_command_exists_with_its_options() -> None:
    found = list(commands())
    assert len([named for named in found if named.is_code]) > 100
    problems = [f"{named.place}: {said}" for named in found if (said := problem_of(named))]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("`animaray moon`", "`moon`: no such command"),
        ("`animaray weights lust`", "`weights lust`: no such command"),
        ("`animaray weights list|lust`", "`weights list|lust`: no such command"),
        ("Run `animaray curate tune --moon 3`.", "`curate tune --moon`: no option --moon"),
        ("    animaray train animator --recipe moon_8xa100", "no recipe moon_8xa100"),
        ("so animaray serve --moon.", "`serve --moon`: no option --moon"),
        ("`animaray weights pull paper/moon`", "no weights paper/moon"),
        ("animaray shines on jobs", None),
        ("`.venv/bin/animaray curate videos --out dataset | head --moon`", None),
    ],
)
def test_what_does_not_exist_is_noticed(line: str, said: str | None) -> None:
    (named,) = commands_in(Text("a.md", 1, f"text\n{line}\n"))
    assert named.place == "a.md:2"
    assert problem_of(named) == said


def test_every_option_that_a_remedy_names_exists() -> None:
    known = set().union(*(options_of(command) for _, command in leaves())) | {"--debug"}
    problems = [
        f"{text.file}:{text.line}: {option}"
        for text in texts()
        if text.is_remedy
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text.text)
        if option not in known | FOREIGN_OPTIONS
    ]
    assert problems == []


def test_every_named_make_target_module_and_script_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    problems = []
    for text in texts():
        if text.file in HISTORY:
            continue
        for target in re.findall(r"(?:`|\n)make ([a-z][a-z-]+)", text.text):
            problems += [f"make {target}"] if target not in targets else []
        for module in re.findall(RUN_AS_MODULE, text.text):
            place = ROOT / module.replace(".", "/")
            exists = place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
            problems += [] if exists else [f"{text.file}:{text.line}: python -m {module}"]
        for script in re.findall(r"\b((?:benchmarks|tests|runs)/[\w/]+\.(?:py|sh))", text.text):
            exists = (ROOT / script).is_file()
            problems += [] if exists else [f"{text.file}:{text.line}: {script}"]
    assert problems == []


def examples() -> list[tuple[str, str]]:
    return [
        (" ".join(path), " ".join(line.split()))
        for path, command in leaves()
        for line in re.findall(r"Example: (.*?)(?=\n\s*\n|\Z)", command.help or "", re.DOTALL)
    ]


@pytest.mark.parametrize(("path", "line"), examples(), ids=lambda text: text.split(" --")[0])
def test_every_example_of_a_help_page_is_a_call_of_that_command(
    path: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *words = shlex.split(line)
    assert first == "animaray"
    assert " ".join(parsed(words, monkeypatch)) == path


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command that takes the words; it refuses options, values and missing words."""
    node, taken = program(), []
    while hasattr(node, "commands"):
        is_named = bool(words) and words[0] in node.commands
        taken.append(words.pop(0) if is_named else next(iter(node.commands)))
        node = node.commands[taken[-1]]
    for parameter in node.params:  # whether the user's files are there is no question here
        monkeypatch.setattr(parameter, "callback", None)
    node.make_context(" ".join(taken), list(words))
    return taken


def shell_lines() -> list[tuple[str, str]]:
    """Return the command lines of ours in the shell blocks of README and docs."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        name = str(page.relative_to(ROOT))
        for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", page.read_text(), re.M | re.S):
            lines = re.sub(r"^(\w+=\S+ )+", "", block.replace("\\\n", " "), flags=re.M).splitlines()
            found += [(name, line) for line in lines if line.startswith("animaray ")]
    return [each for each in found if each[0] not in HISTORY]


def words_of(line: str) -> list[str]:
    """Return what follows `animaray`, up to a comment, pipe or redirection."""
    words = shlex.split(line, comments=True)[1:]
    return words[: min((place for place, word in enumerate(words) if word in ENDS), default=None)]


def test_there_are_command_lines_on_every_page_for_users() -> None:
    pages = [page for page, _ in shell_lines()]
    for page in ("README", "docs/index", "docs/ml-teams", "docs/operators", "docs/services"):
        assert pages.count(f"{page}.md") >= 3


@pytest.mark.parametrize(("page", "line"), shell_lines())
def test_every_command_line_of_a_page_is_understood(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parsed(words_of(line), monkeypatch)


@pytest.mark.parametrize(("page", "line"), [x for x in shell_lines() if " --set " in x[1]])
def test_every_setting_of_a_page_is_known(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(line)
    if words[:2] != ["curate", "tune"]:
        assert run([*words, "--print-config"]) == 0


def test_every_setting_that_a_text_names_is_one_of_some_command() -> None:
    known = {
        key
        for kind in (CurationConfig, EncodeConfig, EvaluateConfig, ServeConfig,
                     AlignerTrainingConfig, AnimatorTrainingConfig)
        for key in keys_of(kind)
    }  # fmt: skip
    problems = [
        f"{text.file}: {key}"
        for text in texts()
        if text.file not in HISTORY
        for key in re.findall(r"--set ['\"]?([a-z_]+(?:\.[a-z_]+)*)=", text.text)
        if key not in known | EXAMPLES
    ]
    assert problems == []


def keys_of(kind: type, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys_of(hints[field.name], f"{prefix}{field.name}.")


def test_everything_named_below_demo_is_made_by_the_demo() -> None:
    settings = DemoSettings(out=Path("demo"))
    made = {
        settings.videos_dir, settings.dataset_dir, settings.media_dir, settings.aligner_dir,
        settings.animator_dir, settings.evaluation_dir, settings.serving_dir,
        settings.aligner_dir / "weights", settings.animator_dir / "weights",
        settings.out / "index.html", settings.out / "demo.json",
    }  # fmt: skip
    problems = [
        f"{text.file}:{text.line}: {name}"
        for text in texts()
        if text.file not in HISTORY
        for name in re.findall(r"(?<![\w/.-])demo/[\w./-]*\w", text.text)
        if Path(name) not in made and not name.endswith(".py")  # a file of cli/demo/
    ]
    assert problems == []
