"""Encoded clips: what training reads of each clip, computed once by the frozen encoders.

    conditions/<encoder id>/part-<content id>.parquet     one row, and one row group, per clip

Arrays are stored as fixed-layout bytes with their shape beside them, so that any Parquet reader
can use them. Coordinates are pixels of the training frame, not of the clip's own video.
"""

import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float16, Float32

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shards import write_part
from animaray.platform.errors import DatasetError

ENCODED_VERSION = 3
"""2: raw identities, further points; 3: posteriors, noisy references. The names of tables tell it;
an older one is encoded anew."""
ENCODED_DIR = "conditions"
COMMIT_KIND = "conditions"

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
    return pa.schema(columns, metadata={"animaray_conditions_version": str(ENCODED_VERSION)})


def write_encoded_clips(root: Path, encoder_id: str, clips: Sequence[EncodedClip]) -> CommittedFile:
    """Write one shard atomically, named by its content; the caller commits it.

    Args:
        encoder_id: Which encoders and sizes made the rows.
        clips: At least one clip.
    """
    schema = encoded_schema()
    buffer = io.BytesIO()
    # Latents are noise to a compressor; one row group per clip lets a reader take a single clip.
    with pq.ParquetWriter(buffer, schema, compression="none", use_dictionary=False) as writer:
        for clip in clips:
            table = pa.Table.from_pylist([_to_row(clip)], schema=schema)
            writer.write_table(table, row_group_size=1)
    folder = f"{ENCODED_DIR}/{encoder_id}"
    return write_part(root, folder, buffer.getvalue(), len(clips), ENCODED_VERSION)


def table_prefix(
    profile: str, width_px: int, height_px: int, fps: float, reference_noise: float
) -> str:
    """Return how the encoder ids of one profile, frame size, rate and reference noise begin."""
    noise = f"noise{reference_noise:g}-" if reference_noise else ""
    return f"{profile}-{width_px}x{height_px}-{fps:g}fps-{noise}v{ENCODED_VERSION}-"


def encoded_inputs(root: Path, encoder_id: str) -> set[str]:
    """Return the ids of the clips that were encoded, with those that gave no row."""
    return {
        clip_id
        for entry in CommitLog(root).commits()
        if entry.kind == COMMIT_KIND and entry.facts.get("encoder_id") == encoder_id
        for clip_id in entry.inputs
    }


def commit_encoded_clips(
    root: Path,
    encoder_id: str,
    files: Sequence[CommittedFile],
    inputs: Iterable[str],
    skipped: dict[str, str] | None = None,
) -> None:
    """Make shards visible.

    Args:
        encoder_id: Which encoders and sizes made the rows.
        files: Shards as `write_encoded_clips` returned them.
        inputs: Ids of the clips that were tried.
        skipped: Why clips of `inputs` gave no row, by id.
    """
    facts = {"encoder_id": encoder_id, "skipped": skipped or {}}
    CommitLog(root).commit(files, inputs=inputs, kind=COMMIT_KIND, facts=facts)


def open_encoded_clips(
    root: Path, encoder_id: str | None = None, *, prefix: str = ""
) -> "EncodedClips":
    """Open the encoded clips of a dataset at its newest commit.

    Args:
        encoder_id: Which table; None takes the only one, or the only one with the prefix.
        prefix: How the wanted table's id begins (`table_prefix`), where there are several.

    Raises:
        DatasetError: The dataset was not encoded, or several tables fit and none was named.
    """
    snapshot = CurationDataset.open(root).snapshot
    below = f"{ENCODED_DIR}/"
    tables = {file.table for file in snapshot.files if file.table.startswith(below)}
    names = sorted(table.removeprefix(below) for table in tables)
    if encoder_id is None and len(names) > 1:
        fitting = [name for name in names if name.startswith(prefix)]
        if len(fitting) != 1:
            raise DatasetError(
                f"{root} was encoded {len(names)} times, and {len(fitting)} of the tables fit: "
                f"{', '.join(names)}.",
                fix="Name one of them: --set encoder_id=NAME.",
            )
        names = fitting
    wanted = encoder_id if encoder_id is not None else (names[0] if names else "")
    files = [root / file.path for file in snapshot.of_table(f"{below}{wanted}")]
    if not files:
        of = f" by {encoder_id}" if encoder_id is not None else ""
        raise DatasetError(
            f"The clips of {root} were not encoded{of}.",
            fix=f"Run: animaray dataset encode {root}",
        )
    return EncodedClips(files, withdrawn=snapshot.withdrawn)


