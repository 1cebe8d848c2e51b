"""Checkpoints that are complete or absent: temporary folder, manifest, rename.

All ranks write into one temporary folder on shared storage; rank 0 then hashes the files, writes
the manifest last and renames the folder. A folder without a manifest does not exist for us.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animaray.platform.errors import RunError
from animaray.platform.removal import remove, remove_own
from animaray.platform.storage import read_json, sha256_file, sync_folder, write_json_atomic

MANIFEST = "manifest.json"
_COMPLETE = re.compile(r"step-(\d{8})")
_UNFINISHED = re.compile(r"\.step-\d{8}\.tmp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int
    """Optimizer steps that it contains."""
    world_size: int
    """Workers that wrote it."""
    strategy: str
    """Strategy that wrote it: "deepspeed" or "ddp"."""


def temporary_folder(checkpoints_dir: Path, step: int) -> Path:
    """Return where the ranks write checkpoint `step` before it is complete."""
    return checkpoints_dir / f".step-{step:08d}.tmp"


def clear_temporary(checkpoints_dir: Path) -> None:
    """Remove what a killed run left unfinished."""
    remove_own(checkpoints_dir, _UNFINISHED, "this checkpoint was never completed")


def commit_checkpoint(
    checkpoints_dir: Path, step: int, *, world_size: int, strategy: str
) -> Checkpoint:
    """Make the files that all ranks have written a checkpoint; called by rank 0 alone."""
    temporary = temporary_folder(checkpoints_dir, step)
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    with ThreadPoolExecutor(max_workers=8) as pool:
        digests = list(pool.map(_sync_and_hash, files))
    manifest = {
        "step": step,
        "world_size": world_size,
        "strategy": strategy,
        "files": {
            str(path.relative_to(temporary)): {"size_bytes": path.stat().st_size, "sha256": digest}
            for path, digest in zip(files, digests, strict=True)
        },
    }
    write_json_atomic(temporary / MANIFEST, manifest)
    final = checkpoints_dir / f"step-{step:08d}"
    remove(final, "the same step is written again")
    temporary.rename(final)
    sync_folder(checkpoints_dir)
    return Checkpoint(path=final, step=step, world_size=world_size, strategy=strategy)


def latest_checkpoint(checkpoints_dir: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, or None.

    Raises:
        RunError: A file that its manifest lists is missing or has another size.
    """
    complete = list(checkpoint_folders(checkpoints_dir).values())
    return read_checkpoint(complete[-1]) if complete else None


def checkpoint_folders(checkpoints_dir: Path) -> dict[int, Path]:
    """Return the folders of complete checkpoints by step, oldest first.

    A copy that somebody keeps beside them under a name of their own is none of ours.
    """
    found = sorted(checkpoints_dir.glob(f"step-*/{MANIFEST}"))
    return {
        int(match[1]): path.parent
        for path in found
        if (match := _COMPLETE.fullmatch(path.parent.name)) and not path.parent.is_symlink()
    }


def set_aside(path: Path) -> Path:
    """Give a checkpoint a name under which no start finds it; return the new path."""
    aside = path.with_name(f"diverged-{path.name}")
    if not aside.exists():
        path.rename(aside)
        sync_folder(path.parent)
    return aside


def read_checkpoint(path: Path) -> Checkpoint:
    """Return one checkpoint after comparing its files with the manifest by size.

    Raises:
        RunError: A file that the manifest lists is missing or has another size.
    """
    manifest: dict[str, Any] = read_json(path / MANIFEST)
    for name, facts in manifest["files"].items():
        file = path / name
        size = file.stat().st_size if file.exists() else None
        if size != facts["size_bytes"]:
            raise RunError(
                f"Checkpoint {path} is damaged: {name} should have {facts['size_bytes']} bytes, "
                f"found {size}.",
                fix=f"Remove the folder {path} to resume from the checkpoint before it.",
            )
    return Checkpoint(
        path=path,
        step=int(manifest["step"]),
        world_size=int(manifest["world_size"]),
        strategy=str(manifest["strategy"]),
    )


def prune_checkpoints(checkpoints_dir: Path, keep: int) -> None:
    """Delete all but the newest complete checkpoints, manifests first."""
    for path in list(checkpoint_folders(checkpoints_dir).values())[:-keep]:
        (path / MANIFEST).unlink(missing_ok=True)
        remove(path, f"the run keeps its newest {keep}")


def _sync_and_hash(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256_file(path)
