"""Encode the kept clips of a dataset for training: latents, embeddings, keypoints, face boxes.

    missing clips -> workers: fit, encode, shelve -> commit        conditions/<encoder id>/

Each clip is encoded once per encoder id. Workers hold the encoders for the whole run and write the
shards; the driver sees facts alone, and makes shards visible through the commit log. A killed run
continues with the clips that are missing.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import table_prefix
from animaray.datasets.encoded_index import EncodedCommits, Shelved, join_shelved, read_index
from animaray.datasets.reader import CurationDataset
from animaray.datasets.vacuum import vacuum
from animaray.datasets.writers import writing
from animaray.models.perception.profiles import load_codec, load_image_encoder
from animaray.models.perception.protocols import ImageEncoder, LatentCodec
from animaray.pipelines.encode.config import EncodeConfig
from animaray.pipelines.encode.encode_worker import EncodeTask, encode_on_ray
from animaray.platform.errors import DatasetError
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.ray_session import ray_session
from animaray.platform.storage import content_id
from animaray.platform.stores import Store, absolute_address

_COMMIT_EVERY_S = 2.0
"""Least time between two commits: what comes faster shares one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeSummary:
    """What one call did."""

    encoder_id: str
    """Name of the table."""
    num_encoded: int
    """Clips encoded by this call."""
    num_found: int
    """Clips that were encoded before."""
    skipped: dict[str, str]
    """Why a clip gave no row, by clip id."""
    seconds: float
    """Time of this call."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON output."""
        return {name: getattr(self, name) for name in self.__slots__}

    def one_line(self) -> str:
        """Return the counts as a sentence."""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.num_encoded} clips encoded, {self.num_found} found{skipped}"


def curation_profile(address: str) -> str:
    """Return the one perception profile that a dataset was curated with.

    Raises:
        DatasetError: There are several, or none is known.
    """
    found = sorted(set(CurationDataset.open(address).profiles().values()))
    if len(found) != 1:
        raise DatasetError(
            f"{address} was curated with {len(found)} profiles "
            f"({', '.join(found) or 'none known'}).",
            fix="Choose the encoders: --profile generated, permissive or paper.",
        )
    return found[0]


def encode_dataset(config: EncodeConfig, progress: StageProgress | None = None) -> EncodeSummary:
    """Encode the kept clips that are not encoded yet, on a pool of Ray Data actors.

    Args:
        config: What to encode, and how.
        progress: Row to advance by clip; None shows an own row.

    Raises:
        DatasetError: None of the kept clips could be encoded.
        WeightsError: An encoder's file is missing or damaged.
        MachineError: The Ray session is too small.
    """
    started = time.monotonic()
    config = replace(config, data_dir=absolute_address(config.data_dir))
    dataset = CurationDataset.open(config.data_dir)
    kept = dataset.kept_clips(config.policy)
    if config.profile is None:
        config = replace(config, profile=curation_profile(config.data_dir))
    encoder_id = make_encoder_id(config)
    missing = missing_clips(dataset, encoder_id, kept)
    row = progress if progress is not None else stage_progress("encode", len(kept))
    skipped: dict[str, str] = {}
    with row:
        row.update(done=len(kept) - len(missing), total=len(kept))
        if len(missing):
            _check_room(dataset.store, missing, config)
            for shelved in _encode(dataset.store, config, encoder_id, missing):
                skipped |= shelved.skipped()
                row.advance(shelved.num_clips())
    if len(missing) and len(skipped) == len(kept):
        raise DatasetError(
            f"None of {len(kept)} kept clips could be encoded; the first: "
            f"{next(iter(skipped.values()))}",
            fix="See facts.skipped in the newest entries of _commits.",
        )
    return EncodeSummary(
        encoder_id=encoder_id,
        num_encoded=len(missing) - len(skipped),
        num_found=len(kept) - len(missing),
        skipped=skipped,
        seconds=time.monotonic() - started,
    )


def missing_clips(dataset: CurationDataset, encoder_id: str, kept: list[str]) -> pa.Table:
    """Return the kept clips that were not tried yet, neighbours in the media files side by side.

    Returns:
        clip_id, source_id, duration_s, and the profile that the clip was curated with.
    """
    tried = read_index(dataset.store, dataset.snapshot, encoder_id)["clip_id"].combine_chunks()
    wanted = ["clip_id", "source_id", "duration_s", "media_file", "media_row_group"]
    clips = dataset.table("clips", wanted)
    is_kept = pc.is_in(clips["clip_id"], value_set=pa.array(kept, type=pa.string()))
    is_new = pc.invert(pc.is_in(clips["clip_id"], value_set=tried))
    clips = clips.filter(pc.and_(is_kept, is_new))
    order = [("media_file", "ascending"), ("media_row_group", "ascending")]
    clips = clips.sort_by(order).drop_columns(["media_file", "media_row_group"])
    profiles = dataset.profiles()
    found = [profiles.get(source) for source in clips["source_id"].to_pylist()]
    return clips.append_column("curated_with", pa.array(found, type=pa.string()))


def _encode(
    store: Store, config: EncodeConfig, encoder_id: str, clips: pa.Table
) -> Iterator[Shelved]:
    """Yield what was encoded, as soon as it is committed."""
    vacuum(store)
    with ray_session(), writing(store) as writer:
        task = EncodeTask(config=config, encoder_id=encoder_id, token=writer.token)
        commits = EncodedCommits(CommitLog(store, writer), encoder_id, token=writer.token)
        for shelved in _gathered(encode_on_ray(task, clips)):
            commits.commit(shelved)
            yield shelved


def _gathered(parts: Iterator[Shelved]) -> Iterator[Shelved]:
    """Join what comes faster than commits should be made; at the end nothing is left over."""
    waiting: list[Shelved] = []
    committed_s = 0.0
    for part in parts:
        waiting.append(part)
        if time.monotonic() - committed_s >= _COMMIT_EVERY_S:
            yield join_shelved(waiting)
            waiting, committed_s = [], time.monotonic()
    if waiting:
        yield join_shelved(waiting)


def _check_room(store: Store, clips: pa.Table, config: EncodeConfig) -> None:
    """Refuse work whose results do not fit where they go."""
    frames = config.fps * float(pc.sum(clips["duration_s"]).as_py() or 0.0)
    # At most a byte of latents for each pixel, in all, and a few embeddings and points.
    per_frame = config.width_px * config.height_px + 16384
    needed = round(frames * per_frame * (2 if config.mirrored_copies else 1))
    store.check_room(needed, f"Encoding {len(clips)} clips")


def make_encoder_id(config: EncodeConfig) -> str:
    """Return the name of the table: profile, size, rate, and a hash of the weights."""
    profile = config.profile or curation_profile(config.data_dir)
    codec, image_encoder = load_codec(profile), load_image_encoder(profile)
    weights = [_weights_hash(network) for network in (codec, image_encoder)]
    # Names of tables from before there was the setting stay.
    settings = [config.mirrored_copies, config.max_face_gap_s, *["no text"] * config.crop_text]
    digest = content_id(*weights, *settings)[:8]
    size_px = config.width_px, config.height_px
    return table_prefix(profile, *size_px, config.fps, config.reference_noise) + digest


def _weights_hash(network: LatentCodec | ImageEncoder) -> str:
    """Return a hash of a network's weights; of its name when it has none of torch's."""
    digest = hashlib.sha256(network.name.encode())
    if isinstance(network, nn.Module):
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
