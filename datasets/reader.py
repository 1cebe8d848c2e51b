"""Read a curated dataset: clips, verdicts, media, tracks and sources of the newest commit."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Float32, Float64, Int64

from animaray.datasets.commit_log import CommitLog, CommittedFile, Snapshot
from animaray.datasets.schemas import check_schema, concat_versions, schema_of
from animaray.platform.errors import DatasetError

if TYPE_CHECKING:
    from animaray.platform.media.video import DecodedVideo

NUM_KEYPOINTS = 18
NUM_FURTHER_POINTS = 116
MAX_FACE_GAP_S = 0.75
"""Longest time between two face detections that is bridged by interpolation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTracks:
    """What was seen in one clip, frame by frame, in pixels of the clip's own frames.

    Poses are estimated on every frame up to a rate, above it on every k-th (`frame_index` says
    which); faces on a sparser sample (`face_frames`).
    """

    pts_s: Float64[np.ndarray, " poses"]
    """Time of each pose, seconds from the clip's first frame."""
    frame_index: Int64[np.ndarray, " poses"]
    """Frame of the clip's video that each pose was seen in."""
    keypoints: Float32[np.ndarray, "poses 18 2"]
    """The main person's keypoints, pixels."""
    keypoint_confidence: Float32[np.ndarray, "poses 18"]
    """In [0, 1]; 0 where nobody was found."""
    num_persons: Int64[np.ndarray, " poses"]
    """People found in the frame."""
    face_frames: Int64[np.ndarray, " faces"]
    """Frame of the clip's video that each row below was seen in."""
    face_boxes: Float32[np.ndarray, "faces 4"]
    """Left, top, right, bottom, pixels; meaningless where not valid."""
    face_landmarks: Float32[np.ndarray, "faces 5 2"]
    """Pixels; meaningless where not valid."""
    face_scores: Float32[np.ndarray, " faces"]
    """Detector confidence; 0 where no face was found."""
    face_valid: Bool[np.ndarray, " faces"]
    """Whether a face was found and embedded."""
    identity_embeddings: Float32[np.ndarray, "faces embedding"]
    """Unit vectors; meaningless where not valid."""
    further_points: Float32[np.ndarray, "poses 116 3"] | None = None
    """The main person's feet, face and hands (models.pose.layouts), pixels and confidence; None
    where curation did not look for them."""

    def nearest_pose(self, times_s: Float64[np.ndarray, " times"]) -> Int64[np.ndarray, " times"]:
        """Return, for each time from the clip's start, the index of the nearest pose."""
        return np.abs(self.pts_s[None] - times_s[:, None]).argmin(axis=1)

    def boxes_at(
        self, times_s: Float64[np.ndarray, " times"], fps: float
    ) -> tuple[Float32[np.ndarray, "times 4"], Bool[np.ndarray, " times"]]:
        """Return the face's box at each time, and where it is known; see `place_on_frames`."""
        boxes, seen_s = self.face_boxes[self.face_valid], self.face_frames[self.face_valid] / fps
        return place_on_frames(boxes, seen_s, times_s, max_gap_s=MAX_FACE_GAP_S)


