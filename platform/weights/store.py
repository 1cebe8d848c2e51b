"""The registry of all weights files: purpose, source, licence, and where each one lies.

Look-up order: shipped inside the package, then the folder `ANIMARAY_WEIGHTS`, then the cache
(`ANIMARAY_CACHE_DIR`/weights or the user's cache folder). Only `pull_weights` uses the network.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import platformdirs

from animaray.platform.disk import disk_errors
from animaray.platform.errors import DatasetError, WeightsError
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.removal import remove, remove_own
from animaray.platform.storage import (
    content_id,
    read_json,
    sha256_file,
    sync_folder,
    write_json_atomic,
)
from animaray.platform.weights.archive import unpack_files, unpack_folder
from animaray.platform.weights.download import PART_NAME, fetch, one_at_a_time
from animaray.platform.weights.entry import BUNDLED, CONVERTED, INDEX, WeightsEntry
from animaray.platform.weights.own import own_file
from animaray.platform.weights.table import WEIGHTS
from animaray.platform.weights.whole_files import file_problem

BUNDLED_ANIMATOR = "generated/animator"
"""The folder of weights that commands take where none is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsState:
    """What this machine has of one registered weights file."""

    entry: WeightsEntry
    """The registry row."""
    state: str
    """"ok", or why not: missing, empty, pointer, size, damaged, truncated."""
    path: str | None
    """Where the file or folder lies; None when it is missing."""
    problem: str | None
    """A sentence on what is wrong and how to get it; None when it is usable."""


def bundled_folder() -> Path:
    """Return the folder of the weights that are shipped inside the package."""
    return Path(__file__).parents[2] / "models" / "perception" / "generated"


def weights_cache_dir() -> Path:
    """Return the folder where `pull_weights` puts files."""
    base = os.environ.get("ANIMARAY_CACHE_DIR") or platformdirs.user_cache_dir("animaray")
    return Path(base) / "weights"


def weights_entry(weights_id: str) -> WeightsEntry:
    """Return the registry row of an id.

    Raises:
        WeightsError: The id is not in the registry.
    """
    entry = WEIGHTS.get(weights_id)
    if entry is None:
        raise WeightsError(
            f"Unknown weights id `{weights_id}`; known are {', '.join(sorted(WEIGHTS))}.",
            fix="See `animaray weights list`.",
            reason="unknown",
        )
    return entry


def resolve_weights(weights_id: str) -> Path:
    """Return the local path of a registered weights file or folder, looked at but not hashed.

    An unknown id and a file that is missing, empty, a Git-LFS pointer, cut off or of the wrong
    size raise WeightsError, whose `reason` says which.

    Args:
        weights_id: A key of `WEIGHTS`.
    """
    entry = weights_entry(weights_id)
    path = _find(entry)
    if path is None:
        _refuse_missing(entry)
    problem = _quick_problem(_as_found(entry, path), path)
    if problem is not None:
        _refuse_unusable(entry, problem)
    return path


def verify_weights(weights_id: str) -> Path:
    """Check a weights file completely, its SHA-256 included, and return its path.

    Raises WeightsError as `resolve_weights` does, and where the SHA-256 is not the registry's.
    """
    entry = weights_entry(weights_id)
    path = resolve_weights(weights_id)
    problem = _hash_problem(_as_found(entry, path), path)
    if problem is not None:
        _refuse_unusable(entry, problem)
    return path


def weights_state(weights_id: str) -> WeightsState:
    """Return the place and condition of one weights file on this machine; nothing is hashed."""
    entry = weights_entry(weights_id)
    path = _find(entry)
    if path is None:
        problem = f"Missing; to get it: {_how_to_get(entry)}"
        return WeightsState(entry=entry, state="missing", path=None, problem=problem)
    entry = _as_found(entry, path)
    found = _quick_problem(entry, path)
    if found is None:
        return WeightsState(entry=entry, state="ok", path=str(path), problem=None)
    reason, sentence = found
    problem = f"{sentence} To get it: {_how_to_get(entry)}"
    return WeightsState(entry=entry, state=reason, path=str(path), problem=problem)


def profile_entries(profile: str) -> list[WeightsEntry]:
    """Return the rows of the files that a profile cannot work without; none for an unknown one."""
    return [entry for entry in WEIGHTS.values() if profile in entry.needed_by]


def is_download(entry: WeightsEntry) -> bool:
    """Return whether `pull_weights` can fetch a file, or it comes another way."""
    return entry.source != BUNDLED and not _is_own_make(entry)


