"""Checks of what the user names, before torch, Ray or a network is loaded: wrong ones cost no wait.

Commands call them before their own heavy imports.
"""

from collections.abc import Sequence
from pathlib import Path

from animaray.platform.errors import AnimarayError, UsageError

DEFAULT_DATASET = "dataset"
"""What `curate` writes and all others read where nothing names a dataset."""
_MOST_PROBES = 8


def check_folder_exists(path: Path | None) -> None:
    """Refuse a folder that is not there; None names none and passes.

    Raises:
        UsageError: There is no such folder.
    """
    if path is not None and not path.is_dir():
        raise UsageError(f"There is no folder {path}.", fix="Check the path.")


def check_dataset(address: str | Path | None) -> None:
    """Refuse an address without a curated dataset; None names none and passes."""
    if address is not None:
        from animaray.datasets.reader import CurationDataset

        CurationDataset.open(address)


def default_dataset(*names: object) -> str | None:
    """Return the default dataset, or None where one of those may name another (is not empty)."""
    return None if any(names) else DEFAULT_DATASET


def check_weights(folder: Path | None) -> None:
    """Refuse a weights folder that is not whole; None names none and passes."""
    if folder is not None:
        from animaray.platform.weights.whole_files import require_whole_folder

        require_whole_folder(folder)


def check_picture(path: Path) -> None:
    """Refuse a file that is no readable picture."""
    _check_file_exists(path)
    from animaray.platform.media.video import read_picture_in_child

    read_picture_in_child(path)


def check_video(path: Path) -> None:
    """Refuse a file that is no readable video."""
    _check_file_exists(path)
    from animaray.platform.media.video import probe_in_child

    probe_in_child(path)


def _check_file_exists(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")


def check_named_videos(sources: Sequence[str]) -> None:
    """Refuse a call that names video files and nothing else where none of them can be opened.

    Where others are named, too, an unreadable one is one of the results, as in a folder.

    Raises:
        AnimarayError: The first file's own reason.
    """
    from animaray.platform.media.file_kind import VIDEO_SUFFIXES

    paths = [Path(source) for source in sources]
    if not 0 < len(paths) <= _MOST_PROBES or not all(
        path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES for path in paths
    ):
        return
    failures: list[AnimarayError] = []
    for path in paths:
        try:
            check_video(path)
        except AnimarayError as error:
            failures.append(error)
        else:
            return
    raise failures[0]
