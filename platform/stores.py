"""Where datasets lie: a local folder, or a prefix in an object store; the one owner of storage.

    videos/dataset          a local folder
    s3://bucket/dataset     S3 and what speaks its language (AWS_ENDPOINT_URL, ...)
    gs://bucket/dataset     Google Cloud Storage
    az://container/dataset  Azure Blob Storage

Files are written whole: a reader sees all of a file or none, and what `write` returned from
survives a power cut or a restart of the store. Paths are relative to the address, with slashes.
Settings of object stores come from the environment, as `obstore` reads them.
"""

import io
import logging
import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from animaray.platform.disk import check_room, disk_errors
from animaray.platform.errors import ConfigError, StoreError
from animaray.platform.removal import remove
from animaray.platform.storage import make_folder, sync_folder, write_bytes_atomic

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_log = logging.getLogger("animaray.stores")

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")
_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss")
_PAUSE_S = 0.5
_PIECE_BYTES = 8 * 1024**2
_MAX_RETRIES = 1000
"""More than fit: the time below is what ends them."""
_RETRY_TIME = timedelta(seconds=120)
"""How long a store may be away before a request of ours fails."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a store."""

    path: str
    size_bytes: int
    modified_ns: int
    """Unix time by the store's own clock, nanoseconds."""