def pull_weights(weights_id: str, *, quiet: bool = True) -> Path:
    """Download a weights file into the cache, check it, and return its path.

    A file that is already there and in order is not fetched again, nor hashed again while its size
    and time are those of the last check. Broken or wrong downloads are never left under the final
    name. An unknown id, one without public download, a failed download and one that is not the
    registered file raise WeightsError.

    Args:
        weights_id: A key of `WEIGHTS` with a public source.
        quiet: Whether to show no progress.

    Raises:
        WeightsError: A download would be needed, but `ANIMARAY_OFFLINE` is set.
    """
    entry = weights_entry(weights_id)
    path = _usable(entry)
    if path is not None:
        return path
    if not is_download(entry):
        _refuse_missing(entry)
    if os.environ.get("ANIMARAY_OFFLINE", "").lower() in {"1", "true", "yes"}:
        raise WeightsError(
            f"`{entry.id}` would have to be downloaded, but ANIMARAY_OFFLINE is set.",
            fix="Unset ANIMARAY_OFFLINE, or put the file into the folder ANIMARAY_WEIGHTS.",
            reason="offline",
        )
    with stage_progress(entry.id, entry.download_bytes, quiet=quiet, unit="bytes") as progress:
        return _download(entry, progress)


def pull_profile(profile: str, *, quiet: bool = True) -> dict[str, Path]:
    """Pull every file that a profile cannot work without, as `pull_weights` does.

    Args:
        profile: generated, permissive or paper.
        quiet: Whether to show no progress.

    Returns:
        Where each file lies, by its id.
    """
    return {entry.id: pull_weights(entry.id, quiet=quiet) for entry in profile_entries(profile)}


def _download(entry: WeightsEntry, progress: StageProgress) -> Path:
    """Fetch, check, put in place and remember; one process at a time."""
    cache = weights_cache_dir().parent
    target = weights_cache_dir() / entry.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(cache, entry, progress):
        # Another process may have fetched it while this one waited.
        path = _usable(entry)
        if path is None:
            path = target
            part = fetch(entry, cache, progress)
            progress.update(note="checking")
            with disk_errors(target.parent):
                _accept_download(entry, part, target)
                _remember(entry, target)
            progress.update(note="")
    return path


def prune_weights_cache() -> list[Path]:
    """Remove every registered file from the cache, with what cut downloads left; return them.

    Files that nobody registered stay, and so does whatever a symbolic link leads to.
    """
    cache = weights_cache_dir()
    removed: list[Path] = []
    for entry in WEIGHTS.values():
        place = cache / entry.file
        half = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{8}}\.(folder|tmp)")
        removed += remove_own(place.parent, half, "an unpacking was cut")
        removed += [place] if remove(place, "the weights cache is pruned") else []
    removed += remove_own(cache.parent / "downloads", PART_NAME, "a download was cut")
    for path in removed:
        for folder in path.parents:
            if folder != cache and cache not in folder.parents:
                break
            with suppress(OSError):  # it is not empty, or gone already
                folder.rmdir()
    return removed


def _usable(entry: WeightsEntry) -> Path | None:
    """Return where a whole and right file lies, or None."""
    path = _find(entry)
    if path is None:
        return None
    entry = _as_found(entry, path)
    if _quick_problem(entry, path):
        return None
    if not _is_remembered(entry, path):
        if _hash_problem(entry, path):
            return None
        _remember(entry, path)
    return path


def _record(entry: WeightsEntry) -> Path:
    """Return the file that remembers which file of an entry was hashed last."""
    return weights_cache_dir().parent / "verified" / f"{content_id(entry.id)}.json"


def _identity(entry: WeightsEntry, path: Path) -> dict[str, object]:
    found = path.stat()
    return {
        "path": str(path.resolve()),
        "bytes": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "sha256": entry.sha256,
    }


def _remember(entry: WeightsEntry, path: Path) -> None:
    """Note that a file was hashed and is right, so that the next pull need not read it again."""
    if entry.sha256 is not None and path.is_file():
        write_json_atomic(_record(entry), _identity(entry, path))


def _is_remembered(entry: WeightsEntry, path: Path) -> bool:
    if entry.sha256 is None or not path.is_file() or not _record(entry).exists():
        return False
    try:
        return bool(read_json(_record(entry)) == _identity(entry, path))
    except DatasetError:  # a damaged note is no note
        return False


def _find(entry: WeightsEntry) -> Path | None:
    """Return the first place where the entry's file or folder exists."""
    places = [bundled_folder() / entry.file] if entry.source == BUNDLED else []
    own = os.environ.get("ANIMARAY_WEIGHTS")
    if own:
        folder = Path(own).expanduser()
        places += [folder / name for name in _names(entry)]
    places.append(weights_cache_dir() / entry.file)
    return next((place for place in places if place.exists()), None)


def _names(entry: WeightsEntry) -> tuple[str, ...]:
    """Return the names that a file may have in the folder of ANIMARAY_WEIGHTS."""
    return (entry.file, *entry.published_as)


