"""What a perfect filter would say about a calibration case, by the limits of a policy.

True: the clip has the flaw; False: it has not; None: too near to the limit, or hidden by another
flaw, so that either answer is right.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from animaray.datasets.world.cameras import Similarity
from animaray.datasets.world.truth import FrameTruth
from animaray.pipelines.policy.policies import Policy
from animaray.pipelines.policy.rules import RULES
from animaray.pipelines.stages.camera import CameraPath, chain, score_camera
from animaray.pipelines.stages.motion import FACE_HEIGHT, SHOULDER_WIDTH, keypoint_speed
from benchmarks.quality.calibration_cases import CalibrationCase, face_width_px

FILTERS: Mapping[str, tuple[str, ...]] = {
    "camera": ("camera_", "background_"),
    "light": ("too_dark", "too_bright"),
    "sharpness": ("face_blurred", "out_of_focus"),
    "face found": ("no_face", "face_turned_away", "face_cut_off"),
    "face size": ("face_too_small",),
    "count": ("several_",),
    "identity": ("identity_changes",),
    "pose coverage": ("keypoints_missing",),
    "motion": ("nothing_moves", "moves_wildly"),
}
"""Filters and how their reason codes begin."""
BEYOND, WITHIN = 1.3, 0.75
"""A value this many times its limit is beyond it, or within it; in between both are right."""
BLURRED, SHARP = 0.05, 0.012
"""Sigma of a blur as a share of the face's width."""

Label = bool | None


def labels_of(
    case: CalibrationCase, truths: Sequence[FrameTruth], policy: Policy
) -> dict[str, Label]:
    """Return what each filter that the policy uses should say."""
    is_unlit = case.gain < 0.3 or case.wash > 0.5
    is_hard_to_see = is_unlit or case.blur_share > SHARP
    has_person = any(truth.persons for truth in truths)
    labels: dict[str, Label] = {
        "light": _light(case, policy),
        "sharpness": _sharpness(case),
        "count": None if is_hard_to_see else max(len(truth.persons) for truth in truths) > 1,
    }
    seen = None if is_hard_to_see else _face_found(truths, policy)
    labels["camera"] = None if is_hard_to_see else _camera(case, truths, policy)
    labels["face found"] = seen
    labels["face size"] = None if seen is not False else _face_size(case, truths, policy)
    labels["identity"] = None if seen is not False else _changes_person(case)
    labels["pose coverage"] = None if is_hard_to_see else _pose_coverage(truths, policy)
    still_alive = has_person and seen is False and not _changes_person(case)
    labels["motion"] = _motion(case, truths, policy) if still_alive else None
    if seen is not False and has_person:
        # Somebody who is not recognised is not told from the background, and what stands before
        # them moves indeed.
        labels["camera"] = None
    if labels["face size"] is not False and seen is False:
        # Somebody so far away that the face is too small: what else is seen of them may be wrong.
        hidden = ("face found", "count", "identity", "pose coverage", "motion", "sharpness")
        labels |= dict.fromkeys(hidden)
    return {name: label for name, label in labels.items() if _is_on(name, policy)}


def _is_on(name: str, policy: Policy) -> bool:
    """Return whether a policy has a rule of a filter."""
    return any(
        rule.code.startswith(FILTERS[name]) and rule.limit(policy) is not None for rule in RULES
    )


def verdict_of(labels: Mapping[str, Label]) -> Label:
    """Return whether the clip should be dropped."""
    if any(label is True for label in labels.values()):
        return True
    return None if any(label is None for label in labels.values()) else False


def _by_ratio(ratio: float) -> Label:
    return True if ratio >= BEYOND else False if ratio <= WITHIN else None


def _sharpness(case: CalibrationCase) -> Label:
    if case.blur_share >= BLURRED:
        return True
    is_doubtful = case.blur_share > SHARP or case.gain < 0.7 or case.wash > 0.35
    return None if is_doubtful else False


def _light(case: CalibrationCase, policy: Policy) -> Label:
    if policy.min_luminance_p95 is None and policy.max_luminance_p5 is None:
        return None
    # No pixel is brighter than white times the gain, none darker than the wash.
    if policy.min_luminance_p95 is not None and 255 * case.gain < policy.min_luminance_p95:
        return True
    if policy.max_luminance_p5 is not None and 255 * case.wash > policy.max_luminance_p5:
        return True
    is_normal = case.gain >= 0.4 and case.wash <= 0.35
    return False if is_normal and (policy.name != "strict" or case.gain == 1.0) else None


def _camera(case: CalibrationCase, truths: Sequence[FrameTruth], policy: Policy) -> Label:
    if "cut" in case.spec.effects:
        return True
    if case.spec.stirred_share and policy.min_rigid is not None:
        # Three tenths must not be kept, whatever half of them the points see.
        beyond = (1 - policy.min_rigid) / case.spec.stirred_share
        return True if beyond <= 1.0 + 1e-9 else None
    scores = true_camera_scores([truth.camera for truth in truths], case)
    ratios = [
        scores[rule.score] / limit
        for rule in RULES
        if rule.family == "camera" and not rule.is_minimum and rule.score in _OF_PATH
        if (limit := rule.limit(policy)) is not None
    ]
    return _by_ratio(max(ratios)) if ratios else None


