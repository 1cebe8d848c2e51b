"""What the doctor finds: nothing missing without the command that gets it."""

import socket

from animaray.platform.machine import find_free_port, inspect_machine


def test_every_gap_comes_with_its_remedy() -> None:
    findings = inspect_machine()
    subjects = [finding.subject for finding in findings]
    assert {"Python", "Memory", "Disk", "torch", "ray", "GPU"} <= set(subjects)
    for finding in findings:
        assert finding.state in {"ok", "missing", "optional"}
        assert finding.state == "ok" or finding.fix


def test_installed_packages_are_reported_with_their_version() -> None:
    torch = next(finding for finding in inspect_machine() if finding.subject == "torch")
    assert torch.state == "ok"
    assert torch.detail.startswith("2.")


def test_a_free_port_can_be_bound() -> None:
    port = find_free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
