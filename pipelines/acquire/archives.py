"""Take videos out of tar files (WebDataset) and Parquet files, as equal citizens of folders.

Neither format is trusted: names are ours, members are counted and capped, links and devices are
left out; Parquet is read only when its footer holds no Arrow extension type and no huge row group.
"""

import base64
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from animaray.pipelines.acquire.config import AcquireConfig
from animaray.platform.disk import disk_error
from animaray.platform.errors import ConfigError
from animaray.platform.media.file_kind import VIDEO_SUFFIXES
from animaray.platform.storage import content_id, sync_folder

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BLOCK_BYTES = 1 << 20
_BYTES_COLUMNS = ("video", "mp4", "webm", "bytes", "media")
_PLACE_COLUMNS = ("path", "url", "video_path", "video_url", "file_name", "file", "video", "uri")
_MAX_ROW_GROUP_BYTES = 2 * 1024**3
_MAX_FOOTER_BYTES = 256 << 20
_RAY_PICKLE = (
    "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
    "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveEntry:
    """One video of an archive: bytes in a file of ours, or the place where it is."""

    name: str
    """Archive and member, as in `clips.tar/0001.mp4`."""
    path: Path | None = None
    """Local file."""
    place: str | None = None
    """Address or path that a Parquet row names."""
    problem: tuple[str, str] | None = None
    """Reason and detail where it could not be taken out."""
    is_left_out: bool = False
    """Whether it is no video."""


def read_archive(path: Path, files_dir: Path, config: AcquireConfig) -> Iterator[ArchiveEntry]:
    """Yield the videos of a tar or Parquet file; taken out before means not written again.

    Args:
        files_dir: Folder for the files that are taken out.

    Raises:
        ConfigError: It is no such archive, or holds what is refused.
    """
    files_dir.mkdir(parents=True, exist_ok=True)
    if path.name.lower().endswith(TAR_SUFFIXES):
        return _read_tar(path, files_dir, config)
    return _read_parquet(path, files_dir, config)


def is_archive(path: Path) -> bool:
    """Return whether a file's name is that of an archive we read."""
    return path.name.lower().endswith((*TAR_SUFFIXES, ".parquet"))


def _read_tar(path: Path, files_dir: Path, config: AcquireConfig) -> Iterator[ArchiveEntry]:
    try:
        with tarfile.open(path, "r:*") as archive:
            for count, member in enumerate(archive):
                if count >= config.max_archive_members:
                    raise ConfigError(
                        f"{path} holds more than {config.max_archive_members} members."
                    )
                suffix = PurePosixPath(member.name).suffix.lower()
                name = f"{path.name}/{member.name}"
                if suffix not in VIDEO_SUFFIXES or not member.isreg():
                    if not member.isdir():
                        yield ArchiveEntry(name=name, is_left_out=True)
                    continue
                if member.size > config.max_file_bytes:
                    yield _too_large(name, member.size, config)
                    continue
                target = _target(path, files_dir, member.name, suffix)
                if _is_new(target, path, member.size):
                    source = archive.extractfile(member)
                    assert source is not None  # noqa: S101 - a regular member
                    _write(target, path, iter(partial(source.read, _BLOCK_BYTES), b""))
                yield ArchiveEntry(name=name, path=target)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if (no_disk := disk_error(error, files_dir)) is not None:
            raise no_disk from error
        yield ArchiveEntry(
            name=f"{path.name}/(rest)", problem=("broken", f"the archive is damaged: {error}"[:300])
        )


def _read_parquet(path: Path, files_dir: Path, config: AcquireConfig) -> Iterator[ArchiveEntry]:
    check_parquet(path, max_row_group_bytes=_MAX_ROW_GROUP_BYTES)
    with pq.ParquetFile(path) as table:
        column, take = _pick_column(path, table.schema_arrow)
        if table.metadata.num_rows > config.max_archive_members:
            raise ConfigError(f"{path} holds more than {config.max_archive_members} rows.")
        row = 0
        for batch in table.iter_batches(batch_size=1, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield take(f"{path.name}/{row}", value, path, files_dir, config)
                row += 1


def check_parquet(path: Path, *, max_row_group_bytes: int) -> None:
    """Refuse a foreign Parquet file by its raw footer, before Arrow builds any type of it.

    Even reading the metadata with pyarrow builds registered extension types.

    Raises:
        ConfigError: It is damaged, holds an extension type or a too large row group, or Ray would
            unpickle what it holds.
    """
    if dangerous := [name for name in _RAY_PICKLE if os.environ.get(name)]:
        raise ConfigError(
            f"{dangerous[0]} is set, so Ray would run code from Parquet files.", fix="Unset it."
        )
    raw = _raw_footer(path)
    if any(mark in raw for mark in _extension_marks()):
        raise ConfigError(
            f"{path} holds Arrow extension types, which may run code when they are read.",
            fix="Write it again with plain columns.",
        )
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{path} is no Parquet file: {error}".splitlines()[0]) from error
    for index in range(footer.num_row_groups):
        size = footer.row_group(index).total_byte_size
        if not 0 <= size <= max_row_group_bytes:
            raise ConfigError(
                f"Row group {index} of {path} takes {size} bytes; the limit is "
                f"{max_row_group_bytes}.",
                fix="Write it again with fewer rows per group.",
            )


def _raw_footer(path: Path) -> bytes:
    """Return the bytes that describe a Parquet file.

    Raises:
        ConfigError: It is no Parquet file, or its footer is encrypted or too large.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or not 0 < length <= min(size - 8, _MAX_FOOTER_BYTES):
            raise ConfigError(f"{path} is no Parquet file with a plain footer.")
        file.seek(size - 8 - length)
        return file.read(length)


def _extension_marks() -> list[bytes]:
    """Return the name of Arrow's extension key, plain and as base64 at each of its alignments."""
    key = b"ARROW:extension:name"
    marks = [key]
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + key)
        first = (0, 2, 3)[shift]  # characters that hold only part of the key
        marks.append(coded[first : (shift + len(key)) // 3 * 4])
    return marks


Take = Callable[[str, Any, Path, Path, AcquireConfig], ArchiveEntry]


def _pick_column(path: Path, schema: pa.Schema) -> tuple[str, Take]:
    """Return the column with videos and what to do with its values.

    Raises:
        ConfigError: There is none.
    """
    for name in _BYTES_COLUMNS:
        if name in schema.names:
            kind = _value_type(schema.field(name).type)
            if _is_bytes(kind):
                return name, _take_bytes
            if pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind}:
                return name, _take_struct
    for name in _PLACE_COLUMNS:
        if name in schema.names:
            kind = _value_type(schema.field(name).type)
            if _is_text(kind) or _is_bytes(kind):  # some writers do not mark text as such
                return name, _take_place
    raise ConfigError(
        f"{path} has no column of videos; expected bytes in one of {list(_BYTES_COLUMNS)} or text "
        f"in one of {list(_PLACE_COLUMNS)}, got "
        f"{', '.join(f'{field.name} ({field.type})' for field in schema)[:500]}."
    )


def _value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, which a dictionary may hold once each."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def _is_bytes(kind: pa.DataType) -> bool:
    is_plain = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return is_plain or kind == pa.binary_view() or pa.types.is_fixed_size_binary(kind)


def _take_struct(
    name: str,
    value: dict[str, Any] | None,
    path: Path,
    files_dir: Path,
    config: AcquireConfig,
) -> ArchiveEntry:
    value = value or {}
    if value.get("bytes"):
        return _take_bytes(name, value["bytes"], path, files_dir, config)
    return _take_place(name, value.get("path"), path, files_dir, config)


def _take_bytes(
    name: str, value: bytes | None, path: Path, files_dir: Path, config: AcquireConfig
) -> ArchiveEntry:
    if not value:
        return ArchiveEntry(name=name, problem=("empty", "the row holds no bytes"))
    if len(value) > config.max_file_bytes:
        return _too_large(name, len(value), config)
    target = _target(path, files_dir, name, ".video")
    if _is_new(target, path, len(value)):
        _write(target, path, [value])
    return ArchiveEntry(name=name, path=target)


def _take_place(
    name: str, value: str | bytes | None, path: Path, _files_dir: Path, _config: AcquireConfig
) -> ArchiveEntry:
    if not value:
        return ArchiveEntry(name=name, problem=("empty", "the row names no place"))
    try:
        value = value if isinstance(value, str) else value.decode("utf-8")
    except UnicodeDecodeError:
        return ArchiveEntry(name=name, problem=("broken", "the row's place is no text"))
    if "://" in value:
        return ArchiveEntry(name=name, place=value)
    folder = path.parent.resolve()
    local = (folder / value).resolve()
    if not local.is_relative_to(folder):
        return ArchiveEntry(name=name, problem=("outside", f"{value} lies outside {folder}"))
    return ArchiveEntry(name=f"{path.name}/{value}", path=local)


def _too_large(name: str, size: int, config: AcquireConfig) -> ArchiveEntry:
    detail = f"{size} bytes; the limit is {config.max_file_bytes}"
    return ArchiveEntry(name=name, problem=("too_large", detail))


def _target(archive: Path, files_dir: Path, member: str, suffix: str) -> Path:
    return files_dir / f"{content_id('member', archive.name, member)}{suffix}"


def _is_new(target: Path, archive: Path, size: int) -> bool:
    """Return whether a member must be written: it is absent, or of another archive's version."""
    try:
        status = target.stat()
    except OSError:
        return True
    return status.st_size != size or status.st_mtime_ns != archive.stat().st_mtime_ns


def _write(target: Path, archive: Path, blocks: Iterable[bytes]) -> None:
    """Write a file that is complete or absent, with its archive's time of change."""
    temporary = target.with_suffix(".tmp")
    with temporary.open("wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    changed_ns = archive.stat().st_mtime_ns
    os.utime(temporary, ns=(changed_ns, changed_ns))
    temporary.replace(target)
    sync_folder(target.parent)
