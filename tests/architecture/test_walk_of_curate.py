"""The walk that docs/architecture.md gives of `animaray curate` is the code's own, and short."""

from tests.architecture.test_walk_of_animate import ROOT, STEP, definitions, reach

MAX_FILES = 13


def walk() -> list[tuple[int, str, str]]:
    """Return depth, file and name of each step."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.split("## What happens in `animaray curate`")[1].split("\n## ")[0]
    return [(len(indent) // 4, file, name) for indent, file, name in STEP.findall(section)]


def test_each_step_is_called_by_the_one_above_it() -> None:
    above: list[tuple[str, str]] = []
    for depth, file, name in walk():
        assert name in definitions(file), f"{file} has no {name}"
        del above[depth:]
        assert len(above) == depth
        if above:
            called = name.split(".")[-1]
            assert reach(*above[-1], called), f"{above[-1]} does not call {name}"
        above.append((file, name))
    assert len(walk()) > MAX_FILES


def test_it_begins_with_the_command_and_ends_with_the_commit_in_few_files() -> None:
    steps = walk()
    assert steps[0][1:] == ("cli/curate.py", "run")
    assert steps[-1][1:] == ("datasets/commit_log.py", "CommitLog.commit")
    assert len({file for _, file, _ in steps}) <= MAX_FILES
