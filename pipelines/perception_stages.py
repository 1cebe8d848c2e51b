"""Look at one clip with every network of a profile, in cost order, in one process.

Faces come first: a clip that no shipped policy could keep for its faces is not looked at further,
its other families stay not_run. Holding the networks together means one process per worker on a
small machine and no hand-over of clips between them. All but the pose, which looks at most frames,
share one decoding of the clip.
"""

from animaray.models.frozen.producers import recorded_producer
from animaray.models.frozen.protocols import Perception, PointTracker
from animaray.pipelines.clip_samples import ClipSamples
from animaray.pipelines.curation_config import CurationConfig
from animaray.pipelines.policies import POLICIES
from animaray.pipelines.stage_runner import Row, Stage, run_family
from animaray.pipelines.stages import motion, picture
from animaray.pipelines.stages.camera import CameraStage
from animaray.pipelines.stages.faces import FaceStage
from animaray.pipelines.stages.pose import PoseStage
from animaray.pipelines.tries import give_up_after_deaths


class PerceptionStages:
    """Measure picture, faces, pose, camera and motion of clips."""

    def __init__(
        self, perception: Perception, tracker: PointTracker, config: CurationConfig
    ) -> None:
        self._faces = FaceStage(
            perception.face_detector, perception.identity_embedder, config.faces
        )
        self._pose = PoseStage(perception.pose_estimator, config.pose)
        self._camera = CameraStage(tracker, config.camera)
        self._skips_hopeless = config.skip_hopeless
        self._producers = {
            "picture": recorded_producer("opencv", None),
            "face": recorded_producer(self._faces.producer, config.faces),
            "pose": recorded_producer(self._pose.producer, config.pose),
            "camera": recorded_producer(self._camera.producer, config.camera),
            "motion": recorded_producer(f"{self._pose.producer} opencv", config.pose),
        }

    def __call__(self, row: Row) -> Row:
        """Measure one clip; a clip that killed this process before is given up."""
        return give_up_after_deaths(self._measure, row, f"{row.get('clip_id')}.look", what="clip")

    def _measure(self, row: Row) -> Row:
        if row["state"] is not None:
            return row
        together = (
            picture.SELECTION, self._faces.selection(row), self._camera.selection(row),
            motion.SELECTION,
        )  # fmt: skip
        measured = self._look({**row, "samples": ClipSamples(row["media_path"], together)})
        return {name: value for name, value in measured.items() if name != "samples"}

    def _look(self, row: Row) -> Row:
        row = self._run("picture", picture.measure_picture, row)
        row = self._run("face", self._faces, row)
        if self._skips_hopeless and is_hopeless(row):
            skipped = dict.fromkeys(("pose_state", "camera_state", "motion_state"), "not_run")
            note = dict.fromkeys(("pose_note", "camera_note", "motion_note"), "no face to speak of")
            return {**row, **skipped, **note}
        row = self._run("pose", self._pose, row)
        row = self._run("camera", self._camera, row, needs=("pose", "face"))
        return self._run("motion", motion.measure_motion, row, needs=("pose", "face", "camera"))

    def _run(self, family: str, stage: Stage, row: Row, needs: tuple[str, ...] = ()) -> Row:
        return run_family(family, stage, row, needs=needs, producer=self._producers[family])


def is_hopeless(row: Row) -> bool:
    """Return whether faces are so rare that every shipped policy drops the clip."""
    scores = row.get("face_scores")
    least = min(policy.min_face_found or 0.0 for policy in POLICIES.values())
    return scores is not None and scores["face_found_share"] < 0.5 * least