def _as_found(entry: WeightsEntry, path: Path) -> WeightsEntry:
    """Return the registry's row, or what the owner of the file says in its place."""
    own = os.environ.get("ANIMARAY_WEIGHTS")
    folder = Path(own).expanduser() if own else None
    if folder is None or path not in [folder / name for name in _names(entry)]:
        return entry
    found = own_file(folder, entry.id)
    if found is None:
        return entry
    return replace(
        entry,
        purpose=f"{entry.purpose}; here a file of your own: {found.note}",
        size_bytes=found.size_bytes,
        sha256=found.sha256,
        confirmed_by=None,
    )


def _quick_problem(entry: WeightsEntry, path: Path) -> tuple[str, str] | None:
    """Return (reason, sentence) for what a look without hashing finds wrong, or None."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if not files:
            return "empty", f"{path} is an empty folder."
        problems = (file_problem(file) for file in files)
        return next((problem for problem in problems if problem is not None), None)
    return file_problem(path, expected_bytes=None if _is_own_make(entry) else entry.size_bytes)


def _is_own_make(entry: WeightsEntry) -> bool:
    """Return whether users convert the file: size and hash are those of one conversion."""
    return entry.source.startswith(CONVERTED)


def _hash_problem(entry: WeightsEntry, path: Path) -> tuple[str, str] | None:
    if entry.sha256 is None or path.is_dir() or _is_own_make(entry):
        return None
    found = sha256_file(path)
    if found == entry.sha256:
        return None
    return "hash", f"{path} has SHA-256 {found[:12]}…, expected {entry.sha256[:12]}…."


def _how_to_get(entry: WeightsEntry) -> str:
    if entry.source == BUNDLED:
        return (
            "it belongs to the package: reinstall animaray, or put it into a folder and set "
            "ANIMARAY_WEIGHTS=folder."
        )
    if _is_own_make(entry):
        return (
            f"no command fetches it yet; convert {entry.source.removeprefix(CONVERTED)} to ONNX "
            f"(docs/weights.md says how it must look), put it as `{entry.file}` into a folder and "
            "set ANIMARAY_WEIGHTS=folder."
        )
    what = " ".join((entry.id, *entry.beside))
    if entry.source.startswith(INDEX) and entry.needed_by:  # they come together
        what = f"--profile {entry.needed_by[0]}"
    them = "them" if entry.beside else "it"
    return f"run `animaray weights pull {what}`, or set ANIMARAY_WEIGHTS=folder with {them}."


def _refuse_missing(entry: WeightsEntry) -> NoReturn:
    """Raise what tells where the file was sought and how to get it.

    Raises:
        WeightsError: Always.
    """
    own = os.environ.get("ANIMARAY_WEIGHTS")
    looked = f"ANIMARAY_WEIGHTS={own}" if own else "ANIMARAY_WEIGHTS (not set)"
    raise WeightsError(
        f"Weights `{entry.id}` ({entry.purpose}) are missing: no `{entry.file}` in {looked} "
        f"nor in {weights_cache_dir()}.",
        fix="To get it: " + _how_to_get(entry),
        reason="missing",
    )


def _refuse_unusable(entry: WeightsEntry, problem: tuple[str, str]) -> NoReturn:
    """Raise what is wrong with a file that was found, and how to get a good one.

    Raises:
        WeightsError: Always.
    """
    reason, sentence = problem
    raise WeightsError(
        f"Weights `{entry.id}` cannot be used: {sentence}",
        fix="To get it: " + _how_to_get(entry),
        reason=reason,
    )


def _accept_download(entry: WeightsEntry, part: Path, target: Path) -> None:
    """Check a finished download and give it its final name (archives are unpacked).

    Raises:
        WeightsError: It is not the registered file.
    """
    problem = file_problem(part, expected_bytes=entry.download_bytes)
    expected = entry.download_sha256
    if problem is None and expected is not None:
        found = sha256_file(part)
        if found != expected:
            problem = "hash", f"it has SHA-256 {found[:12]}…, expected {expected[:12]}…."
    if problem is not None:
        reason, sentence = problem
        remove(part, f"it is not `{entry.id}`")
        raise WeightsError(
            f"What came from {entry.source} is not `{entry.id}`: {sentence}",
            fix="Try again; if it stays, the source has changed: please report it.",
            reason=reason,
        )
    if entry.is_archive:
        try:
            if entry.distribution is None:
                unpack_folder(entry, part, target)
            else:
                _unpack_distribution(entry, part)
        except WeightsError:
            remove(part, f"it does not hold `{entry.id}`")
            raise
        remove(part, "it was unpacked")
    else:
        part.replace(target)
        sync_folder(target.parent)


def _unpack_distribution(entry: WeightsEntry, part: Path) -> None:
    """Put all registered files of a distribution in place that are not: it is fetched once."""
    name = entry.distribution or ""
    wanted = {
        other: weights_cache_dir() / other.file
        for other in WEIGHTS.values()
        if (other.distribution, other.archive_sha256) == (name, entry.archive_sha256)
        and (other == entry or _usable(other) is None)
    }
    unpack_files(part, name, wanted)
    for other, place in wanted.items():
        _remember(other, place)
