"""Look at one clip with every network of a profile, in cost order, in one process.

Faces come first: a clip that no shipped policy could keep for its faces is not looked at further,
its other families stay not_run. Holding the networks together means one process per worker on a
small machine and no hand-over of clips between them.
"""

from animaray.models.frozen.protocols import Perception, PointTracker
from animaray.pipelines.curation_config import CurationConfig
from animaray.pipelines.policies import POLICIES
from animaray.pipelines.stage_runner import Row, run_family
from animaray.pipelines.stages.camera import CameraStage
from animaray.pipelines.stages.faces import FaceStage
from animaray.pipelines.stages.motion import measure_motion
from animaray.pipelines.stages.picture import measure_picture
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

    def __call__(self, row: Row) -> Row:
        """Measure one clip; a clip that killed this process before is given up."""
        return give_up_after_deaths(self._measure, row, f"{row.get('clip_id')}.look", what="clip")

    def _measure(self, row: Row) -> Row:
        row = run_family("picture", measure_picture, row, needs=(), producer="opencv")
        row = run_family("face", self._faces, row, needs=(), producer=self._faces.producer)
        if self._skips_hopeless and is_hopeless(row):
            skipped = dict.fromkeys(("pose_state", "camera_state", "motion_state"), "not_run")
            note = dict.fromkeys(("pose_note", "camera_note", "motion_note"), "no face to speak of")
            return {**row, **skipped, **note}
        row = run_family("pose", self._pose, row, needs=(), producer=self._pose.producer)
        row = run_family(
            "camera", self._camera, row, needs=("pose", "face"), producer=self._camera.producer
        )
        return run_family(
            "motion",
            measure_motion,
            row,
            needs=("pose", "face", "camera"),
            producer=self._pose.producer,
        )


def is_hopeless(row: Row) -> bool:
    """Return whether faces are so rare that every shipped policy drops the clip."""
    scores = row.get("face_scores")
    least = min(policy.min_face_found or 0.0 for policy in POLICIES.values())
    return scores is not None and scores["face_found_share"] < 0.5 * least
