"""21 points of each hand by MediaPipe's palm detector and hand landmark network (Apache-2.0).

Palms of a whole body are small: the detector looks at a square around each hand that the body's
landmarks show. The landmark network then looks twice, as at bodies.

References:
    Zhang et al. 2020, "MediaPipe Hands", arXiv 2006.10214.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.permissive.anchor_detections import (
    AnchorDecoder,
    AnchorLayout,
    Detection,
    letterbox,
)
from animaray.models.perception.permissive.mediapipe_body import Body
from animaray.models.perception.permissive.picture_network import PictureNetwork
from animaray.models.perception.permissive.upright_crop import UprightCrop, crop_between
from animaray.models.pose.layouts import NUM_HAND_POINTS
from animaray.platform.weights.store import resolve_weights

MIN_HAND_SCORE = 0.5
"""Below it a crop shows no hand."""
PALM_ANCHORS = AnchorLayout(side_px=192, num_points=7, strides=((8, 2), (16, 6)))
_WRIST, _MIDDLE_BASE = 0, 2
# Of the 21 points: wrist, and the bases of the fingers.
_PALM_POINTS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
_INDEX_BASE, _MIDDLE_BASE_POINT, _RING_BASE = 5, 9, 13
_CROP_SIDE_PX = 224
_CROP_PER_PALM, _PALM_SHIFT = 2.6, 0.5
_CROP_PER_HAND, _HAND_SHIFT = 2.0, 0.1
# Of the body's 33 points, left and right: wrist, little finger, index finger, elbow.
_BODY_HANDS = ((15, 17, 19, 13), (16, 18, 20, 14))
_SIDE_PER_FOREARM = 1.6
_HAND_PER_FOREARM = 0.4
_POINTS, _PRESENCE, _HANDEDNESS = "Identity", "Identity_1", "Identity_2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hand:
    """One hand."""

    points: Float32[np.ndarray, "21 3"]
    """Wrist, then four points of each finger from the thumb on: x, y in pixels of the frame; z in
    the same unit from the wrist, smaller is nearer."""
    score: float
    """Probability that the crop showed a hand."""
    right_score: float
    """Probability that it is the person's right hand, by its look alone."""