class Store(ABC):
    """Files below one address; a pickled one opens the same address elsewhere."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __str__(self) -> str:
        """Return the address."""
        return self.address

    def __reduce__(self) -> tuple[object, ...]:
        """Travel as the address alone."""
        return open_store, (self.address,)

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return a whole file; FileNotFoundError where there is none."""

    @abstractmethod
    def open(self, path: str) -> io.BufferedReader:
        """Open a file for reading at any place, no more than is asked for."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Return the length of a file, bytes; None where there is none."""

    @abstractmethod
    def files(self, folder: str = "", *, after: str = "") -> Iterator[StoredFile]:
        """Yield every file below a folder, in any order; symbolic links are not followed.

        Args:
            folder: Relative to the address; all of it by default.
            after: Only files whose paths sort after this one.
        """

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write a whole file, in place of one that is there."""

    @abstractmethod
    def write_if_absent(self, path: str, data: bytes) -> bool:
        """Write a whole file unless its name is taken; return whether this call wrote it.

        Of several that race for a name one wins. `data` is different for each of them.
        """

    @abstractmethod
    def remove(self, path: str, why: str) -> bool:
        """Remove a file that we made; return whether it was there and is gone."""

    @abstractmethod
    def settle(self, folders: Iterable[str]) -> None:
        """Make the names of files that were written in some folders survive a power cut."""

    @abstractmethod
    def check_room(self, needed_bytes: int, what: str) -> None:
        """Refuse work whose results it cannot hold; DiskError, see `platform.disk`."""


class LocalStore(Store):
    """A local folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.root = root

    def read(self, path: str) -> bytes:
        """Return a whole file; see `Store`."""
        return (self.root / path).read_bytes()

    def open(self, path: str) -> io.BufferedReader:
        """Open a file for reading."""
        return (self.root / path).open("rb")

    def size(self, path: str) -> int | None:
        """Return the length of a file, bytes; None where there is none."""
        place = self.root / path
        return place.stat().st_size if place.is_file() else None

    def files(self, folder: str = "", *, after: str = "") -> Iterator[StoredFile]:
        """Yield every file below a folder; see `Store`."""
        if not (self.root / folder).is_symlink():
            yield from self._files_in(folder, after)

    def _files_in(self, folder: str, after: str) -> Iterator[StoredFile]:
        try:
            found = os.scandir(self.root / folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        with found:
            for entry in found:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files_in(path, after)
                elif path > after and entry.is_file(follow_symlinks=False):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # removed since it was listed
                        continue
                    yield StoredFile(path, status.st_size, status.st_mtime_ns)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file; raises DiskError where the disk is full or may not be written."""
        write_bytes_atomic(self.root / path, data)

    def write_if_absent(self, path: str, data: bytes) -> bool:
        """Write a whole file unless its name is taken; see `Store`."""
        place = self.root / path
        make_folder(place.parent)
        temporary = place.with_name(f".{place.stem}.{secrets.token_hex(4)}.tmp")
        with disk_errors(place.parent):
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                # A hard link fails when the name exists; a rename would replace it silently.
                os.link(temporary, place)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(place.parent)
        return place.read_bytes() == data

    def remove(self, path: str, why: str) -> bool:
        """Remove a file that we made; a symbolic link stays."""
        return remove(self.root / path, why)

    def settle(self, folders: Iterable[str]) -> None:
        """Sync some folders."""
        for folder in folders:
            sync_folder(self.root / folder)

    def check_room(self, needed_bytes: int, what: str) -> None:
        """Refuse work whose results the disk cannot hold."""
        check_room(self.root, needed_bytes, what)


class RemoteStore(Store):
    """A prefix in an object store."""

    @cached_property
    def _objects(self) -> "ObjectStore":
        from obstore.store import from_url

        options: dict[str, Any] = {
            "retry_config": {
                "max_retries": _MAX_RETRIES,
                "retry_timeout": _RETRY_TIME,
                "backoff": {
                    "init_backoff": timedelta(seconds=0.1),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
            "client_options": {
                "timeout": timedelta(seconds=60),
                "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
            },
        }
        try:
            store: ObjectStore = from_url(self.address, **options)
        except Exception as error:  # obstore's own classes have no common place
            raise ConfigError(f"{self.address} is no address of a store: {error}.") from error
        return store

    def read(self, path: str) -> bytes:
        """Return a whole object."""
        with self._errors(path):
            return bytes(self._objects.get(path).bytes())

    def open(self, path: str) -> io.BufferedReader:
        """Open an object; each read asks for its own range of bytes.

        Raises:
            FileNotFoundError: There is none.
        """
        size = self.size(path)
        if size is None:
            raise FileNotFoundError(f"{self.address}/{path}")
        return io.BufferedReader(_RangeFile(self, path, size), buffer_size=1 << 16)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return some bytes of an object."""
        with self._errors(path):
            return bytes(self._objects.get_range(path, start=start, length=length))

    def size(self, path: str) -> int | None:
        """Return the length of an object, bytes; None where there is none."""
        found = self.look_up(path)
        return None if found is None else found.size_bytes

    def look_up(self, path: str) -> StoredFile | None:
        """Return what the store tells of an object; None where there is none."""
        try:
            with self._errors(path):
                return _stored(self._objects.head(path))
        except FileNotFoundError:
            return None

    def download(self, path: str, target: Path) -> None:
        """Write an object's bytes to a local file, a piece at a time."""
        with self._errors(path), disk_errors(target.parent), target.open("wb") as file:
            for piece in self._objects.get(path).stream(min_chunk_size=_PIECE_BYTES):
                file.write(piece)

    def files(self, folder: str = "", *, after: str = "") -> Iterator[StoredFile]:
        """Yield every object below a folder; see `Store`."""
        with self._errors(folder):
            for page in self._objects.list(folder or None, offset=after or None):
                for found in page:
                    yield _stored(found)

    def write(self, path: str, data: bytes) -> None:
        """Put a whole object."""
        with self._errors(path):
            self._objects.put(path, data)

    def write_if_absent(self, path: str, data: bytes) -> bool:
        """Put an object unless its name is taken; see `Store`.

        Obstore does not ask again for what may have been done although the answer was lost. Here
        that is safe: whoever then finds the name taken knows its own bytes.

        Raises:
            StoreError: The store refuses it, or was away for two minutes.
        """
        deadline_s = time.monotonic() + _RETRY_TIME.total_seconds()
        while True:
            try:
                found = self._try_to_put(path, data)
            except StoreError as error:
                if not _is_passing(error) or time.monotonic() > deadline_s:
                    raise
                found = None
            if found is not None:
                return found
            time.sleep(_PAUSE_S)

    def _try_to_put(self, path: str, data: bytes) -> bool | None:
        """Return whether this call put an object; None where nobody can tell yet."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with self._errors(path):
                self._objects.put(path, data, mode="create")
        except (AlreadyExistsError, PreconditionError):
            try:
                return self.read(path) == data
            except FileNotFoundError:  # another one's put was under way, and came to nothing
                return None
        return True

    def remove(self, path: str, why: str) -> bool:
        """Remove an object that we made; what was never there counts as gone, too."""
        with self._errors(path):
            try:
                self._objects.delete(path)
            except FileNotFoundError:
                return False
        _log.info("Removed %s/%s: %s.", self.address, path, why)
        return True

    def settle(self, folders: Iterable[str]) -> None:
        """Do nothing: what was put stays."""

    def check_room(self, needed_bytes: int, what: str) -> None:
        """Do nothing: a store tells when it is full."""

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        """Turn what the store refuses or cannot do into StoreError.

        Raises:
            StoreError: It did.
            FileNotFoundError: No such object; as it came.
            AlreadyExistsError: The name is taken; as it came.
            PreconditionError: Likewise.
        """
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except (FileNotFoundError, AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, PermissionError, OSError, ValueError) as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"{self.address} cannot be used ({path or 'listing'}): {first_line}",
                fix="Check the bucket, AWS_ENDPOINT_URL and the keys (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_REGION; for gs:// and az:// their own), then give the "
                "same command again: it goes on.",
            ) from error


class _RangeFile(io.RawIOBase):
    """A seekable view of one object."""

    def __init__(self, store: RemoteStore, path: str, size: int) -> None:
        self._store, self._path, self._size, self._place = store, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._place)
        if length <= 0:
            return 0
        data = self._store.read_range(self._path, self._place, length)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _is_passing(error: StoreError) -> bool:
    """Return whether a connection broke: the store may be back in a moment."""
    from obstore.exceptions import GenericError

    return isinstance(error.__cause__, GenericError) and "HTTP error" in str(error.__cause__)


def _stored(found: "ObjectMeta") -> StoredFile:
    modified_us = round(found["last_modified"].timestamp() * 1e6)
    return StoredFile(found["path"], found["size"], modified_us * 1000)


def is_remote(address: str | os.PathLike[str]) -> bool:
    """Return whether an address names an object store."""
    found = _SCHEME.match(str(address))
    return found is not None and found[1] in _SCHEMES


def open_store(address: "str | os.PathLike[str] | Store") -> Store:
    """Return the store at an address; nothing is asked or made yet.

    Raises:
        ConfigError: The scheme is none that we know, or there is no bucket.
    """
    if isinstance(address, Store):
        return address
    text = str(address)
    found = _SCHEME.match(text)
    if found is None:
        return LocalStore(Path(text))
    if found[1] == "file":
        return LocalStore(Path(text.removeprefix("file://")))
    if found[1] not in _SCHEMES:
        raise ConfigError(
            f"Expected a folder or an address that begins with s3://, gs:// or az://, got {text}."
        )
    if not text[found.end() :].partition("/")[0]:
        raise ConfigError(
            f"The address {text} names no bucket.", fix=f"Name it, as {found[1]}://bucket/dataset."
        )
    return RemoteStore(text.rstrip("/"))


def open_file_store(address: str) -> tuple[RemoteStore, str]:
    """Return the store that holds the object of an address, and its path there.

    Raises:
        ConfigError: It names no object of a store.
    """
    scheme, _, rest = address.partition("://")
    bucket, _, path = rest.partition("/")
    store = open_store(f"{scheme}://{bucket}")
    if not isinstance(store, RemoteStore) or not path:
        raise ConfigError(f"Expected the address of an object, as s3://bucket/name, got {address}.")
    return store, path


@contextmanager
def local_copy(address: str, folder: Path) -> Iterator[Path]:
    """Yield a local file with the bytes of an address: a local one itself, of an object a copy.

    Args:
        folder: Where the copy lies until the end; it is made.
    """
    if not is_remote(address):
        yield Path(address)
        return
    store, path = open_file_store(address)
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"copy-{secrets.token_hex(8)}{Path(path).suffix}"
    try:
        store.download(path, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def absolute_address(address: str | os.PathLike[str]) -> str:
    """Return an address that names the same in every process: folders from the root on."""
    return str(address) if is_remote(address) else str(Path(address).absolute())
