"""Measure one clip with every network of a profile, in cost order, in one process.

Faces come first: a clip that no shipped policy could keep for its faces is not looked at further,
its other families stay not_run. Holding the networks together means one process per worker on a
small machine and no hand-over of clips between them. All but the pose, which looks at most frames,
share one decoding of the clip.
"""

from collections.abc import Sequence

from animaray.models.perception.profiles import (
    load_perception,
    load_point_tracker,
    load_text_detector,
)
from animaray.models.perception.protocols import Perception, PointTracker, TextDetector
from animaray.models.perception.provenance import provenance_of
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.crash_guard import guard_against_crashes
from animaray.pipelines.curation.stage_runner import Row, Stage, run_family
from animaray.pipelines.policy.policies import POLICIES
from animaray.pipelines.stages import motion, picture
from animaray.pipelines.stages.camera import CameraStage
from animaray.pipelines.stages.faces import FaceStage
from animaray.pipelines.stages.pose import PoseStage
from animaray.pipelines.stages.text import TextStage
from animaray.platform.media.video import DecodedVideo, FrameSelection, decode_together


class ClipSamples:
    """Frames of one of our own clips, decoded at the first call and handed out once each."""

    def __init__(self, media_path: str, together: Sequence[FrameSelection] = ()) -> None:
        """Say what will be asked for.

        Args:
            together: Selections that are decoded in one pass; another one takes a pass of its own.
        """
        self._path = media_path
        self._waiting = tuple(together)
        self._ready: dict[FrameSelection, DecodedVideo] = {}

    def take(self, selection: FrameSelection) -> DecodedVideo:
        """Return frames, and keep none of them.

        Raises:
            MediaError: The clip does not decode.
        """
        if selection in self._waiting:
            wanted, self._waiting = self._waiting, ()
            self._ready = dict(zip(wanted, decode_together(self._path, wanted), strict=True))
        elif selection not in self._ready:
            return decode_together(self._path, [selection])[0]
        return self._ready.pop(selection)


class PerceptionWorker:
    """Measure picture, faces, text, pose, camera and motion of clips."""

    def __init__(
        self,
        perception: Perception,
        tracker: PointTracker,
        config: CurationConfig,
        text_detector: TextDetector | None = None,
    ) -> None:
        """Hold the networks.

        Args:
            text_detector: Reads burned-in text; None where it is not looked for.
        """
        self._faces = FaceStage(
            perception.face_detector, perception.identity_embedder, config.faces
        )
        self._pose = PoseStage(perception.pose_estimator, config.pose)
        self._camera = CameraStage(tracker, config.camera)
        self._text = TextStage(text_detector, config.text) if text_detector else None
        self._skips_faceless = config.skip_faceless
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
    def load(cls, config: CurationConfig) -> "PerceptionWorker":
        """Load the networks of a run; those that can do so run on the GPU that the worker holds."""
        device = "cuda" if config.needs.num_gpus > 0 else "cpu"
        return cls(
            load_perception(
                config.profile, num_threads=1, device=device, pose_layout=config.pose_layout
            ),
            load_point_tracker(config.profile),
            config,
            load_text_detector(num_threads=1) if config.text.looks_at(config.profile) else None,
        )

    def __call__(self, row: Row) -> Row:
        """Measure one clip; a clip that killed this process before is given up."""
        key = f"{row.get('clip_id')}.measure"
        return guard_against_crashes(self._measure, row, key, what="clip")

    def _measure(self, row: Row) -> Row:
        if row["state"] is not None:
            return row
        together: tuple[FrameSelection, ...] = (
            picture.SELECTION, self._faces.selection(row), self._camera.selection(row),
            motion.SELECTION,
        )  # fmt: skip
        if self._text is not None:
            together = (*together, self._text.selection(row))
        measured = self._run_families({**row, "samples": ClipSamples(row["media_path"], together)})
        return {name: value for name, value in measured.items() if name != "samples"}

    def _run_families(self, row: Row) -> Row:
        row = self._run("picture", picture.measure_picture, row)
        row = self._run("face", self._faces, row)
        if self._skips_faceless and has_too_few_faces(row):
            return _not_run(row, ("text", "pose", "camera", "motion"), "no face to speak of")
        if self._text is not None:
            row = self._run("text", self._text, row)
        else:
            row = _not_run(row, ("text",), "not looked for (setting text.look)")
        row = self._run("pose", self._pose, row)
        row = self._run("camera", self._camera, row, needs=("pose", "face"))
        return self._run("motion", motion.measure_motion, row, needs=("pose", "face", "camera"))

    def _run(self, family: str, stage: Stage, row: Row, needs: tuple[str, ...] = ()) -> Row:
        return run_family(family, stage, row, needs=needs, provenance=self._provenance[family])


def _not_run(row: Row, families: tuple[str, ...], note: str) -> Row:
    states = {f"{family}_state": "not_run" for family in families}
    return {**row, **states, **{f"{family}_note": note for family in families}}


def has_too_few_faces(row: Row) -> bool:
    """Return whether faces are so rare that every shipped policy drops the clip."""
    scores = row.get("face_scores")
    least = min(policy.min_face_found or 0.0 for policy in POLICIES.values())
    return scores is not None and scores["face_found_share"] < 0.5 * least
