"""Where uploads and results lie: names made by the server, complete or absent, removed when done.

data_dir/jobs.sqlite
data_dir/uploads/JOB_ID/reference_image, driving_video
data_dir/results/JOB_ID.FENCE.mp4

The folder may hold other people's files as well. Only names of these forms are ever removed, one
by one; a folder goes only when it is empty, and a link is never followed.
"""

import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from animaray.platform.errors import ConfigError, UsageError
from animaray.platform.storage import sync_folder, write_bytes_atomic

UPLOAD_NAMES = ("reference_image", "driving_video")
"""Files of one job's uploads, named as the form fields they came in."""

_JOB_ID = re.compile(r"[0-9a-f]{32}")
_RESULT = re.compile(r"([0-9a-f]{32})\.\d+\.mp4")
_UNFINISHED_RESULT = re.compile(rf"\.{_RESULT.pattern}\.[0-9a-f]{{8}}\.tmp")
"""What a killed worker leaves of `write_bytes_atomic`."""
_DATABASE_TABLES = {"schema_version", "jobs"}


def is_job_id(text: str) -> bool:
    """Tell whether a text has the form of the ids that this server makes."""
    return _JOB_ID.fullmatch(text) is not None


class JobFiles:
    """The files of all jobs below one data folder.

    Args:
        data_dir: Folder that every replica sees under this path.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._uploads_dir = data_dir / "uploads"
        self.results_dir = data_dir / "results"
        for folder in (self._uploads_dir, self.results_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @staticmethod
    def check_data_dir(data_dir: Path) -> None:
        """Refuse a folder that another program or person uses; nothing is made or changed.

        Args:
            data_dir: Folder that shall hold jobs, uploads and results.

        Raises:
            ConfigError: There are foreign files where ours would go, and no job of ours.
        """
        tables = _tables_of(data_dir / "jobs.sqlite")
        is_our_database = tables >= _DATABASE_TABLES
        if tables and not is_our_database:
            raise ConfigError(
                f"{data_dir / 'jobs.sqlite'} is a database of another program.",
                fix="Choose an empty or new folder with --data.",
            )
        uploads_dir, results_dir = data_dir / "uploads", data_dir / "results"
        ours: list[Path] = []
        foreign: list[Path] = []
        for folder, job_of in ((uploads_dir, _job_of_upload), (results_dir, _job_of_result)):
            for path in folder.iterdir() if folder.is_dir() else ():
                (foreign if job_of(path) is None else ours).append(path)
        if not foreign or ours or is_our_database:
            return
        names = ", ".join(str(path.relative_to(data_dir)) for path in sorted(foreign)[:3])
        raise ConfigError(
            f"The data folder {data_dir} holds {len(foreign)} files or folders that no animaray"
            f" server made ({names}).",
            fix="Choose an empty or new folder with --data.",
        )

    def upload_dir(self, job_id: str) -> Path:
        """Make and return the folder of a job's uploads.

        Raises:
            UsageError: The id was not made by this server.
        """
        if not is_job_id(job_id):
            raise UsageError(f"Expected a job id of 32 hexadecimal digits, got {job_id!r}.")
        folder = self._uploads_dir / job_id
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def seal_uploads(self, job_id: str) -> None:
        """Make a job's uploads survive a power cut; call before the job is accepted."""
        folder = self.upload_dir(job_id)
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(folder)
        sync_folder(self._uploads_dir)

    def path(self, name: str) -> Path:
        """Return the path of a stored name, such as `uploads/JOB_ID/driving_video`."""
        return self.data_dir / name

    def write_result(self, job_id: str, fence: int, mp4: bytes) -> str:
        """Store a result under a name that no other attempt uses; return the name."""
        name = f"{job_id}.{fence}.mp4"
        write_bytes_atomic(self.results_dir / name, mp4)
        return name

    def remove_attempt(self, job_id: str, fence: int) -> None:
        """Remove the result of one attempt, if it got that far."""
        (self.results_dir / f"{job_id}.{fence}.mp4").unlink(missing_ok=True)

    def remove_uploads(self, job_id: str) -> None:
        """Remove a job's uploads."""
        if is_job_id(job_id):
            _remove_uploads(self._uploads_dir / job_id)

    def remove_results(self, job_id: str, *, keep: str | None = None) -> None:
        """Remove a job's results of all attempts, except the published one if named."""
        for path in self.results_dir.glob(f"{job_id}.*.mp4"):
            if _job_of_result(path) == job_id and path.name != keep:
                path.unlink(missing_ok=True)

    def vacuum(
        self, *, upload_ids: set[str], result_ids: set[str], older_than_s: float = 3600.0
    ) -> list[Path]:
        """Remove files of ours that no job needs any more; return their paths.

        Args:
            upload_ids: Jobs whose uploads are still needed.
            result_ids: Jobs whose results are still needed.
            older_than_s: Younger files may belong to a request or result that is just arriving.
        """
        newest_s = time.time() - older_than_s

        def is_unneeded(path: Path, job_id: str | None, needed: set[str]) -> bool:
            if job_id is None or job_id in needed:
                return False
            return not _changed_after(path, newest_s)

        removed = [
            path
            for path in self._uploads_dir.iterdir()
            if is_unneeded(path, _job_of_upload(path), upload_ids) and _remove_uploads(path)
        ]
        for path in self.results_dir.iterdir():
            if is_unneeded(path, _job_of_result(path), result_ids):
                path.unlink(missing_ok=True)
                removed.append(path)
        return removed


def _job_of_upload(path: Path) -> str | None:
    """Return whose uploads a folder holds, or None for what this server did not make."""
    is_ours = is_job_id(path.name) and path.is_dir() and not path.is_symlink()
    return path.name if is_ours else None


def _job_of_result(path: Path) -> str | None:
    """Return whose result a file is, or None for what this server did not make."""
    found = _RESULT.fullmatch(path.name) or _UNFINISHED_RESULT.fullmatch(path.name)
    is_ours = found is not None and path.is_file() and not path.is_symlink()
    return found[1] if found is not None and is_ours else None


def _remove_uploads(folder: Path) -> bool:
    """Remove our files in a job's folder, and the folder if nothing is left; return whether it is.

    A link in the folder's place is left alone: what lies behind it is not ours.
    """
    if folder.is_symlink():
        return False
    try:
        for name in UPLOAD_NAMES:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    except OSError:  # never made, removed by somebody else, or holding somebody's file
        return False
    return True


def _tables_of(path: Path) -> set[str]:
    """Return the names of an SQLite file's tables without changing it; none if it is not one."""
    if not path.is_file():
        return set()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
    except sqlite3.Error:  # what opens it for writing says what is wrong with it
        return set()
    return {name for (name,) in rows}


def _changed_after(path: Path, time_s: float) -> bool:
    try:
        return path.lstat().st_mtime > time_s
    except FileNotFoundError:  # somebody else removed it
        return True