class HandNetworks:
    """Find hands in a picture, or where a body has them; nothing is remembered."""

    def __init__(
        self,
        palm_path: Path,
        landmarks_path: Path,
        *,
        num_threads: int = 1,
        device: str = "cpu",
        min_palm_score: float = 0.5,
    ) -> None:
        """Open the two networks.

        Args:
            palm_path: Palm detector, full or lite, .tflite or converted to .onnx.
            landmarks_path: Hand landmark network, full or lite, .tflite or converted to .onnx.
            num_threads: CPU threads of each.
            device: "cpu" or "cuda".
            min_palm_score: Least score of a palm in [0, 1].
        """
        self.min_palm_score = min_palm_score
        self._decoder = AnchorDecoder(PALM_ANCHORS)
        self._palms = PictureNetwork(
            palm_path,
            side_px=PALM_ANCHORS.side_px,
            outputs=("Identity", "Identity_1"),
            num_threads=num_threads,
            device=device,
        )
        self._landmarks = PictureNetwork(
            landmarks_path,
            side_px=_CROP_SIDE_PX,
            outputs=(_POINTS, _PRESENCE, _HANDEDNESS),
            num_threads=num_threads,
            device=device,
        )

    @classmethod
    def load(cls, *, num_threads: int = 1, device: str = "cpu") -> "HandNetworks":
        """Open the registered weights."""
        return cls(
            resolve_weights("permissive/palm_detection"),
            resolve_weights("permissive/hand_landmark"),
            num_threads=num_threads,
            device=device,
        )

    def find(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[Hand]:
        """Return the hands of a picture that shows them large, best palm first."""
        square, corner, scale = letterbox(frame, PALM_ANCHORS.side_px)
        palms = [palm.moved(-corner, 1.0 / scale) for palm in self._detect(square)]
        return [hand for palm in palms if (hand := self._look_at(frame, palm)) is not None]

    def find_of_body(
        self, frame: UInt8[np.ndarray, "height width 3"], body: Body
    ) -> tuple[Hand | None, Hand | None]:
        """Return a person's left and right hand, None where one is not seen.

        Args:
            body: The person in this picture.
        """
        left, right = (self._find_near(frame, body, hand) for hand in _BODY_HANDS)
        return left, right

    def follow(self, frame: UInt8[np.ndarray, "height width 3"], hand: Hand) -> Hand | None:
        """Return the hand of the frame before again, or None where it is not seen any more.

        Args:
            hand: The hand in the frame before.
        """
        crop = _crop_around(hand.points[:, :2])
        return None if crop is None else self._look(frame, crop)

    def _find_near(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        body: Body,
        indices: Sequence[int],
    ) -> Hand | None:
        """Return the hand at the end of one arm."""
        wrist, little, index, elbow = (body.points[each, :2] for each in indices)
        forearm = float(np.linalg.norm(wrist - elbow))
        fingers = (little + index) / 2
        reach = float(np.linalg.norm(fingers - wrist))
        side = max(_SIDE_PER_FOREARM * forearm, 4.0 * reach)
        if side < 8.0:
            return None
        area = UprightCrop(
            x=float(fingers[0]), y=float(fingers[1]), side_px=side, input_px=PALM_ANCHORS.side_px
        )
        palms = [
            Detection(
                box=area.to_picture(palm.box.reshape(2, 2)).reshape(4),
                score=palm.score,
                points=area.to_picture(palm.points),
            )
            for palm in self._detect(area.cut(frame))
        ]
        if not palms:
            return None
        nearest = min(palms, key=lambda palm: float(np.linalg.norm(palm.points[_WRIST] - wrist)))
        if float(np.linalg.norm(nearest.points[_WRIST] - wrist)) > max(
            _HAND_PER_FOREARM * forearm, 2.0 * reach
        ):
            return None
        return self._look_at(frame, nearest)

    def _detect(self, square: UInt8[np.ndarray, "side side 3"]) -> list[Detection]:
        """Return the palms of a picture of the detector's size, in its pixels."""
        answer = self._palms.look(square)
        rows, logits = answer["Identity"][0], answer["Identity_1"][0, :, 0]
        return self._decoder.decode(rows, logits, self.min_palm_score)

    def _look_at(self, frame: UInt8[np.ndarray, "height width 3"], palm: Detection) -> Hand | None:
        """Return the hand of a palm, looked at twice."""
        first_crop = _crop_of_palm(palm)
        first = None if first_crop is None else self._look(frame, first_crop)
        return None if first is None else self.follow(frame, first) or first

    def _look(self, frame: UInt8[np.ndarray, "height width 3"], crop: UprightCrop) -> Hand | None:
        answer = self._landmarks.look(crop.cut(frame))
        score = float(answer[_PRESENCE].reshape(-1)[0])
        if score < MIN_HAND_SCORE:
            return None
        return Hand(
            points=crop.to_picture_3d(answer[_POINTS].reshape(NUM_HAND_POINTS, 3)),
            score=score,
            right_score=float(answer[_HANDEDNESS].reshape(-1)[0]),
        )


def _crop_of_palm(palm: Detection) -> UprightCrop | None:
    """Return the crop of a whole hand, fingers up."""
    wrist, middle = palm.points[_WRIST], palm.points[_MIDDLE_BASE]
    size = float((palm.box[2:] - palm.box[:2]).max())
    centre = (palm.box[:2] + palm.box[2:]) / 2
    return _shifted_crop(centre, middle - wrist, size, (_CROP_PER_PALM, _PALM_SHIFT))


def _crop_around(points: Float32[np.ndarray, "21 2"]) -> UprightCrop | None:
    """Return the crop of a hand whose points are known, fingers up."""
    bases = (points[_INDEX_BASE] + points[_RING_BASE]) / 2
    up = (bases + points[_MIDDLE_BASE_POINT]) / 2 - points[0]
    length = float(np.linalg.norm(up))
    if length < 1e-3:
        return None
    along = up / length
    axes = np.stack([np.array([-along[1], along[0]]), along])
    turned = points[list(_PALM_POINTS)] @ axes.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    centre = axes.T @ ((low + high) / 2)
    size = float((high - low).max())
    return _shifted_crop(centre, up, size, (_CROP_PER_HAND, _HAND_SHIFT))


def _shifted_crop(
    centre: Float32[np.ndarray, " 2"],
    up: Float32[np.ndarray, " 2"],
    size: float,
    scale_shift: tuple[float, float],
) -> UprightCrop | None:
    """Return the crop of a box that is enlarged and moved towards the fingers."""
    length = float(np.linalg.norm(up))
    if length < 1e-3:
        return None
    scale, shift = scale_shift
    middle = centre + up / length * size * shift
    return crop_between(
        middle, middle + up / length * size, side_per_radius=scale, input_px=_CROP_SIDE_PX
    )
