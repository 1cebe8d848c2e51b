"""Look at one clip, store it if it may be kept, and measure it with every network of a profile.

A clip that every policy surely drops ends with what was measured of it in its source, a preview and
no video; families that its end did not wait for stay not_run. Every other clip is cut, and measured
on the frames that are stored, in one decoding. Holding the networks together means one process per
worker on a small machine and no hand-over of clips between them.
"""

import logging
import time
from collections.abc import Callable, Sequence

from animaray.models.perception.profiles import (
    load_perception,
    load_point_tracker,
    load_text_detector,
)
from animaray.models.perception.protocols import Perception, PointTracker, TextDetector
from animaray.models.perception.provenance import provenance_of
from animaray.pipelines.curation.clip_samples import ClipSamples, SourceSamples
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.first_look import FirstLook
from animaray.pipelines.curation.guard import describe_error, run_family, run_stage
from animaray.pipelines.curation.rows import Row
from animaray.pipelines.policy.policies import Policy, policies_of_run
from animaray.pipelines.policy.sure_drops import is_dropped_by_all
from animaray.pipelines.stages import motion, picture
from animaray.pipelines.stages.camera import CameraStage
from animaray.pipelines.stages.cut_clip import (
    cut_clip,
    preview_selections,
    stored_size,
    write_preview,
)
from animaray.pipelines.stages.faces import FaceStage
from animaray.pipelines.stages.pose import PoseStage
from animaray.pipelines.stages.text import TextStage
from animaray.platform.media.video import FrameSelection

_SURE = 0.85
"""How far beyond every policy's limits a clip must lie to end before it is stored: the scores of a
source's frames and of those that are stored differ by less."""
_log = logging.getLogger("animaray.pipelines")


