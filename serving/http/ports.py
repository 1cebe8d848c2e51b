"""Addresses of this machine: which are loopback, and which port can be listened on."""

import errno
import ipaddress
import socket
import time

from animaray.platform.errors import PortError


def is_loopback(host: str) -> bool:
    """Tell whether a name or address, without port or brackets, means this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")


def check_port(host: str, port: int) -> None:
    """Return if the port can be bound.

    Args:
        host: Name or address to listen on.
        port: TCP port.

    Raises:
        PortError: It is taken, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise PortError(
                f"Port {port} of {host} {'is taken' if taken else f'cannot be bound: {error}'}.",
                fix="Stop what uses it, or choose another with --port.",
            ) from error


def await_free_port(host: str, port: int, timeout_s: float = 20.0) -> None:
    """Wait until nobody listens any more, or the time is over: Ray's proxy ends after its caller.

    Args:
        host: As for `check_port`.
        port: As for `check_port`.
        timeout_s: Longest wait.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            check_port(host, port)
        except PortError:
            time.sleep(0.1)
        else:
            return
