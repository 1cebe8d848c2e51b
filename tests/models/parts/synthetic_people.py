"""A person made of numbers: landmarks, a matte and a picture, for tests without networks."""

import numpy as np

from animaray.models.parts.landmarks import (
    CHIN,
    FACE_LEFT,
    FACE_RIGHT,
    FOREHEAD_TOP,
    PersonLandmarks,
)

WIDTH, HEIGHT = 240, 400
_PLACES = {
    0: (120, 60), 7: (132, 58), 8: (108, 58), 11: (145, 110), 12: (95, 110), 13: (170, 160),
    14: (70, 160), 15: (185, 210), 16: (55, 210), 17: (189, 222), 18: (51, 222), 19: (187, 224),
    20: (53, 224), 21: (183, 220), 22: (57, 220), 23: (136, 215), 24: (104, 215), 25: (138, 285),
    26: (102, 285), 27: (139, 355), 28: (101, 355), 29: (139, 365), 30: (101, 365), 31: (150, 370),
    32: (90, 370),
}  # fmt: skip


def standing(**moved: tuple[float, float]) -> PersonLandmarks:
    """Return somebody who stands with free arms; p15=(x, y) moves a point."""
    body = np.zeros((33, 3))
    body[:11, :2] = _PLACES[0]
    for index, place in _PLACES.items():
        body[index, :2] = place
    for name, place in moved.items():
        body[int(name[1:]), :2] = place
    return PersonLandmarks(body=body, visibility=np.ones(33), face=flat_face())


def flat_face(size: float = 70.0, centre: tuple[float, float] = (120.0, 60.0)) -> np.ndarray:
    """Return a face that looks at the camera; its width and height are `size`."""
    rng = np.random.default_rng(0)
    face = np.zeros((468, 3))
    face[:, :2] = rng.uniform(-0.3, 0.3, (468, 2))
    places = {
        FOREHEAD_TOP: (0, -0.5), CHIN: (0, 0.5), FACE_RIGHT: (-0.5, 0), FACE_LEFT: (0.5, 0),
        33: (-0.3, -0.1), 133: (-0.1, -0.1), 362: (0.1, -0.1), 263: (0.3, -0.1),
        13: (0, 0.25), 14: (0, 0.26), 78: (-0.1, 0.255), 308: (0.1, 0.255),
    }  # fmt: skip
    for index, place in places.items():
        face[index, :2] = place
    face[:, 2] = 0.2 * np.hypot(face[:, 0], face[:, 1])
    face[[33, 133, 362, 263, FOREHEAD_TOP, CHIN], 2] = 0.1
    return face * size + np.array([*centre, 0.0])


def matte_of(person: PersonLandmarks) -> np.ndarray:
    """Return a rough matte: thick bones."""
    import cv2

    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    bones = ((11, 13), (13, 15), (12, 14), (14, 16), (23, 25), (25, 27), (24, 26), (26, 28),
             (15, 19), (16, 20), (27, 31), (28, 32))  # fmt: skip
    points = person.points.astype(int).tolist()
    for start, end in bones:
        cv2.line(alpha, points[start], points[end], 1.0, 18)
    cv2.fillConvexPoly(alpha, person.points[[11, 12, 24, 23]].astype(np.int32), 1.0)
    cv2.ellipse(alpha, (120, 65), (30, 40), 0, 0, 360, 1.0, -1)
    return alpha


def picture() -> np.ndarray:
    """Return a slope with noise, so that every wrong pixel shows; the person is red."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    slope = np.stack([60 + rows // 4, 90 + columns // 4, 60 + columns // 2], axis=-1)
    slope[matte_of(standing()) > 0.5] = 200, 60, 60
    noise = np.random.default_rng(1).integers(-6, 7, slope.shape)
    return (slope + noise).astype(np.uint8)