def place_on_frames(
    boxes: Float32[np.ndarray, "faces 4"],
    box_times_s: Float[np.ndarray, " faces"],
    frame_times_s: Float[np.ndarray, " frames"],
    *,
    max_gap_s: float,
) -> tuple[Float32[np.ndarray, "frames 4"], Bool[np.ndarray, " frames"]]:
    """Give each frame a box: a detection at its time, or between two detections close in time.

    Before the first, after the last and inside longer gaps nothing is known: not valid.

    Args:
        box_times_s: Their times, ascending, seconds.
        frame_times_s: Times of the frames, seconds.
        max_gap_s: Longest time between two detections that is filled, seconds.
    """
    if len(boxes) == 0:
        shape = len(frame_times_s)
        return np.zeros((shape, 4), dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    slack_s = 1e-3
    after = np.searchsorted(box_times_s, frame_times_s - slack_s)
    upper = np.minimum(after, len(boxes) - 1)
    is_hit = np.abs(box_times_s[upper] - frame_times_s) <= slack_s
    lower = np.maximum(upper - 1, 0)
    gap_s = box_times_s[upper] - box_times_s[lower]
    is_between = (after > 0) & (after < len(boxes)) & (gap_s <= max_gap_s)
    placed = np.stack(
        [np.interp(frame_times_s, box_times_s, boxes[:, side]) for side in range(4)], axis=1
    )
    return placed.astype(np.float32), is_hit | is_between


class CurationDataset:
    """One version of a curated dataset folder."""

    def __init__(self, root: Path, snapshot: Snapshot) -> None:
        self.root = root
        self.snapshot = snapshot
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self._groups: dict[str, dict[str, tuple[str, int]]] = {}

    @classmethod
    def open(cls, root: Path | str, *, version: int | None = None) -> "CurationDataset":
        """Open a dataset folder at a version of its commit log; None for the newest.

        Raises:
            DatasetError: The folder holds no committed data, or a damaged log.
        """
        root = Path(root)
        snapshot = CommitLog(root).snapshot(version)
        if snapshot.version == 0:
            raise DatasetError(
                f"There is no dataset in {root}: its commit log is empty.",
                fix=f"Make one: animaray curate VIDEOS --out {root}",
                reason="empty",
            )
        return cls(root, snapshot)

    def clip_ids(self, policy: str = "standard", *, keep: bool = True) -> list[str]:
        """Return ids of clips that a policy keeps (or drops), sorted.

        A kept clip without stored video is left out: its media was not written because every
        policy known at curation dropped it.
        """
        with_media = {row["clip_id"] for row in self._rows("clips") if row["media_file"]}
        return sorted(
            row["clip_id"]
            for row in self.verdicts(policy)
            if row["keep"] == keep and (not keep or row["clip_id"] in with_media)
        )

    def kept_clips(self, policy: str = "standard") -> list[str]:
        """Return ids of the clips to work on: kept by a policy, with stored video, sorted.

        Raises:
            DatasetError: There is none.
        """
        if kept := self.clip_ids(policy):
            return kept
        raise DatasetError(
            f"Policy {policy} keeps no clip of {self.root}, or none whose video was stored.",
            fix=f"See why: animaray dataset list {self.root} --policy {policy}; or take what "
            "another policy keeps: --policy lax.",
            reason="empty",
        )

    def clip(self, clip_id: str) -> dict[str, Any]:
        """Return all scores and facts of one clip.

        Raises:
            DatasetError: There is no such clip.
        """
        if clip_id not in self._clip_by_id:
            raise DatasetError(
                f"There is no clip {clip_id} in {self.root}.",
                fix=f"See the ids: animaray dataset list {self.root}",
                reason="unknown_clip",
            )
        return dict(self._clip_by_id[clip_id])

    def clips(self) -> list[dict[str, Any]]:
        """Return all clips, kept and rejected, sorted by id."""
        return [dict(row) for row in self._rows("clips")]

    def sources(self) -> list[dict[str, Any]]:
        """Return every input ever tried, sorted by its name."""
        return [dict(row) for row in sorted(self._rows("sources"), key=lambda row: row["uri"])]

    def verdicts(self, policy: str = "standard") -> list[dict[str, Any]]:
        """Return what a policy says about each clip, sorted by clip id.

        Raises:
            DatasetError: The policy was never applied to this dataset.
        """
        if not self.snapshot.of_table(f"verdicts/{policy}") and self._rows("clips"):
            raise DatasetError(
                f"Policy {policy} was never applied to {self.root}; there is "
                f"{', '.join(self.policies()) or 'none'}.",
                fix=f"Apply it, no model runs: animaray curate verdicts {self.root} "
                f"--policy {policy}",
                reason="no_verdicts",
            )
        return [dict(row) for row in self._rows(f"verdicts/{policy}")]

    def profiles(self) -> dict[str, str]:
        """Return the perception profile that looked at each source, by source id."""
        return {row["source_id"]: row["profile"] for row in self._rows("sources") if row["profile"]}

    def policies(self) -> list[str]:
        """Return the names of the policies that were applied."""
        tables = {file.table for file in self.snapshot.files}
        return sorted(table.split("/")[1] for table in tables if table.startswith("verdicts/"))

    def media_bytes(self, clip_id: str) -> bytes:
        """Return the MP4 file of one clip.

        Raises:
            DatasetError: There is no such clip, or its video was not stored.
        """
        row = self._media_row("media", clip_id)
        if row is None:
            self.clip(clip_id)
            raise DatasetError(
                f"The video of clip {clip_id} was not stored: every policy known at curation "
                "dropped it.",
                fix="Curate again with --set store_media=all.",
                reason="no_media",
            )
        return row["video"]["bytes"]

    @contextmanager
    def media_file(self, clip_id: str) -> Iterator[Path]:
        """Yield a temporary file with the MP4 of one clip; see `media_bytes`."""
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(self.media_bytes(clip_id))
            file.flush()
            yield Path(file.name)

    def decode_clip(
        self,
        clip_id: str,
        *,
        fps: float | None = None,
        max_frames: int | None = None,
        short_side_px: int | None = None,
    ) -> "DecodedVideo":
        """Decode the stored video of one clip in this process; see `media_bytes`.

        Args:
            fps: This and the next ones: see `platform.media.video.FrameSelection`.
        """
        from animaray.platform.media.video import decode_video  # only who decodes waits for it
        from animaray.platform.media.video_colour import OWN_UNTAGGED

        with self.media_file(clip_id) as path:
            return decode_video(
                path,
                fps=fps,
                max_frames=max_frames,
                short_side_px=short_side_px,
                untagged=OWN_UNTAGGED,
            )

    def preview(self, clip_id: str) -> dict[str, Any]:
        """Return poster (JPEG bytes) and small video (MP4 bytes) of one clip.

        Raises:
            DatasetError: There is no such clip.
        """
        row = self._media_row("preview", clip_id)
        if row is None:
            raise DatasetError(f"There is no clip {clip_id} in {self.root}.", reason="unknown_clip")
        return {**row, "poster": row["poster"]["bytes"], "video": row["video"]["bytes"]}

    def tracks(self, clip_id: str) -> ClipTracks:
        """Return keypoints and faces of one clip.

        Raises:
            DatasetError: There is no such clip.
        """
        row = self._media_row("tracks", clip_id)
        if row is None:
            raise DatasetError(f"There is no clip {clip_id} in {self.root}.", reason="unknown_clip")
        return tracks_of_row(row)

    def camera_path(self, clip_id: str) -> dict[str, list[float]] | None:
        """Return how the camera moved, sample by sample; None where it was not followed.

        `time_s`, `scale`, `roll_rad`, `shift` (x and y in turn, of the short side),
        `inlier_share` and `num_points`, each against the clip's start.
        """
        row = self._media_row("tracks", clip_id)
        if row is None or not row["camera_pts_s"]:
            return None
        names = ("scale", "roll_rad", "shift", "inlier_share", "num_points")
        return {"time_s": row["camera_pts_s"], **{name: row[f"camera_{name}"] for name in names}}

    def table(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a small table as Arrow, sorted by id: newest rows, nothing withdrawn.

        Args:
            table: sources, clips or verdicts/<policy>.
            columns: Columns wanted; None for all.
        """
        key = "input_id" if table == "sources" else "clip_id"
        schema = schema_of(table.split("/")[0])
        wanted = schema.names if columns is None else list(dict.fromkeys(columns))
        read = list(dict.fromkeys([*wanted, key, "source_id"]))
        files = [self._open(file) for file in self.snapshot.of_table(table)]
        parts = [file.read(columns=read) for file in files]
        rows = concat_versions(table.split("/")[0], parts, read)
        # An input that was tried again replaces what it left before.
        newest = {name: place for place, name in enumerate(rows[key].to_pylist())}
        rows = rows.take(pa.array([newest[name] for name in sorted(newest)], type=pa.int64()))
        if self.snapshot.withdrawn:
            hidden = pa.array(sorted(self.snapshot.withdrawn), type=pa.string())
            rows = rows.filter(pc.invert(pc.is_in(rows["source_id"], value_set=hidden)))
        return rows.select(wanted)

    def large_table_ids(self, table: str) -> list[str]:
        """Return the clip of every row of media, tracks or preview, withdrawn ones too."""
        found: list[str] = []
        for file in self.snapshot.of_table(table):
            found += self._open(file).read(columns=["clip_id"])["clip_id"].to_pylist()
        return found

    def withdrawn_clip_ids(self) -> set[str]:
        """Return ids of clips of withdrawn sources whose rows are not compacted away yet."""
        found: set[str] = set()
        for file in self.snapshot.of_table("clips"):
            rows = self._open(file).read(columns=["clip_id", "source_id"]).to_pylist()
            found |= {r["clip_id"] for r in rows if r["source_id"] in self.snapshot.withdrawn}
        return found

    def check_file(self, file: CommittedFile) -> None:
        """Refuse a file that is damaged, or of another schema than its table's."""
        self._open(file)

    def _rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a small table that are not withdrawn."""
        if table not in self._tables:
            self._tables[table] = self.table(table).to_pylist()
        return self._tables[table]

    @cached_property
    def _clip_by_id(self) -> dict[str, dict[str, Any]]:
        return {row["clip_id"]: row for row in self._rows("clips")}

    def _media_row(self, table: str, clip_id: str) -> dict[str, Any] | None:
        """Read the row of one clip from a large table, reading nothing else."""
        if table not in self._groups:
            self._groups[table] = {}
            for file in self.snapshot.of_table(table):
                parquet = self._open(file)
                for group in range(parquet.num_row_groups):
                    ids = parquet.read_row_group(group, columns=["clip_id"])["clip_id"]
                    for found in ids.to_pylist():
                        self._groups[table][found] = (file.path, group)
        place = self._groups[table].get(clip_id)
        if place is None or clip_id not in self._clip_by_id:
            return None
        with pq.ParquetFile(self.root / place[0]) as parquet:
            rows = parquet.read_row_group(place[1]).to_pylist()
        return next(row for row in rows if row["clip_id"] == clip_id)

    def _open(self, file: CommittedFile) -> pq.ParquetFile:
        path = self.root / file.path
        try:
            parquet = pq.ParquetFile(path, page_checksum_verification=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(
                f"{path} is named by the commit log but missing or damaged: {error}.",
                fix="Restore it, or curate again into a new folder.",
                reason="damaged",
            ) from error
        check_schema(file.table.split("/")[0], parquet.schema_arrow, str(path))
        return parquet


def tracks_of_row(row: dict[str, Any]) -> ClipTracks:
    """Turn a row of the tracks table into arrays."""
    num_poses, num_faces = len(row["pts_s"]), len(row["face_frames"])

    def floats(name: str, *shape: int) -> Float32[np.ndarray, "..."]:
        return np.asarray(row[name], dtype=np.float32).reshape(shape)

    further = row.get("further_points")

    def integers(name: str) -> Int64[np.ndarray, " rows"]:
        return np.asarray(row[name], dtype=np.int64)

    return ClipTracks(
        pts_s=np.asarray(row["pts_s"], dtype=np.float64),
        frame_index=integers("frame_index"),
        keypoints=floats("keypoints", num_poses, NUM_KEYPOINTS, 2),
        keypoint_confidence=floats("keypoint_confidence", num_poses, NUM_KEYPOINTS),
        num_persons=integers("num_persons"),
        face_frames=integers("face_frames"),
        face_boxes=floats("face_boxes", num_faces, 4),
        face_landmarks=floats("face_landmarks", num_faces, 5, 2),
        face_scores=floats("face_scores", num_faces),
        face_valid=np.asarray(row["face_valid"], dtype=np.bool_),
        identity_embeddings=floats("identity_embeddings", num_faces, row["identity_dim"] or 0),
        further_points=None
        if further is None
        else floats("further_points", num_poses, NUM_FURTHER_POINTS, 3),
    )
