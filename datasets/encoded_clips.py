"""Encoded clips: what training reads of each clip, computed once by the frozen encoders.

    conditions/<encoder id>/part-<content id>.parquet     one row, and one row group, per clip

Arrays are stored as fixed-layout bytes with their shape beside them, so that any Parquet reader
can use them. Coordinates are pixels of the training frame, not of the clip's own video.
"""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float16, Float32, Int64

from animaray.datasets.encoded_index import (
    ENCODED_DIR,
    ENCODED_VERSION,
    VERSION_KEY,
    Shelved,
    check_version,
    index_rows,
    read_index,
    table_name,
)
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shard_cache import ShardCache, ShardRows
from animaray.datasets.shards import write_part
from animaray.platform.errors import DatasetError
from animaray.platform.stores import Store

_ARRAYS: dict[str, type[np.generic]] = {
    "latents": np.float16,
    "latent_std": np.float16,
    "reference_latents": np.float16,
    "reference_latent_std": np.float16,
    "image_embeddings": np.float32,
    "identity_embedding": np.float32,
    "identity_embeddings": np.float32,
    "raw_identity": np.float32,
    "raw_identities": np.float32,
    "identity_valid": np.bool_,
    "keypoints": np.float32,
    "keypoint_confidence": np.float32,
    "further_points": np.float32,
    "face_boxes": np.float32,
    "face_box_valid": np.bool_,
}
_OPTIONAL = frozenset(
    {
        "latent_std", "reference_latents", "reference_latent_std",
        "raw_identity", "raw_identities", "further_points",
    }
)  # fmt: skip
"""Arrays that not every profile has: null in the table, None in a row."""
_SCALARS = {
    "clip_id": pa.string(),
    "source_id": pa.string(),
    "is_mirrored": pa.bool_(),
    "fps": pa.float64(),
    "width_px": pa.int32(),
    "height_px": pa.int32(),
    "reference_noise": pa.float64(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedClip:
    """One clip as training sees it; `frames` counts frames at the training frame rate."""

    clip_id: str
    source_id: str
    """Source video of the clip; a withdrawn source hides its clips here too."""
    is_mirrored: bool
    """Whether this is the left-right mirrored copy of the clip."""
    fps: float
    """Frame rate of the rows below."""
    width_px: int
    """Width of the training frame that was encoded."""
    height_px: int
    """Height of it."""
    latents: Float16[np.ndarray, "frames channels latent_height latent_width"]
    """Latents of every frame, about unit variance: the codec's mean."""
    image_embeddings: Float32[np.ndarray, "frames image_dim"]
    """Image embedding of every frame."""
    identity_embedding: Float32[np.ndarray, " identity_dim"]
    """Unit vector: mean over the frames whose face is valid."""
    identity_embeddings: Float32[np.ndarray, "frames identity_dim"]
    """Per frame; meaningless where `identity_valid` is False."""
    identity_valid: Bool[np.ndarray, " frames"]
    """Whether the frame's own embedding was measured."""
    keypoints: Float32[np.ndarray, "frames 18 2"]
    """Pixels of the training frame."""
    keypoint_confidence: Float32[np.ndarray, "frames 18"]
    """In [0, 1]."""
    face_boxes: Float32[np.ndarray, "frames 4"]
    """Left, top, right, bottom in training pixels; meaningless where not valid."""
    face_box_valid: Bool[np.ndarray, " frames"]
    """Whether the box was detected, or lies between two detections close in time."""
    reference_noise: float = 0.0
    """Standard deviation of the noise on the pixels of `reference_latents`, in [-1, 1]."""
    latent_std: Float16[np.ndarray, "frames channels latent_height latent_width"] | None = None
    """How unsure the codec is of `latents`; None of codecs that do not say it."""
    reference_latents: Float16[np.ndarray, "frames channels latent_height latent_width"] | None = (
        None
    )
    """Latents of every frame as a noisy reference picture; None without noise: as `latents`."""
    reference_latent_std: (
        Float16[np.ndarray, "frames channels latent_height latent_width"] | None
    ) = None
    """How unsure the codec is of `reference_latents`; None likewise."""
    raw_identity: Float32[np.ndarray, " identity_dim"] | None = None
    """Along `identity_embedding`, as long as the raw outputs are in the mean; None of profiles
    whose recogniser gives unit vectors only."""
    raw_identities: Float32[np.ndarray, "frames identity_dim"] | None = None
    """The recogniser's raw output of each frame, as `identity_embeddings`; None likewise."""
    further_points: Float32[np.ndarray, "frames 116 3"] | None = None
    """Feet, face and hands (models.pose.layouts), training pixels and confidence; None where
    curation did not look for them."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.latents)


def mean_raw_identity(
    raw: Float32[np.ndarray, "faces identity_dim"] | None,
    mean: Float32[np.ndarray, " identity_dim"],
) -> Float32[np.ndarray, " identity_dim"] | None:
    """Return what stands for a raw output where a frame has none of its own.

    Args:
        raw: Raw outputs of the clip's faces; None: the recogniser gives none.
    """
    if raw is None or len(raw) == 0:
        return None
    return (mean * np.linalg.norm(raw, axis=1).mean()).astype(np.float32)


def mean_identity(
    embeddings: Float32[np.ndarray, "faces identity_dim"],
) -> Float32[np.ndarray, " identity_dim"]:
    """Return the unit vector along the mean of unit embeddings; zeros when there is none."""
    if len(embeddings) == 0:
        return np.zeros(embeddings.shape[1], dtype=np.float32)
    mean = embeddings.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length if length > 0.0 else mean).astype(np.float32)


def encoded_schema() -> pa.Schema:
    """Return the Arrow schema of the table."""
    columns: list[pa.Field] = [
        pa.field(name, kind, nullable=False) for name, kind in _SCALARS.items()
    ]
    columns.append(pa.field("num_frames", pa.int32(), nullable=False))
    for name, dtype in _ARRAYS.items():
        facts = {"dtype": np.dtype(dtype).name, "layout": "C order, little endian"}
        may_lack = name in _OPTIONAL
        columns.append(pa.field(name, pa.large_binary(), nullable=may_lack, metadata=facts))
        columns.append(pa.field(f"{name}_shape", pa.list_(pa.int32()), nullable=may_lack))
    return pa.schema(columns, metadata={VERSION_KEY: str(ENCODED_VERSION)})


def write_encoded_clips(
    store: Store, encoder_id: str, clips: Sequence[EncodedClip], *, token: str = ""
) -> Shelved:
    """Write one shard, named by its content; the caller commits it (`EncodedCommits`).

    Args:
        encoder_id: Which encoders and sizes made the rows.
        clips: At least one clip.
        token: Of the writer that is going to commit it.
    """
    schema = encoded_schema()
    buffer = io.BytesIO()
    # Latents are noise to a compressor; one row group per clip lets a reader take a single clip.
    with pq.ParquetWriter(buffer, schema, compression="none", use_dictionary=False) as writer:
        for clip in clips:
            table = pa.Table.from_pylist([_to_row(clip)], schema=schema)
            writer.write_table(table, row_group_size=1)
    data, folder = buffer.getvalue(), table_name(encoder_id)
    file = write_part(store, folder, data, len(clips), ENCODED_VERSION, token=token)
    names = ("clip_id", "source_id", "is_mirrored", "num_frames")
    facts = pa.table({name: [getattr(clip, name) for clip in clips] for name in names})
    has_further = pa.chunked_array([[clip.further_points is not None for clip in clips]])
    return Shelved(files=(file,), rows=index_rows(facts, has_further, file.path))


def stored_bytes(clip: EncodedClip) -> int:
    """Return about how many bytes of a shard a clip takes."""
    arrays = (getattr(clip, name) for name in _ARRAYS)
    return sum(array.nbytes for array in arrays if array is not None)


def table_prefix(
    profile: str, width_px: int, height_px: int, fps: float, reference_noise: float
) -> str:
    """Return how the encoder ids of one profile, frame size, rate and reference noise begin."""
    noise = f"noise{reference_noise:g}-" if reference_noise else ""
    return f"{profile}-{width_px}x{height_px}-{fps:g}fps-{noise}v{ENCODED_VERSION}-"


def open_encoded_clips(
    address: str | Path | Store,
    encoder_id: str | None = None,
    *,
    prefix: str = "",
    cache: ShardCache | None = None,
) -> "EncodedClips":
    """Open the encoded clips of a dataset at its newest commit.

    Args:
        encoder_id: Which table; None takes the only one, or the only one with the prefix.
        prefix: How the wanted table's id begins (`table_prefix`), where there are several.
        cache: Where shards are kept on this machine; None reads each clip where it lies.

    Raises:
        DatasetError: The dataset was not encoded, or several tables fit and none was named.
    """
    dataset = CurationDataset.open(address)
    snapshot = dataset.snapshot
    below = f"{ENCODED_DIR}/"
    tables = {file.table for file in snapshot.files if file.table.startswith(below)}
    names = sorted(table.removeprefix(below) for table in tables)
    if encoder_id is None and len(names) > 1:
        fitting = [name for name in names if name.startswith(prefix)]
        if len(fitting) != 1:
            raise DatasetError(
                f"{address} was encoded {len(names)} times, and {len(fitting)} of the tables fit: "
                f"{', '.join(names)}.",
                fix="Name one of them: --set encoder_id=NAME.",
            )
        names = fitting
    wanted = encoder_id if encoder_id is not None else (names[0] if names else "")
    files = snapshot.of_table(table_name(wanted))
    if not files:
        of = f" by {encoder_id}" if encoder_id is not None else ""
        raise DatasetError(
            f"The clips of {address} were not encoded{of}.",
            fix=f"Run: animaray dataset encode {address}",
        )
    index = read_index(dataset.store, snapshot, wanted)
    if snapshot.withdrawn:
        hidden = pa.array(sorted(snapshot.withdrawn), type=pa.string())
        index = index.filter(pc.invert(pc.is_in(index["source_id"], value_set=hidden)))
    return EncodedClips(index, ShardRows(dataset.store, files, cache))


class EncodedClips:
    """Read single encoded clips from any number of shards; threads may share one.

    A million clips take some hundred bytes each: what is known of them stays in columns.
    """

    def __init__(self, index: pa.Table, shards: ShardRows) -> None:
        """Take the rows of an index that has each clip and copy once, by clip id."""
        index = index.filter(pc.is_valid(index["path"])).combine_chunks()
        mirrored = index.filter(index["is_mirrored"])
        index = index.filter(pc.invert(index["is_mirrored"]))
        self._shards = shards
        self._originals = _Places(index)
        self._mirrored = _Places(mirrored)
        self._sources = index["source_id"].combine_chunks().dictionary_encode()
        self._has_further = np.asarray(index["has_further_points"], dtype=np.bool_)
        self._rows = np.arange(len(index))
        self.clip_ids: list[str] = index["clip_id"].to_pylist()
        """Clips of the table, sorted: the numbering that the data order refers to."""

    def __len__(self) -> int:
        """Return the number of clips, mirrored copies not counted."""
        return len(self.clip_ids)

    def keep_only(self, clip_ids: Collection[str]) -> None:
        """Forget the clips that are not named, for example those that a policy drops by now."""
        named = clip_ids if isinstance(clip_ids, set | frozenset | dict) else set(clip_ids)
        kept = [place for place, clip_id in enumerate(self.clip_ids) if clip_id in named]
        self.clip_ids = [self.clip_ids[place] for place in kept]
        self._rows = self._rows[kept]

    def source_ids(self) -> dict[str, str]:
        """Return the source video of each clip, by clip id."""
        sources = self._sources.take(pa.array(self._rows)).to_pylist()
        return dict(zip(self.clip_ids, sources, strict=True))

    def lengths(self) -> Int64[np.ndarray, " clips"]:
        """Return the number of frames of each of `clip_ids`, without reading their arrays."""
        return self._originals.lengths[self._rows].astype(np.int64)

    def num_frames(self, clip_id: str) -> int:
        """Return a clip's number of frames without reading its arrays."""
        return int(self._originals.lengths[self._row(clip_id, is_mirrored=False)])

    def num_without_further_points(self) -> int:
        """Return how many clips hold the body alone, without feet, face and hands."""
        return int((~self._has_further[self._rows]).sum())

    def has_mirrored(self, clip_id: str) -> bool:
        """Return whether the clip's mirrored copy was encoded too."""
        return self._mirrored.find(clip_id) is not None

    def load(self, clip_id: str, *, is_mirrored: bool = False) -> EncodedClip:
        """Read one clip.

        Raises:
            DatasetError: The clip, or its mirrored copy, is not in the table.
        """
        places = self._mirrored if is_mirrored else self._originals
        path, group = places.at(self._row(clip_id, is_mirrored=is_mirrored))
        shard, row = self._shards.read(path, group)
        check_version(shard, path)
        return _from_row(row)

    def _row(self, clip_id: str, *, is_mirrored: bool) -> int:
        row = (self._mirrored if is_mirrored else self._originals).find(clip_id)
        if row is None:
            kind = "The mirrored copy of clip" if is_mirrored else "Clip"
            raise DatasetError(f"{kind} {clip_id} was not encoded.")
        return row


class _Places:
    """Where clips lie, and how long they are, in columns sorted by clip id."""

    def __init__(self, index: pa.Table) -> None:
        names = [name.encode() for name in index["clip_id"].to_pylist()]
        self._ids = np.array(names, dtype=np.bytes_)
        paths = index["path"].combine_chunks().dictionary_encode()
        self._paths: list[str] = paths.dictionary.to_pylist()
        self._path_of = np.asarray(paths.indices, dtype=np.int32)
        self._group_of = np.asarray(index["row_group"], dtype=np.int32)
        self.lengths = np.asarray(index["num_frames"], dtype=np.int32)

    def find(self, clip_id: str) -> int | None:
        """Return the row of a clip; None where there is none."""
        wanted = clip_id.encode()
        row = int(np.searchsorted(self._ids, wanted))
        return row if row < len(self._ids) and self._ids[row] == wanted else None

    def at(self, row: int) -> tuple[str, int]:
        """Return the shard of a row, and its row group."""
        return self._paths[self._path_of[row]], int(self._group_of[row])


def _to_row(clip: EncodedClip) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(clip, name) for name in _SCALARS}
    row["num_frames"] = clip.num_frames
    for name, dtype in _ARRAYS.items():
        given = getattr(clip, name)
        if given is None and name in _OPTIONAL:
            row[name] = row[f"{name}_shape"] = None
            continue
        array = np.ascontiguousarray(given, dtype=np.dtype(dtype).newbyteorder("<"))
        row[name] = array.tobytes()
        row[f"{name}_shape"] = list(array.shape)
    return row


def _from_row(row: dict[str, Any]) -> EncodedClip:
    values: dict[str, Any] = {name: row[name] for name in _SCALARS}
    for name, dtype in _ARRAYS.items():
        if row[name] is None:
            continue
        flat = np.frombuffer(row[name], dtype=np.dtype(dtype).newbyteorder("<"))
        values[name] = flat.astype(dtype, copy=False).reshape(row[f"{name}_shape"])
    return EncodedClip(**values)
