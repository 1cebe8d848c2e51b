"""What a stage finds where it runs: settings, this node's staging folder, marks of deaths."""

import re
import secrets
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.policy.policies import Policy, policies_of_run
from animaray.platform.removal import remove_own
from animaray.platform.storage import content_id
from animaray.platform.stores import absolute_address, is_remote

STAGING_DIR = "_staging"
_STAGED_RUN = re.compile(r"[0-9a-f]{8}")


class Marks:
    """Tells of tries that never ended. These end with their process, which takes the run along."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """Note that a try begins; return how many began before and never ended."""
        self._open[key] += 1
        return self._open[key] - 1

    def end(self, key: str) -> None:
        """Note that no try is open: this one ended, and the row goes on."""
        self._open.pop(key, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """What a stage finds where it runs; it may travel to another node."""

    config: CurationConfig
    policies: tuple[Policy, ...] = ()
    """Policies that clips are judged by, the run's own first: one may come of a file that only
    the driver has."""
    address: str = ""
    """Of the dataset, the same for every node."""
    token: str = ""
    """Of the writer that is going to commit what is written here."""
    run: str = ""
    """Name of its own staging folder: workers of a killed run may still write for a moment."""
    marks: Marks = field(default_factory=Marks)

    @property
    def staging_dir(self) -> str:
        """Folder of this node for files between cutting and shelving."""
        return str(staging_of(self.config) / self.run)


def workplace_of(config: CurationConfig, token: str = "") -> Workplace:
    """Return the workplace of a run that begins."""
    return Workplace(
        config=config,
        policies=policies_of_run(config.policy),
        address=absolute_address(config.output_dir),
        token=token,
        run=secrets.token_hex(4),
    )


def staging_of(config: CurationConfig) -> Path:
    """Return the folder of this node where runs keep clips until they are shelved."""
    if config.staging_dir is not None:
        return config.staging_dir.absolute()
    if is_remote(config.output_dir):
        return Path(tempfile.gettempdir()) / f"animaray-{content_id(config.output_dir)}"
    return Path(config.output_dir).absolute() / STAGING_DIR


def clear_staging(staging: Path) -> None:
    """Remove what runs left in the staging folder, and the folder when nothing else is in it."""
    remove_own(staging, _STAGED_RUN, "a run of `curate` has ended")
    with suppress(OSError):
        staging.rmdir()