_OF_PATH = (
    "camera_drift", "camera_jump", "camera_jitter", "camera_log_zoom", "camera_roll_deg",
)  # fmt: skip


def true_camera_scores(
    cameras: Sequence[Similarity], case: CalibrationCase, sample_fps: float = 6.0
) -> Mapping[str, float]:
    """Return the scores of the path that the camera truly took."""
    width, height = case.spec.size
    middle = _middle(case)
    step = case.spec.fps / min(sample_fps, case.spec.fps)
    chosen = [cameras[round(i * step)] for i in range(int((len(cameras) - 1) / step) + 1)]
    matrices = [camera.matrix(middle=middle) for camera in chosen]
    first = np.vstack([matrices[0], [0, 0, 1]])
    back = np.linalg.inv(first)[:2]
    count = len(matrices)
    path = CameraPath(
        pts_s=np.arange(count) / sample_fps,
        transforms=np.stack([chain(matrix, back) for matrix in matrices]),
        has_fit=np.ones(count, dtype=bool),
        inlier_share=np.ones(count),
        num_points=np.full(count, 1000),
        changes=np.zeros(count),
        still_change=np.zeros(count),
        background_share=np.ones(count),
        size=(width, height),
    )
    return score_camera(path)


def _middle(case: CalibrationCase) -> complex:
    width, height = case.spec.size
    return complex((width - 1) / 2, (height - 1) / 2)


def _face_found(truths: Sequence[FrameTruth], policy: Policy) -> Label:
    shown = [truth.persons[0] for truth in truths if truth.persons]
    share = sum(person.face_visible for person in shown) / len(truths)
    if share <= 0.5:
        return True
    turned = np.mean([abs(np.degrees(person.head_yaw_rad)) > 60 for person in shown])
    if policy.min_face_frontal is not None and 1 - turned < policy.min_face_frontal - 0.2:
        return True
    return False if share >= 0.97 and turned <= 0.03 else None


def _face_size(case: CalibrationCase, truths: Sequence[FrameTruth], policy: Policy) -> Label:
    face_px = face_width_px(tuple(truths))
    limits = [(face_px, policy.min_face_px)]
    framing = _framing(truths)
    share = face_px / case.spec.size[1]
    limits.append((share, getattr(policy, f"min_face_height_{framing}")))
    ratios = [limit / value for value, limit in limits if limit is not None]
    return _by_ratio(max(ratios)) if ratios else None


def _framing(truths: Sequence[FrameTruth]) -> str:
    seen = np.stack([truth.persons[0].keypoint_visible for truth in truths if truth.persons])
    legs, hips = seen[:, [9, 10, 12, 13]].sum(axis=1) >= 3, seen[:, [8, 11]].any(axis=1)
    return "full" if legs.mean() > 0.5 else "half" if hips.mean() > 0.5 else "close"


def _motion(case: CalibrationCase, truths: Sequence[FrameTruth], policy: Policy) -> Label:
    if case.is_frozen:
        return True
    speed = true_speed(truths, case)
    ratios = []
    if policy.min_speed is not None:
        ratios.append(policy.min_speed / max(speed, 1e-6))
    if policy.max_speed is not None:
        ratios.append(speed / policy.max_speed)
    return _by_ratio(max(ratios)) if ratios else None


def true_speed(truths: Sequence[FrameTruth], case: CalibrationCase) -> float:
    """Return the first person's speed without the camera's, body heights per second."""
    middle = _middle(case)
    people = [truth.persons[0] for truth in truths]
    steady = []
    for truth, person in zip(truths, people, strict=True):
        back = cv2.invertAffineTransform(truth.camera.matrix(middle=middle))
        steady.append(person.keypoints @ back[:, :2].T + back[:, 2])
    seen = np.stack([person.keypoint_visible for person in people])
    pts_s = np.arange(len(truths)) / case.spec.fps
    shoulders = [np.linalg.norm(person.keypoints[5] - person.keypoints[2]) for person in people]
    faces = [person.face_box[3] - person.face_box[1] for person in people]
    body_px = max(np.percentile(shoulders, 90) / SHOULDER_WIDTH, np.median(faces) / FACE_HEIGHT)
    return keypoint_speed(np.stack(steady), seen, pts_s) / float(body_px)


def _changes_person(case: CalibrationCase) -> bool:
    return case.other_seed is not None or "cut" in case.spec.effects


def _pose_coverage(truths: Sequence[FrameTruth], policy: Policy) -> Label:
    counts = np.array(
        [truth.persons[0].keypoint_visible.sum() if truth.persons else 0 for truth in truths]
    )
    answers: list[Label] = []
    for least, limit in ((6, policy.max_pose_missing), (13, policy.max_pose_missing_strict)):
        if limit is not None:
            is_missing = counts < least
            beyond = is_missing.mean() > limit + 0.2
            answers.append(True if beyond else None if is_missing.any() else False)
    if not answers or any(answer is None for answer in answers):
        return True if True in answers else None
    return any(answers)
