"""Where uploads and results lie: names made by the server, complete or absent, swept when done.

data_dir/jobs.sqlite
data_dir/uploads/JOB_ID/reference_image, driving_video
data_dir/results/JOB_ID.FENCE.mp4
"""

import os
import re
import shutil
import time
from pathlib import Path

from animaray.platform.errors import UsageError
from animaray.platform.storage import sync_folder, write_bytes_atomic

_JOB_ID = re.compile(r"[0-9a-f]{32}")


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

    def upload_dir(self, job_id: str) -> Path:
        """Make and return the folder of a job's uploads.

        Raises:
            UsageError: The id was not made by this server.
        """
        if not _JOB_ID.fullmatch(job_id):
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
        if _JOB_ID.fullmatch(job_id):
            shutil.rmtree(self._uploads_dir / job_id, ignore_errors=True)

    def remove_results(self, job_id: str, *, keep: str | None = None) -> None:
        """Remove a job's results of all attempts, except the published one if named."""
        for path in self.results_dir.glob(f"{job_id}.*"):
            if path.name != keep:
                path.unlink(missing_ok=True)

    def sweep(
        self, *, upload_ids: set[str], result_ids: set[str], older_than_s: float = 3600.0
    ) -> list[Path]:
        """Remove files that no job needs any more; return their paths.

        Args:
            upload_ids: Jobs whose uploads are still needed.
            result_ids: Jobs whose results are still needed.
            older_than_s: Younger files may belong to a request or result that is just arriving.
        """
        newest_s = time.time() - older_than_s
        swept = []
        for folder, needed in ((self._uploads_dir, upload_ids), (self.results_dir, result_ids)):
            for path in folder.iterdir():
                job_id = path.name.lstrip(".").split(".")[0]
                if job_id in needed or _changed_after(path, newest_s):
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                swept.append(path)
        return swept


def _changed_after(path: Path, time_s: float) -> bool:
    try:
        return path.stat().st_mtime > time_s
    except FileNotFoundError:  # somebody else removed it
        return True
