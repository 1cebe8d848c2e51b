"""Starting Ray: a busy machine gets several attempts, and a failure is one clear line."""

import inspect
import os
import pathlib

import pytest
import ray
from ray._private import worker

from animaray.platform import ray_session as session
from animaray.platform.errors import MachineError
from animaray.platform.ray_session import come_up, ray_session

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


def test_what_is_slow_to_come_up_gets_more_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_PAUSE_S", 0.0)
    deaths = [ray.exceptions.ActorDiedError(), TimeoutError("Proxies not available after 60s.")]

    def start() -> None:
        if deaths:
            raise deaths.pop()

    come_up(start)
    assert deaths == []


def test_what_never_comes_up_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "_PAUSE_S", 0.0)
    tried = []

    def start() -> None:
        tried.append(1)
        raise ray.exceptions.ActorDiedError

    with pytest.raises(MachineError, match="died or did not answer") as caught:
        come_up(start)
    assert len(tried) == 3
    assert "busy" in str(caught.value)
    assert "the same command goes on" in str(caught.value)


@ray.remote
class Fragile:
    """Dies as it is told."""

    def __init__(self, *, is_broken: bool) -> None:
        if is_broken:
            raise KeyError("a fault of ours")

    def die(self) -> None:
        os._exit(1)


def test_a_dead_process_of_ray_is_a_machine_error_and_our_own_fault_is_not(
    local_ray: None,
) -> None:
    with pytest.raises(MachineError, match=r"ActorDiedError.*the same command goes on"):  # noqa: SIM117
        with ray_session():
            ray.get(Fragile.remote(is_broken=False).die.remote())
    with pytest.raises(ray.exceptions.ActorDiedError, match="a fault of ours"):  # noqa: SIM117
        with ray_session():
            ray.get(Fragile.remote(is_broken=True).die.remote())


@ray.remote
def limits_of_serve() -> tuple[float, float, bool]:
    """Return what a worker's Serve reads at its start, and whether it has a terminal's input."""
    from ray.serve._private import constants

    ready, healthy = constants.PROXY_READY_CHECK_TIMEOUT_S, constants.PROXY_HEALTH_CHECK_TIMEOUT_S
    return ready, healthy, pathlib.Path("/dev/fd/0").samefile(os.devnull)


def test_serves_own_processes_wait_minutes_for_a_proxy(local_ray: None) -> None:
    ready_s, healthy_s, has_no_input = ray.get(limits_of_serve.remote())
    assert min(ready_s, healthy_s) >= 60
    assert has_no_input
