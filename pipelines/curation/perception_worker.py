"""Look at one clip with every network of a profile, in cost order, in one process.

Faces come first: a clip that no shipped policy could keep for its faces is not looked at further,
its other families stay not_run. Holding the networks together means one process per worker on a
small machine and no hand-over of clips between them. All but the pose, which looks at most frames,
share one decoding of the clip.
"""

from animaray.models.perception.protocols import Perception, PointTracker, TextDetector
from animaray.models.perception.provenance import recorded_producer
from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.crash_guard import give_up_after_deaths
from animaray.pipelines.curation.stage_runner import Row, Stage, run_family
from animaray.pipelines.policy.policies import POLICIES
from animaray.pipelines.stages import motion, picture
from animaray.pipelines.stages.camera import CameraStage
from animaray.pipelines.stages.faces import FaceStage
from animaray.pipelines.stages.pose import PoseStage
from animaray.pipelines.stages.text import TextStage
from animaray.platform.media.video import FrameSelection


class PerceptionStages:
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
            perception: Faces, identities and poses.
            tracker: Follows the background.
            config: Settings of every stage.
            text_detector: Reads burned-in text; None where it is not looked for.
        """
        self._faces = FaceStage(
            perception.face_detector, perception.identity_embedder, config.faces
        )
        self._pose = PoseStage(perception.pose_estimator, config.pose)
        self._camera = CameraStage(tracker, config.camera)
        self._text = TextStage(text_detector, config.text) if text_detector else None
        self._skips_hopeless = config.skip_hopeless
        self._producers = {
            "picture": recorded_producer("opencv", None),
            "face": recorded_producer(self._faces.producer, config.faces),
            "pose": recorded_producer(self._pose.producer, config.pose),
            "camera": recorded_producer(self._camera.producer, config.camera),
            "motion": recorded_producer(f"{self._pose.producer} opencv", config.pose),
        }
        if self._text is not None:
            self._producers["text"] = recorded_producer(self._text.producer, config.text)

    def __call__(self, row: Row) -> Row:
        """Measure one clip; a clip that killed this process before is given up."""
        return give_up_after_deaths(self._measure, row, f"{row.get('clip_id')}.look", what="clip")

    def _measure(self, row: Row) -> Row:
        if row["state"] is not None:
            return row
        together: tuple[FrameSelection, ...] = (
            picture.SELECTION, self._faces.selection(row), self._camera.selection(row),
            motion.SELECTION,
        )  # fmt: skip
        if self._text is not None:
            together = (*together, self._text.selection(row))
        measured = self._look({**row, "samples": ClipSamples(row["media_path"], together)})
        return {name: value for name, value in measured.items() if name != "samples"}

    def _look(self, row: Row) -> Row:
        row = self._run("picture", picture.measure_picture, row)
        row = self._run("face", self._faces, row)
        if self._skips_hopeless and is_hopeless(row):
            return _not_run(row, ("text", "pose", "camera", "motion"), "no face to speak of")
        if self._text is not None:
            row = self._run("text", self._text, row)
        else:
            row = _not_run(row, ("text",), "not looked for (setting text.look)")
        row = self._run("pose", self._pose, row)
        row = self._run("camera", self._camera, row, needs=("pose", "face"))
        return self._run("motion", motion.measure_motion, row, needs=("pose", "face", "camera"))

    def _run(self, family: str, stage: Stage, row: Row, needs: tuple[str, ...] = ()) -> Row:
        return run_family(family, stage, row, needs=needs, producer=self._producers[family])


def _not_run(row: Row, families: tuple[str, ...], note: str) -> Row:
    states = {f"{family}_state": "not_run" for family in families}
    return {**row, **states, **{f"{family}_note": note for family in families}}


def is_hopeless(row: Row) -> bool:
    """Return whether faces are so rare that every shipped policy drops the clip."""
    scores = row.get("face_scores")
    least = min(policy.min_face_found or 0.0 for policy in POLICIES.values())
    return scores is not None and scores["face_found_share"] < 0.5 * least
