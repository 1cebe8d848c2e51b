"""People are found in pictures of any shape, and faces too small to be told are not believed."""

from pathlib import Path

import numpy as np
import pytest

from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.find_people import find_faces, find_people, reduced
from animaray.models.perception.profiles import load_perception
from animaray.models.perception.protocols import Perception, PersonPose
from animaray.models.subjects.reference import check_face_sizes, embed_identity, prepare_reference
from animaray.platform.errors import FaceError
from animaray.platform.media.picture import read_picture

FIELD = Path(__file__).parents[2] / "data/field"


@pytest.fixture(scope="module")
def perception() -> Perception:
    return load_perception("generated")


class NearSighted:
    """Finds people as networks do: in a square of 64 pixels, and only when 20 of them high."""

    name = "near-sighted"

    def estimate(self, frame: np.ndarray) -> list[PersonPose]:
        scale = 64 / max(frame.shape[:2])
        lit = np.argwhere(frame[..., 0] > 40)
        if len(lit) == 0 or np.ptp(lit[:, 0]) * scale < 20:
            return []
        corners = np.stack([lit.min(axis=0), lit.max(axis=0)])[:, ::-1]
        keypoints = np.resize(corners, (18, 2)).astype(np.float32)
        return [PersonPose(keypoints=keypoints, keypoint_confidence=np.ones(18, np.float32))]


@pytest.mark.parametrize("is_wide", [True, False])
def test_a_long_picture_is_looked_at_window_by_window(is_wide: bool) -> None:
    picture = np.zeros((100, 1000, 3) if is_wide else (1000, 100, 3), np.uint8)
    box = [730, 5, 779, 94] if is_wide else [20, 730, 69, 799]
    picture[box[1] : box[3] + 1, box[0] : box[2] + 1] = 200
    (person,) = find_people(picture, NearSighted())
    assert person.keypoints[:2].ravel().tolist() == box


def test_a_long_picture_is_reduced_by_its_short_side() -> None:
    assert reduced(np.zeros((384, 3840, 3), np.uint8)).shape == (384, 3840, 3)
    assert reduced(np.zeros((1280, 12800, 3), np.uint8)).shape == (640, 6400, 3)
    assert reduced(np.zeros((1000, 2000, 3), np.uint8)).shape == (640, 1280, 3)


def test_the_person_of_a_panorama_is_found(perception: Perception) -> None:
    panorama = reduced(read_picture(FIELD / "i28_wide10to1.jpg"))
    reference = reduced(read_picture(FIELD / "ref_person.png"))
    (found,) = find_people(panorama, perception.pose_estimator)
    (plain,) = find_people(reference, perception.pose_estimator)
    shift = np.median(found.keypoints - plain.keypoints, axis=0)
    assert np.abs(shift - (1697, 0)).max() < 15  # the same person, moved
    (face,) = find_faces(panorama, perception.face_detector)
    assert face.box[3] - face.box[1] == pytest.approx(87, abs=6)


def test_small_faces_are_warned_of_and_tiny_ones_refused(
    perception: Perception, marker_networks
) -> None:
    def reference_of(name: str, step: int = 1):
        picture = np.ascontiguousarray(read_picture(FIELD / name)[::step, ::step])
        config = AnimatorConfig.tiny()
        return prepare_reference(picture, config, perception, marker_networks[1])

    assert check_face_sizes([reference_of("ref_person.png")]) == []
    (warning,) = check_face_sizes([reference_of("ref_person.png", 3)])
    assert "30 pixels high, so the result may look like somebody else" in warning
    with pytest.raises(FaceError, match=r"is 6 pixels high; under 20.*48 pixels high") as caught:
        check_face_sizes([reference_of("i27_24px.png")])
    assert caught.value.reason == "face_too_small"
    with pytest.raises(FaceError, match="face in the identity picture is 6 pixels high"):
        embed_identity(read_picture(FIELD / "i27_24px.png"), perception)
