"""Turn what the user names into inputs: folders, globs, files, lists, archives and addresses.

An address of an object store (s3://, gs://, az://) is a file or a folder that is read where it
lies; every other address is fetched first.
"""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from animaray.pipelines.acquire.archives import is_archive, read_archive
from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.stages.identify import look_through
from animaray.platform.errors import ConfigError
from animaray.platform.media.file_kind import VIDEO_SUFFIXES, is_video
from animaray.platform.stores import StoredFile, is_remote, open_file_store

_MAX_LIST_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One video to curate, as the user named it."""

    uri: str
    """Name in the dataset: a path below its folder or archive, or the address."""
    origin: str
    """What the user named: folder, pattern, list, archive or address."""
    path: Path | None = None
    """Local file."""
    stored: StoredFile | None = None
    """Object of a store, by its full address."""
    url: str | None = None
    """Address to fetch."""
    problem: tuple[str, str] | None = None
    """Reason and detail where it cannot be read at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expansion:
    """What some sources name."""

    inputs: list[Input]
    """Videos and addresses, each once."""
    left_out: list[str]
    """Files beside them that are no video."""


def expand_sources(
    sources: Sequence[str], files_dir: Path, config: AcquireConfig, *, limit: int | None = None
) -> Expansion:
    """List every input that some sources name; names that clash get their folder before them.

    Args:
        sources: Folders, patterns, video files, text files with one input a line (`#` comments),
            tar and Parquet files, http and https addresses, objects and folders of a store.
        files_dir: Folder for videos that are taken out of archives.
        limit: Only the first so many; None for all.

    Raises:
        ConfigError: A source does not exist, or holds no video.
    """
    if not sources:
        raise ConfigError("Expected at least one source: a folder, file, list or address.")
    refuse_absent(sources)
    found: list[Input] = []
    left_out: list[str] = []
    names: dict[str, Input] = {}
    for source in sources:
        for item in _expand(source, files_dir, config, left_out):
            named = _unique(item, names)
            if named is None:
                continue
            names[named.uri] = named
            found.append(named)
            if limit is not None and len(found) >= limit:
                return Expansion(inputs=found, left_out=left_out)
    return Expansion(inputs=found, left_out=left_out)


def refuse_absent(sources: Sequence[str]) -> None:
    """Refuse sources that do not exist, before anything is made or started.

    Raises:
        ConfigError: One is neither address, pattern, folder nor file.
    """
    for source in sources:
        if not ("://" in source or Path(source).exists() or glob.has_magic(source)):
            raise ConfigError(
                f"Expected a folder, file, pattern or address, got {source}; there is no such "
                "thing.",
                fix="An address starts with http:// or https://.",
            )


def _unique(item: Input, names: dict[str, Input]) -> Input | None:
    """Give an input a name of its own; None when the same file or address was named before."""
    uri, parent = item.uri, _parent(item)
    while (other := names.get(uri)) is not None:
        if (other.url, other.path, other.stored) == (item.url, item.path, item.stored):
            return None
        if parent is None or parent == parent.parent:
            return None
        uri, parent = f"{parent.name}/{uri}", parent.parent
    return replace(item, uri=uri)


def _parent(item: Input) -> PurePath | None:
    if item.stored is not None:
        return PurePosixPath(item.stored.path).parent
    return item.path.absolute().parent if item.path is not None else None


def _expand(
    source: str, files_dir: Path, config: AcquireConfig, left_out: list[str]
) -> Iterator[Input]:
    if is_remote(source):
        yield from _expand_store(source, left_out)
        return
    if "://" in source:
        yield Input(uri=source, origin=source, url=source)
        return
    path = Path(source)
    if path.is_dir():
        content = look_through(path)
        left_out += map(str, content.others)
        for file in content.videos:
            yield Input(uri=file.relative_to(path).as_posix(), origin=source, path=file)
    elif path.is_file():
        yield from _expand_file(path, source, files_dir, config, left_out)
    else:
        yield from _expand_pattern(source, files_dir, config, left_out)


def _expand_store(source: str, left_out: list[str]) -> Iterator[Input]:
    """List the videos of a folder in an object store, by their names; or take the one object.

    Raises:
        ConfigError: There is nothing at the address, or no video.
    """
    store, path = open_file_store(source)
    found = None if source.endswith("/") else store.look_up(path)
    objects = [found] if found is not None else sorted(store.files(path), key=lambda o: o.path)
    folder = f"{PurePosixPath(path).parent if found is not None else path.rstrip('/')}/"
    names = {o.path.removeprefix(folder.removeprefix("./")): o for o in objects}
    videos = {
        name: o for name, o in names.items() if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES
    }
    if not videos:
        there = f"none of its {len(names)} objects is one" if names else "there is nothing"
        raise ConfigError(
            f"Expected videos at {source}; {there}.",
            fix=f"Videos of a store are known by their names: {' '.join(sorted(VIDEO_SUFFIXES))}.",
        )
    left_out += [f"{store}/{o.path}" for name, o in names.items() if name not in videos]
    for name, o in videos.items():
        yield Input(uri=name, origin=source, stored=replace(o, path=f"{store}/{o.path}"))


def _expand_pattern(
    source: str, files_dir: Path, config: AcquireConfig, left_out: list[str]
) -> Iterator[Input]:
    fixed = Path(source.partition("*")[0].partition("?")[0].partition("[")[0])
    folder = fixed if source.startswith(f"{fixed}/") and fixed.is_dir() else fixed.parent
    # Path.glob cannot take an absolute pattern, or one with several fixed parts.
    matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
    if not matches:
        raise ConfigError(f"No file matches {source}.")
    for match in matches:
        path = Path(match)
        if not path.is_file():
            continue
        if is_archive(path):
            yield from _expand_file(path, source, files_dir, config, left_out)
        elif is_video(path):
            yield Input(uri=path.relative_to(folder).as_posix(), origin=source, path=path)
        else:
            left_out.append(match)


def _expand_file(
    path: Path, origin: str, files_dir: Path, config: AcquireConfig, left_out: list[str]
) -> Iterator[Input]:
    if is_archive(path):
        for entry in read_archive(path, files_dir, config):
            if entry.is_left_out:
                left_out.append(entry.name)
            elif entry.place is not None:
                yield Input(uri=entry.place, origin=origin, url=entry.place)
            else:
                yield Input(uri=entry.name, origin=origin, path=entry.path, problem=entry.problem)
    elif is_video(path):
        yield Input(uri=path.name, origin=origin, path=path)
    else:
        yield from _expand_list(path, origin)


def _expand_list(path: Path, origin: str) -> Iterator[Input]:
    """Read one input a line: an address, or a path from the list's folder.

    Raises:
        ConfigError: It is no text file, too large, or empty.
    """
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise ConfigError(f"{path} is too large for a list: {path.stat().st_size} bytes.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is neither a video, by its name or first bytes, nor a text file with one "
            "input a line.",
            fix=f"Videos end in {' '.join(sorted(VIDEO_SUFFIXES))}.",
        ) from error
    entries = [line.strip() for line in lines]
    entries = [entry for entry in entries if entry and not entry.startswith("#")]
    if not entries:
        raise ConfigError(f"{path} lists no input.")
    for entry in entries:
        if is_remote(entry):
            yield from _expand_store(entry, [])
        elif "://" in entry:
            yield Input(uri=entry, origin=origin, url=entry)
        else:
            yield Input(uri=entry, origin=origin, path=path.parent / entry)
