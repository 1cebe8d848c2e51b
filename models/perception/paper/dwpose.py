"""Whole-body keypoints by DWPose (Apache-2.0): a YOLOX person detector, then an RTMPose network.

References:
    Yang et al. 2023, "Effective Whole-body Pose Estimation with Two-stages Distillation",
    arXiv 2307.15880.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
from jaxtyping import Float, UInt8

from animaray.models.perception.onnx_session import open_onnx_session
from animaray.models.perception.paper.dwpose_decoding import (
    MIN_PERSON_SCORE,
    NUM_WHOLE_BODY,
    SPLIT_RATIO,
    crop_of_box,
    cut_crop,
    decode_people,
    decode_simcc,
    letterbox,
    openpose_order,
    to_person,
    whole_picture,
)
from animaray.models.perception.protocols import PersonPose
from animaray.platform.errors import ConfigError, WeightsError
from animaray.platform.weights.store import resolve_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class DwposeConfig:
    """Settings of the estimator; the defaults are the published ones."""

    min_person_score: float = MIN_PERSON_SCORE
    """Least detector score in [0, 1] of a person."""
    max_people: int = 8
    """Of more people the largest count; the published code takes all."""
    use_whole_picture: bool = False
    """Where the detector finds nobody, look at the whole picture as one person, as published.
    False finds nobody, which is what curation and serving want to know."""
    swap_red_and_blue: bool = False
    """Show the networks BGR instead of the RGB that the published code gives them."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: The score is outside [0, 1], or max_people is below 1.
        """
        if not 0.0 <= self.min_person_score <= 1.0:
            raise ConfigError(f"Expected min_person_score in [0, 1], got {self.min_person_score}.")
        if self.max_people < 1:
            raise ConfigError(f"Expected max_people >= 1, got {self.max_people}.")


class DwposeEstimator:
    """Find people and their body, hand and face keypoints in one picture."""

    def __init__(
        self,
        detector: Path,
        pose: Path,
        config: DwposeConfig | None = None,
        *,
        num_threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Open both ONNX files; one that is damaged or of another shape raises WeightsError.

        Args:
            detector: YOLOX: square pictures to rows of centre, size, objectness, class scores.
            pose: RTMPose: person crops to SimCC scores of 133 points on both axes.
            num_threads: CPU threads of each network.
            device: "cpu" or "cuda".

        """
        self.name = "paper/dwpose"
        self.config = config or DwposeConfig()
        self._detector = open_onnx_session(detector, num_threads=num_threads, device=device)
        self._pose = open_onnx_session(pose, num_threads=num_threads, device=device)
        height, width = _input_size(self._detector, detector)
        if height != width:
            _refuse(detector, "a square input", f"{width} x {height}")
        self._side_px = height
        height, width = _input_size(self._pose, pose)
        self._crop_size = (width, height)
        bins = [output.shape[-1] for output in self._pose.get_outputs()]
        if bins != [width * SPLIT_RATIO, height * SPLIT_RATIO]:
            expected = f"two outputs of {width * SPLIT_RATIO} and {height * SPLIT_RATIO} bins"
            _refuse(pose, expected, f"outputs of {bins} bins")

    @classmethod
    def load(
        cls, config: DwposeConfig | None = None, *, num_threads: int = 1, device: str = "cpu"
    ) -> "DwposeEstimator":
        """Open the registered weights (`paper/person_detector` and `paper/pose`)."""
        return cls(
            resolve_weights("paper/person_detector"),
            resolve_weights("paper/pose"),
            config,
            num_threads=num_threads,
            device=device,
        )

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of one RGB picture, largest box first; empty when there is nobody.

        All points are looked for: body, feet, face and hands.
        """
        picture = np.ascontiguousarray(frame[..., ::-1]) if self.config.swap_red_and_blue else frame
        return [self._look(picture, box) for box in self.find_people(picture)]

    def find_people(
        self, picture: UInt8[np.ndarray, "height width 3"]
    ) -> Float[np.ndarray, "people 4"]:
        """Return the boxes of people: left, top, right, bottom in pixels, largest first."""
        pixels, scale = letterbox(picture, self._side_px)
        (rows,) = self._detector.run(None, {self._detector.get_inputs()[0].name: pixels[None]})
        boxes = decode_people(
            rows[0], scale, side_px=self._side_px, min_score=self.config.min_person_score
        )
        if len(boxes) == 0 and self.config.use_whole_picture:
            return whole_picture(picture)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        return boxes[np.argsort(-areas, kind="stable")[: self.config.max_people]]

    def _look(
        self, picture: UInt8[np.ndarray, "height width 3"], box: Float[np.ndarray, " 4"]
    ) -> PersonPose:
        crop = crop_of_box(box, self._crop_size)
        pixels = cut_crop(picture, crop, self._crop_size)
        simcc_x, simcc_y = self._pose.run(None, {self._pose.get_inputs()[0].name: pixels[None]})
        points, scores = decode_simcc(simcc_x[0], simcc_y[0], crop, self._crop_size)
        return to_person(*openpose_order(points, scores))


def _input_size(session: onnxruntime.InferenceSession, path: Path) -> tuple[int, int]:
    """Return height and width of a graph's pictures; other inputs raise WeightsError."""
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[1] != 3 or not all(isinstance(side, int) for side in shape[2:]):
        _refuse(path, "input pictures [batch, 3, height, width] of a fixed size", str(shape))
    return int(shape[2]), int(shape[3])


def _refuse(path: Path, expected: str, got: str) -> NoReturn:
    """Raise that a graph is another one.

    Raises:
        WeightsError: Always.
    """
    raise WeightsError(
        f"Expected {expected} in {path} ({NUM_WHOLE_BODY} whole-body points), got {got}.",
        fix="Get it again: `animaray weights pull paper/pose` and `paper/person_detector`.",
        reason="architecture",
    )
