"""Starting Ray: a busy machine gets several attempts, and a failure is one clear line."""

import inspect

import pytest
import ray
from ray._private import worker

from animaray.platform.errors import MachineError
from animaray.platform.ray_session import ray_session

SLOW = "The current node timed out during startup. This could happen because\nof many things"


@pytest.mark.parametrize(("address", "attempts"), [(None, 3), ("127.0.0.1:9", 1)])
def test_a_session_that_cannot_start_is_refused_with_its_reason(
    address: str | None, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def init(**options: object) -> None:
        tried.append(options["address"])
        # Ray itself raises a bare Exception where a node needs more than 30 s.
        raise Exception(SLOW)  # noqa: TRY002

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    where = address or "a local Ray session"
    with pytest.raises(MachineError, match=f"{where}: The current node timed out") as caught:  # noqa: SIM117
        with ray_session():
            pytest.fail("a session was yielded")
    assert "many things" not in str(caught.value)
    assert len(tried) == attempts


@pytest.mark.parametrize("address", [None, "127.0.0.1:9"])
def test_what_rays_daemons_report_never_reaches_stdout(
    address: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Ray's own thread calls this by its global name for every report.
    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    for name in ("RAY_ADDRESS", "ANIMARAY_RAY_LOGS"):
        monkeypatch.delenv(name, raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with ray_session():
        report = {"lines": ["node 7 died"], "pid": "raylet", "is_err": False}
        worker.print_to_stdstream(report, ignore_prefix=False)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("node 7 died" in shown.err) == (address is not None)