class PerceptionWorker:
    """Measure picture, faces, text, pose, camera and motion of clips."""

    def __init__(
        self,
        perception: Perception,
        tracker: PointTracker,
        config: CurationConfig,
        text_detector: TextDetector | None = None,
        policies: Sequence[Policy] = (),
    ) -> None:
        """Hold the networks.

        Args:
            policies: What clips are going to be judged by; those of the configuration by default.
            text_detector: Reads burned-in text; None where it is not looked for.
        """
        self._faces = FaceStage(
            perception.face_detector, perception.identity_embedder, config.faces
        )
        self._pose = PoseStage(perception.pose_estimator, config.pose)
        self._camera = CameraStage(tracker, config.camera)
        self._text = TextStage(text_detector, config.text) if text_detector else None
        self._config = config
        self._policies = list(policies or policies_of_run(config.policy))
        self._first_look = FirstLook(perception, tracker, config, self._policies)
        self._provenance = {
            "picture": provenance_of("opencv", None),
            "face": provenance_of(self._faces.networks, config.faces),
            "pose": provenance_of(self._pose.networks, config.pose),
            "camera": provenance_of(self._camera.networks, config.camera),
            "motion": provenance_of(f"{self._pose.networks} opencv", config.pose),
        }
        if self._text is not None:
            self._provenance["text"] = provenance_of(self._text.networks, config.text)

    @classmethod
    def load(cls, config: CurationConfig, policies: Sequence[Policy] = ()) -> "PerceptionWorker":
        """Load the networks of a run; those that can do so run on the GPU that the worker holds."""
        device = "cuda" if config.needs.num_gpus > 0 else "cpu"
        return cls(
            load_perception(
                config.profile, num_threads=1, device=device, pose_layout=config.pose_layout
            ),
            load_point_tracker(config.profile),
            config,
            load_text_detector(num_threads=1) if config.text.looks_at(config.profile) else None,
            policies,
        )

    def __call__(self, row: Row) -> Row:
        """Look at, cut and measure one clip."""
        config = self._config
        if config.skip_lost and config.store_media != "all":
            started = time.perf_counter()
            lost = self._end_in_source(row)
            if lost is not None:
                return lost
            row = {**row, "seconds": {**row["seconds"], "look": time.perf_counter() - started}}
        row = run_stage("cut", lambda r: cut_clip(r, config.cut, config.limits), row)
        if row["state"] is not None:
            return row
        return self.measure_stored(row)

    def measure_stored(self, row: Row) -> Row:
        """Measure a clip on the frames that are stored.

        Args:
            row: With what cutting adds.
        """
        config = self._config
        samples = ClipSamples(row["media_path"], self._together(row))
        # Whoever is here may be kept, unless all clips are stored.
        ends_early = config.skip_lost and config.store_media == "all"
        row = self._run_families({**row, "samples": samples}, ends_early=ends_early)
        return _without_samples(row)

    def _end_in_source(self, row: Row) -> Row | None:
        """Return a clip that every policy surely drops, as measured in its source; else None."""
        started = time.perf_counter()
        config = self._config.cut
        width, height = stored_size(row["width"], row["height"], config)
        length_s = row["clip_end_s"] - row["clip_start_s"]
        row = {
            **row,
            "clip_fps": row["frame_rate_fps"],
            "clip_num_frames": max(1, round(length_s * row["frame_rate_fps"])),
            "clip_width": width,
            "clip_height": height,
        }
        together = (*self._together(row), *preview_selections(row, config))
        samples = SourceSamples(row, self._config.limits, (width, height), together)
        row = {**row, "samples": samples}
        try:
            if not self._first_look.may_be_lost(row):
                return None
        except Exception as error:  # noqa: BLE001 - what is wrong shows when the clip is cut
            _log.debug("no first look at %s: %s", row["clip_id"], describe_error(error))
            return None
        row = {
            **row,
            **samples.facts(),
            "seconds": {**row["seconds"], "look": time.perf_counter() - started},
        }
        row = self._run_families(row, ends_early=True)
        return self._with_preview(row) if self._is_lost(row) else None

    def _with_preview(self, row: Row) -> Row:
        """Show people a clip that has no video."""
        preview, poster = (
            row["samples"].take(each).frames_uint8
            for each in preview_selections(row, self._config.cut)
        )
        paths = write_preview(row, preview, poster[0])
        return _without_samples({**row, "media_path": None, **paths})

    def _together(self, row: Row) -> tuple[FrameSelection, ...]:
        """Return the frames that all families but the pose look at; the first span the clip."""
        together: tuple[FrameSelection, ...] = (
            self._faces.selection(row), picture.SELECTION, self._camera.selection(row),
            motion.SELECTION,
        )  # fmt: skip
        return together if self._text is None else (*together, self._text.selection(row))

    def _run_families(self, row: Row, *, ends_early: bool) -> Row:
        """Measure a clip; one that may end early shows its faces first."""
        if not ends_early:
            # The pose looks at most frames: all others come out of its pass.
            row = self._run("pose", self._pose, row)
        row = self._run("picture", picture.measure_picture, row)
        row = self._run("face", self._faces, row)
        if ends_early:
            if self._is_lost(row):
                return _not_run(row, ("text", "pose", "camera", "motion"), "lost by its faces")
            row = self._run("pose", self._pose, row)
        row = self._run("camera", self._camera, row, needs=("pose", "face"))
        row = self._run("motion", motion.measure_motion, row, needs=("pose", "face", "camera"))
        if self._text is None:
            return _not_run(row, ("text",), "not looked for (setting text.look)")
        if ends_early and self._is_lost(row):
            return _not_run(row, ("text",), "lost before")
        return self._run("text", self._text, row)

    def _is_lost(self, row: Row) -> bool:
        return is_dropped_by_all(row, self._policies, margin=_SURE)

    def _run(
        self, family: str, stage: Callable[[Row], Row], row: Row, needs: tuple[str, ...] = ()
    ) -> Row:
        return run_family(family, stage, row, needs=needs, provenance=self._provenance[family])


def _not_run(row: Row, families: tuple[str, ...], note: str) -> Row:
    states = {f"{family}_state": "not_run" for family in families}
    return {**row, **states, **{f"{family}_note": note for family in families}}


def _without_samples(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "samples"}
