"""The people mask: limbs, heads, bodies that go on below the picture."""

import numpy as np

from animaray.pipelines.stages.foreground import people_mask, torso_length_px

NO_FACES = np.zeros((0, 4), dtype=np.float32)


def standing(height_px: float = 200.0, *, seen: list[int] | None = None) -> np.ndarray:
    """Return a person with spread arms, top of the head near y = 20, x = 150."""
    unit = height_px / 200
    places = {
        0: (150, 40), 1: (150, 60), 2: (130, 62), 3: (90, 62), 4: (55, 62), 5: (170, 62),
        6: (210, 62), 7: (245, 62), 8: (140, 120), 9: (140, 165), 10: (140, 210), 11: (160, 120),
        12: (160, 165), 13: (160, 210), 14: (146, 36), 15: (154, 36), 16: (141, 38), 17: (159, 38),
    }  # fmt: skip
    person = np.zeros((18, 3), dtype=np.float32)
    for index, (x, y) in places.items():
        person[index] = (x * unit, y * unit, 0.9 if seen is None or index in seen else 0.0)
    return person


def test_body_is_covered_and_the_space_under_the_arms_is_not() -> None:
    mask = people_mask(standing()[None], NO_FACES, (300, 240))
    for x, y in ((150, 40), (150, 90), (55, 62), (245, 62), (140, 210), (150, 25)):
        assert mask[y, x]
    for x, y in ((60, 150), (240, 150), (20, 20), (290, 20)):
        assert not mask[y, x]


def test_hands_reach_beyond_wrists() -> None:
    mask = people_mask(standing()[None], NO_FACES, (300, 240))
    assert mask[62, 42]


def test_body_of_a_close_up_goes_on_to_the_bottom() -> None:
    head_and_shoulders = standing(seen=[0, 1, 2, 5, 14, 15, 16, 17])
    mask = people_mask(head_and_shoulders[None], NO_FACES, (300, 240))
    assert mask[238, 150]
    assert not mask[238, 30]


def test_face_alone_stands_for_a_body() -> None:
    face = np.array([[140, 30, 170, 70]], dtype=np.float32)
    nobody = np.zeros((0, 18, 3), dtype=np.float32)
    mask = people_mask(nobody, face, (300, 240))
    assert mask[45, 155]
    assert mask[150, 155]
    assert not mask[150, 20]


def test_torso_is_about_neck_to_hips() -> None:
    # Neck (150, 60) to hips (140, 120) and (160, 120): sqrt(10^2 + 60^2) = 60.8.
    assert abs(torso_length_px(standing()) - 60.8) < 1.0


def test_nobody_covers_nothing() -> None:
    nobody = np.zeros((0, 18, 3), dtype=np.float32)
    assert not people_mask(nobody, NO_FACES, (30, 20)).any()
