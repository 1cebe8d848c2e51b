"""The walk that docs/architecture.md gives of `animaray animate` is the code's own, and short."""

from tests.architecture.walks import check_steps, walk_of

MAX_FILES = 12


def test_each_step_is_called_by_the_one_above_it() -> None:
    steps = walk_of("animate")
    check_steps(steps)
    assert len(steps) > MAX_FILES


def test_it_begins_with_the_command_and_ends_with_the_mp4_in_few_files() -> None:
    steps = walk_of("animate")
    assert steps[0][1:] == ("cli/animate/command.py", "animate")
    assert steps[-1][1:] == ("cli/animate/result.py", "write_result")
    assert len({file for _, file, _ in steps}) <= MAX_FILES
