"""Read a curated dataset: clips, verdicts, media, tracks and sources of the newest commit."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Float32, Float64, Int64

from animaray.datasets.commit_log import CommitLog, CommittedFile, Snapshot
from animaray.datasets.table_files import TableFiles
from animaray.datasets.table_rows import ClipRows, TableRows, find_id, one_array
from animaray.platform.errors import DatasetError
from animaray.platform.stores import Store, open_store

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
    """One version of a curated dataset.

    Tables are read by column and stay as Arrow, of single clips one row group is read: memory grows
    with the ids and the columns that were asked for, not with the rows.
    """

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self.store = store
        self.snapshot = snapshot
        self._files = TableFiles(store)
        self._tables: dict[str, TableRows] = {}
        self._clip_rows: dict[str, ClipRows] = {}

    @classmethod
    def open(cls, address: str | Path | Store, *, version: int | None = None) -> "CurationDataset":
        """Open a dataset at a version of its commit log; None for the newest.

        Args:
            address: A folder, or s3://, gs:// or az://.

        Raises:
            DatasetError: There is no committed data, or a damaged log.
        """
        store = open_store(address)
        snapshot = CommitLog(store).snapshot(version)
        if snapshot.version == 0:
            raise DatasetError(
                f"There is no dataset in {store}: its commit log is empty.",
                fix=f"Make one: animaray curate VIDEOS --out {store}",
                reason="empty",
            )
        return cls(store, snapshot)

    @property
    def root(self) -> Path:
        """The folder of a local dataset."""
        return Path(self.store.address)

    def clip_ids(self, policy: str = "standard", *, keep: bool = True) -> list[str]:
        """Return ids of clips that a policy keeps (or drops), sorted.

        A kept clip without stored video is left out: its media was not written because every
        policy known at curation dropped it.
        """
        self.check_applied(policy)
        verdicts = self.table(f"verdicts/{policy}", ["clip_id", "keep"])
        chosen = verdicts.filter(pc.equal(verdicts["keep"], keep))["clip_id"]
        if keep:
            clips = self.table("clips", ["clip_id", "media_file"])
            stored = clips.filter(pc.is_valid(clips["media_file"]))["clip_id"]
            chosen = chosen.filter(pc.is_in(chosen, value_set=one_array(stored)))
        return chosen.to_pylist()

    def kept_clips(self, policy: str = "standard") -> list[str]:
        """Return ids of the clips to work on: kept by a policy, with stored video, sorted.

        Raises:
            DatasetError: There is none.
        """
        if kept := self.clip_ids(policy):
            return kept
        raise DatasetError(
            f"Policy {policy} keeps no clip of {self.store}, or none whose video was stored.",
            fix=f"See why: animaray dataset list {self.store} --policy {policy}; or take what "
            "another policy keeps: --policy lax.",
            reason="empty",
        )

    def clip(self, clip_id: str) -> dict[str, Any]:
        """Return all scores and facts of one clip.

        Raises:
            DatasetError: There is no such clip.
        """
        row = self._rows("clips").row(clip_id)
        if row is None:
            _refuse_unknown(clip_id, self.store)
        return row

    def clips(self) -> list[dict[str, Any]]:
        """Return all clips, kept and rejected, sorted by id; `table` is the way for many."""
        return self.table("clips").to_pylist()

    def source(self, input_id: str) -> dict[str, Any] | None:
        """Return what is known of one input; None where there is none of that id."""
        return self._rows("sources").row(input_id)

    def sources(self) -> list[dict[str, Any]]:
        """Return every input ever tried, sorted by its name; `table` is the way for many."""
        return sorted(self.table("sources").to_pylist(), key=lambda row: row["uri"])

    def verdict(self, policy: str, clip_id: str) -> dict[str, Any] | None:
        """Return what a policy says about one clip; None where it says nothing."""
        return self._rows(f"verdicts/{policy}").row(clip_id)

    def verdicts(self, policy: str = "standard") -> list[dict[str, Any]]:
        """Return what a policy says about each clip, sorted by clip id; `table` is for many.

        Raises:
            DatasetError: The policy was never applied to this dataset.
        """
        self.check_applied(policy)
        return self.table(f"verdicts/{policy}").to_pylist()

    def profiles(self) -> dict[str, str]:
        """Return the perception profile that looked at each source, by source id."""
        rows = self.table("sources", ["source_id", "profile"])
        rows = rows.filter(pc.is_valid(rows["profile"]))
        return dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))

    def policies(self) -> list[str]:
        """Return the names of the policies that were applied."""
        tables = {file.table for file in self.snapshot.files}
        return sorted(table.split("/")[1] for table in tables if table.startswith("verdicts/"))

    def media_bytes(self, clip_id: str) -> bytes:
        """Return the MP4 file of one clip.

        Raises:
            DatasetError: There is no such clip, its video was not stored, or the file is damaged.
        """
        name, group = self._clip_facts(clip_id, "media_file", "media_row_group")
        if name is None:
            raise DatasetError(
                f"The video of clip {clip_id} was not stored: every policy known at curation "
                "dropped it.",
                fix="Curate again with --set store_media=all.",
                reason="no_media",
            )
        file = self._media_files.get(name)
        if file is not None and group is not None:
            rows = self._files.uncached_group(file, group)
            ids = rows["clip_id"].to_pylist()
            if clip_id in ids:
                return rows["video"][ids.index(clip_id)].as_py()["bytes"]
        raise DatasetError(
            f"The video of clip {clip_id} should be row group {group} of {name} and is not there.",
            fix=f"See what else is wrong: animaray dataset validate {self.store}",
            reason="damaged",
        )

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
        row = self._large_row("preview", clip_id)
        return {**row, "poster": row["poster"]["bytes"], "video": row["video"]["bytes"]}

    def tracks(self, clip_id: str) -> ClipTracks:
        """Return keypoints and faces of one clip.

        Raises:
            DatasetError: There is no such clip.
        """
        return tracks_of_row(self._large_row("tracks", clip_id))

    def camera_path(self, clip_id: str) -> dict[str, list[float]] | None:
        """Return how the camera moved, sample by sample; None where it was not followed.

        `time_s`, `scale`, `roll_rad`, `shift` (x and y in turn, of the short side),
        `inlier_share` and `num_points`, each against the clip's start.
        """
        if not self.has_row("tracks", clip_id):
            return None
        row = self._large_row("tracks", clip_id)
        if not row["camera_pts_s"]:
            return None
        names = ("scale", "roll_rad", "shift", "inlier_share", "num_points")
        return {"time_s": row["camera_pts_s"], **{name: row[f"camera_{name}"] for name in names}}

    def table(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a small table as Arrow, sorted by id: newest rows, nothing withdrawn.

        Args:
            table: sources, clips or verdicts/<policy>.
            columns: Columns wanted, which then stay in memory; None for all.
        """
        return self._rows(table).columns(columns)

    def has_row(self, table: str, clip_id: str) -> bool:
        """Return whether tracks or preview hold a row for a clip, which must exist."""
        (input_id,) = self._clip_facts(clip_id, "input_id")
        return self._large(table).has(clip_id, input_id)

    def large_table_ids(self, table: str) -> pa.ChunkedArray:
        """Return the clip of every row of media, tracks or preview, withdrawn ones too."""
        found = self._files.columns(self.snapshot.of_table(table), ["clip_id"])
        parts = [chunk for rows, _ in found for chunk in rows.column("clip_id").chunks]
        return pa.chunked_array(parts, type=pa.string())

    def large_table_batches(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of media, tracks or preview as the rows lie, withdrawn ones too."""
        return self._large(table).batches(columns)

    def withdrawn_clip_ids(self) -> set[str]:
        """Return ids of clips of withdrawn sources whose rows are not compacted away yet."""
        if not self.snapshot.withdrawn:
            return set()
        hidden = pa.array(sorted(self.snapshot.withdrawn))
        files = self.snapshot.of_table("clips")
        return {
            clip_id
            for rows, _ in self._files.columns(files, ["clip_id", "source_id"])
            for clip_id in rows.filter(pc.is_in(rows["source_id"], value_set=hidden))[
                "clip_id"
            ].to_pylist()
        }

    def check_applied(self, policy: str) -> None:
        """Refuse a policy that was never applied to this dataset.

        Raises:
            DatasetError: It was not.
        """
        if not self.snapshot.of_table(f"verdicts/{policy}") and len(self._rows("clips").ids):
            raise DatasetError(
                f"Policy {policy} was never applied to {self.store}; there is "
                f"{', '.join(self.policies()) or 'none'}.",
                fix=f"Apply it, no model runs: animaray curate verdicts {self.store} "
                f"--policy {policy}",
                reason="no_verdicts",
            )

    def open_file(self, file: CommittedFile) -> pq.ParquetFile:
        """Open a file, refusing one that is damaged or of another schema than its table's."""
        return self._files.open(file)

    def _rows(self, table: str) -> TableRows:
        if table not in self._tables:
            files = self.snapshot.of_table(table)
            self._tables[table] = TableRows(self._files, files, table, self.snapshot.withdrawn)
        return self._tables[table]

    def _large(self, table: str) -> ClipRows:
        if table not in self._clip_rows:
            files = self.snapshot.of_table(table)
            self._clip_rows[table] = ClipRows(self._files, files, self.snapshot.entries)
        return self._clip_rows[table]

    def _large_row(self, table: str, clip_id: str) -> dict[str, Any]:
        (input_id,) = self._clip_facts(clip_id, "input_id")
        row = self._large(table).row(clip_id, input_id)
        if row is None:
            _refuse_unknown(clip_id, self.store)
        return row

    def _clip_facts(self, clip_id: str, *names: str) -> list[Any]:
        """Return some facts of one clip, of columns that stay in memory."""
        clips = self._rows("clips")
        place = find_id(clips.ids, clip_id)
        if place is None:
            _refuse_unknown(clip_id, self.store)
        return [column[place].as_py() for column in clips.columns(names).columns]

    @cached_property
    def _media_files(self) -> dict[str, CommittedFile]:
        return {file.path: file for file in self.snapshot.of_table("media")}


def _refuse_unknown(clip_id: str, store: Store) -> NoReturn:
    """Say that there is no such clip.

    Raises:
        DatasetError: Always.
    """
    raise DatasetError(
        f"There is no clip {clip_id} in {store}.",
        fix=f"See the ids: animaray dataset list {store}",
        reason="unknown_clip",
    )


def tracks_of_row(row: Mapping[str, Any]) -> ClipTracks:
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