class EncodedClips:
    """Read single encoded clips from any number of shards."""

    def __init__(self, files: Iterable[Path], *, withdrawn: Collection[str] = ()) -> None:
        self._places: dict[tuple[str, bool], tuple[Path, int]] = {}
        self._lengths: dict[tuple[str, bool], int] = {}
        self._sources: dict[str, str] = {}
        self._bodies_only: set[str] = set()
        self._open_files: dict[Path, pq.ParquetFile] = {}
        for path in sorted(files):
            self._index(path, withdrawn)
        self.clip_ids = sorted(
            {clip_id for clip_id, is_mirrored in self._places if not is_mirrored}
        )
        """Clips of the table, sorted: the numbering that the data order refers to."""

    def __len__(self) -> int:
        """Return the number of clips, mirrored copies not counted."""
        return len(self.clip_ids)

    def keep_only(self, clip_ids: Collection[str]) -> None:
        """Forget the clips that are not named, for example those that a policy drops by now."""
        self.clip_ids = [clip_id for clip_id in self.clip_ids if clip_id in clip_ids]

    def source_ids(self) -> dict[str, str]:
        """Return the source video of each clip, by clip id."""
        return {clip_id: self._sources[clip_id] for clip_id in self.clip_ids}

    def num_frames(self, clip_id: str) -> int:
        """Return a clip's number of frames without reading its arrays."""
        return self._lengths[clip_id, False]

    def num_without_further_points(self) -> int:
        """Return how many clips hold the body alone, without feet, face and hands."""
        return len(self._bodies_only.intersection(self.clip_ids))

    def has_mirrored(self, clip_id: str) -> bool:
        """Return whether the clip's mirrored copy was encoded too."""
        return (clip_id, True) in self._places

    def load(self, clip_id: str, *, is_mirrored: bool = False) -> EncodedClip:
        """Read one clip.

        Raises:
            DatasetError: The clip, or its mirrored copy, is not in the table.
        """
        place = self._places.get((clip_id, is_mirrored))
        if place is None:
            kind = "The mirrored copy of clip" if is_mirrored else "Clip"
            raise DatasetError(f"{kind} {clip_id} was not encoded.")
        path, group = place
        row = self._file(path).read_row_group(group).to_pylist()[0]
        return _from_row(row)

    def _index(self, path: Path, withdrawn: Collection[str]) -> None:
        file = self._file(path)
        found = (file.schema_arrow.metadata or {}).get(b"animaray_conditions_version", b"none")
        if found.decode() != str(ENCODED_VERSION):
            raise DatasetError(
                f"{path} has conditions version {found.decode()}, expected {ENCODED_VERSION}.",
                fix="Encode the dataset again; encoded clips can always be made anew.",
            )
        columns = ["clip_id", "source_id", "is_mirrored", "num_frames", "further_points_shape"]
        index = file.read(columns=columns).to_pylist()
        for group, row in enumerate(index):
            if row["source_id"] in withdrawn:
                continue
            key = (row["clip_id"], row["is_mirrored"])
            self._places[key] = (path, group)
            self._lengths[key] = row["num_frames"]
            self._sources[row["clip_id"]] = row["source_id"]
            if row["further_points_shape"] is None:
                self._bodies_only.add(row["clip_id"])

    def _file(self, path: Path) -> pq.ParquetFile:
        if path not in self._open_files:
            self._open_files[path] = pq.ParquetFile(path, memory_map=True)
        return self._open_files[path]


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
