"""Errors: one line with remedy and id, exit codes, and safe passage between processes."""

import pickle

import pytest

from animaray.platform import errors

ALL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.AnimarayError)
]


def test_text_holds_message_remedy_and_id() -> None:
    error = errors.MediaError("x.mp4 is empty.", fix="Remove it.", reason="empty")
    assert str(error) == "x.mp4 is empty. Remove it. [AR-MED-01]"


@pytest.mark.parametrize("kind", ALL)
def test_errors_survive_pickling(kind: type[errors.AnimarayError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what", fix="do", reason="r")))
    assert (type(again), again.message, again.fix, again.reason) == (kind, "what", "do", "r")


def test_ids_are_unique() -> None:
    ids = [kind.error_id for kind in ALL]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 2),
        (errors.WeightsError, 4),
        (errors.MediaError, 5),
        (errors.ServiceError, 6),
    ],
)
def test_exit_codes_are_the_documented_ones(kind: type[errors.AnimarayError], code: int) -> None:
    assert kind.exit_code == code
