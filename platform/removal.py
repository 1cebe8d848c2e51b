"""Take away what is ours and nothing else, and say so in the log.

A name decides whether something is ours; symbolic links never are, nor what they lead to.
"""

import logging
import re
import shutil
from pathlib import Path

_log = logging.getLogger("animaray.removal")


def remove(path: Path, why: str) -> bool:
    """Remove a file or folder that we made.

    Args:
        path: Of a name that only we give.

    Returns:
        Whether it is gone now and was there before; a symbolic link stays.
    """
    if path.is_symlink():
        _log.warning("Left %s where it is: a symbolic link is not ours.", path)
        return False
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink(missing_ok=True)
    else:
        return False
    if path.exists():
        _log.warning("Could not remove all of %s (%s).", path, why)
        return False
    _log.info("Removed %s: %s.", path, why)
    return True


def remove_own(folder: Path, own: re.Pattern[str], why: str) -> list[Path]:
    """Remove what lies directly in a folder under names of ours; everything else stays.

    Args:
        folder: Nothing happens where there is none, or only a symbolic link.
        own: Matches the whole names that only we give.

    Returns:
        What was removed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return []
    found = [path for path in sorted(folder.iterdir()) if own.fullmatch(path.name)]
    return [path for path in found if remove(path, why)]
