"""Vectors of preprocessing: CLIP's pictures, DWPose around its networks, rescale and drawing."""

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.alignment.published_fit import published_fit
from animaray.models.perception.paper.clip_preprocessing import clip_pixels
from animaray.models.perception.paper.dwpose_decoding import (
    crop_of_box,
    cut_crop,
    decode_people,
    decode_simcc,
    letterbox,
    openpose_order,
    whole_picture,
)
from animaray.models.pose.drawing import CANVAS_PX, draw_pose_clip
from animaray.models.pose.further_points import HasPose
from animaray.models.pose.layouts import (
    FACE,
    LEFT_HAND,
    NUM_FURTHER_POINTS,
    NUM_KEYPOINTS,
    RIGHT_HAND,
    VISIBLE_CONFIDENCE,
)
from animaray.models.subjects.motion import Motion
from benchmarks.golden.vectors import GoldenVector

Arrays = dict[str, np.ndarray]


def formula_picture(height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Return the vectors' test picture: (x(3+2c) + y(5+c) + (xy)//7 (c+1)) mod 256."""
    y, x, c = np.ogrid[:height, :width, :3]
    values = x * (3 + 2 * c) + y * (5 + c) + (x * y) // 7 * (c + 1)
    return (values % 256).astype(np.uint8)


def run_clip_preprocess(vector: GoldenVector) -> None:
    """Compare CLIP's input for pictures of several sizes: every n-th pixel, and three sums."""
    for match in list(vector.names(r"out_sub(\d+)_(\d+)x(\d+)")):
        step, height, width = (int(group) for group in match.groups())
        picture = torch.from_numpy(formula_picture(height, width)).permute(2, 0, 1)[None]
        pixels = clip_pixels(picture.float() / 255 * 2 - 1)
        vector.close(match[0], pixels[:, :, ::step, ::step])
        sums = f"checksum_{height}x{width}"
        if vector.has(sums):
            largest = pixels.abs().max()
            vector.close(sums, torch.stack([pixels.mean(), pixels.std(), largest]))


def run_dwpose_post(vector: GoldenVector) -> None:
    """Compare letterbox, boxes, crop, keypoints and their order, with scripted network outputs."""
    picture = vector.tensor("image_u8").numpy()
    height, width = picture.shape[:2]
    side_px = vector.setting("config", "det_input")[0]
    crop_height, crop_width = vector.setting("config", "pose_input_hw")
    crop_size = (crop_width, crop_height)
    pixels, scale = letterbox(picture, side_px)
    for match in list(vector.names(r"letterbox_sub(\d+)")):
        step = int(match[1])
        vector.close(match[0], pixels[:, ::step, ::step], atol=0.0)
    boxes = _detected_boxes(vector, scale, side_px)
    vector.close("boxes_xyxy", boxes, atol=vector.tolerance("boxes_atol"))
    crops = [crop_of_box(box, crop_size) for box in boxes]
    for match in list(vector.names(r"pose_crops_instance(\d+)")):
        ours = cut_crop(picture, crops[int(match[1])], crop_size)
        vector.close(match[0], ours, atol=vector.tolerance("scores_atol"))
    decoded = []
    for person, crop in enumerate(crops):
        simcc_x, simcc_y = _simcc(vector, person, crop_size)
        decoded.append(openpose_order(*decode_simcc(simcc_x, simcc_y, crop, crop_size)))
    points = np.stack([person[0] for person in decoded])
    scores = np.stack([person[1] for person in decoded])
    _compare_people(vector, points, scores, np.array([width, height], np.float32))


def _detected_boxes(vector: GoldenVector, scale: float, side_px: int) -> np.ndarray:
    values = vector.tensor("det_values").numpy()
    cells = sum((side_px // stride) ** 2 for stride in (8, 16, 32))
    rows = np.zeros((cells, values.shape[1]), np.float32)
    rows[vector.tensor("det_rows").numpy()] = values
    boxes = decode_people(rows, scale, side_px=side_px)
    return boxes if len(boxes) else whole_picture(vector.tensor("image_u8").numpy())


def _simcc(
    vector: GoldenVector, person: int, crop_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return one person's scripted SimCC scores: stored in full for the first, else its peaks."""
    if person == 0:
        return tuple(vector.tensor(f"simcc_{axis}")[0].float().numpy() for axis in "xy")  # type: ignore[return-value] # two of them
    height = vector.tensor("amp")[person].numpy()
    points = np.arange(len(height))
    scores = []
    for axis, bins, factor in (("x", 2 * crop_size[0], 1.0), ("y", 2 * crop_size[1], 1.1)):
        score = np.zeros((len(height), bins), np.float32)
        score[points, vector.tensor(f"peak_{axis}")[person].numpy()] = factor * height
        scores.append(score)
    return scores[0], scores[1]


def _compare_people(
    vector: GoldenVector, points: np.ndarray, scores: np.ndarray, size: np.ndarray
) -> None:
    body = scores[:, :18]
    index = np.arange(body.size).reshape(body.shape)
    subset = np.where(body > VISIBLE_CONFIDENCE, index, -1)
    shares = points / size
    further, further_scores = shares[:, NUM_KEYPOINTS:], scores[:, NUM_KEYPOINTS:]
    hands = [further[:, LEFT_HAND], further[:, RIGHT_HAND]]
    hand_scores = [further_scores[:, LEFT_HAND], further_scores[:, RIGHT_HAND]]
    places = {
        "bodies_candidate": shares[:, :18].reshape(-1, 2),
        "hands": np.concatenate(hands),
        "faces": further[:, FACE],
        "keypoints": points,
    }
    for name, ours in places.items():
        vector.close(name, ours, atol=vector.tolerance("keypoints_atol"))
    certain = {
        "scores": scores,
        "bodies_score": body,
        "hands_score": np.concatenate(hand_scores),
        "faces_score": further_scores[:, FACE],
    }
    for name, ours in certain.items():
        vector.close(name, ours, atol=vector.tolerance("scores_atol"))
    vector.close("bodies_subset", subset.astype(np.float32), atol=0.0)


def run_pose_align_draw(vector: GoldenVector) -> None:
    """Compare the clip's fit to the reference, the moved keypoints, and the drawn pictures."""
    if vector.setting("config").get("canvas_min_side", CANVAS_PX) != CANVAS_PX:
        raise vector.broken(f"our canvas has {CANVAS_PX} pixels on its shorter side")
    names = [match[0] for match in vector.names(r".+")]
    arrays = {name: vector.tensor(name).numpy() for name in names}
    frames = [f"drv{index}" for index in range(vector.setting("config", "num_driving"))]
    bodies = {frame: arrays[f"{frame}.bodies_candidate"].reshape(-1, 18, 2) for frame in frames}
    transform = published_fit(
        arrays["ref.bodies_candidate"][:18],
        arrays["ref.bodies_subset"][0] >= 0,
        np.stack([bodies[frame][0] for frame in frames if len(bodies[frame]) == 1]),
    )
    tolerance = vector.tolerance("keypoints_atol")
    vector.close("a", transform.scale, atol=tolerance)
    vector.close("b", transform.shift, atol=tolerance)
    for name in names:
        if (match := re.fullmatch(r"aligned(\d+)\.(\w+)", name)) is not None:
            ours = transform.apply(arrays[f"drv{match[1]}.{match[2]}"])
            vector.close(name, ours, atol=tolerance)
    _compare_drawings(vector, arrays, frames)


def _compare_drawings(vector: GoldenVector, arrays: Arrays, frames: list[str]) -> None:
    """Compare the pictures with those of our own way: motions, aligned, drawn together."""
    height, width = vector.setting("config", "ref_hw")
    size = width, height
    motions = motions_of([people_of(arrays, frame, size) for frame in frames], size)
    reference = people_of(arrays, "ref", size)[0]
    poses = [align_clip("fit", reference, motion.posed()) for motion in motions]
    drawn: dict[str, Sequence[HasPose]] = {"aligned": poses, "unaligned_drv": motions}
    for path in sorted(vector.folder.glob("drawn_*.png")):
        match = re.fullmatch(r"drawn_(aligned|unaligned_drv)(\d+)", path.stem)
        if match is None:
            raise vector.broken(
                f"{path.name} is neither drawn_aligned<i>.png nor drawn_unaligned_drv<i>"
            )
        people = drawn[match[1]]
        pictures = draw_pose_clip(people, width, height, "whole_body_134", "published")
        _compare_drawing(vector, path, pictures[int(match[2])])


def _compare_drawing(
    vector: GoldenVector, path: Path, drawn: UInt8[np.ndarray, "height width 3"]
) -> None:
    expected = cv2.imread(str(path))
    if expected is None:
        raise vector.broken(f"{path.name} is no picture")
    expected = np.ascontiguousarray(expected[..., ::-1])
    largest, mean = _drawing_tolerance(vector)
    note = f"OpenCV {cv2.__version__}" if largest else ""
    vector.compare(path.name, drawn, expected, atol=largest, note=note)
    if largest and drawn.shape == expected.shape:
        difference = np.abs(drawn.astype(int) - expected).mean()
        vector.compare(f"{path.name}: mean", difference, np.zeros(()), atol=mean)


def _drawing_tolerance(vector: GoldenVector) -> tuple[float, float]:
    """Return how far a drawing may be off, at most and on average: (0, 0) is bit-equal.

    The vector's own words: bit-equal with the OpenCV that drew it (5), and by how much another
    major version was seen to differ.
    """
    words = str(vector.setting("tol", "drawing"))
    match = re.search(r"OpenCV.*vs (\d+)\..*max ([\d.]+), mean ([\d.]+)", words)
    if match is None or cv2.__version__.split(".")[0] == match[1]:
        return 0.0, 0.0
    return float(match[2]), float(match[3])


def motions_of(pictures: Sequence[Sequence[PosedPicture]], size: tuple[int, int]) -> list[Motion]:
    """Return the people of consecutive pictures as motions.

    There are as many motions as the fullest picture shows people; where a picture shows fewer, the
    others follow its last person, too.

    Args:
        pictures: Who is seen in each.
        size: Width and height of the pictures, pixels.
    """
    motions = []
    for number in range(max(len(people) for people in pictures)):
        followed = [people[min(number, len(people) - 1)] for people in pictures]
        further = [each.further_points for each in followed if each.further_points is not None]
        motion = Motion(
            keypoints=np.stack([each.keypoints for each in followed]),
            keypoint_confidence=np.stack([each.keypoint_confidence for each in followed]),
            further_points=np.stack(further),
            width_px=size[0],
            height_px=size[1],
            is_filled=np.zeros(len(pictures), bool),
            is_alone=np.array([len(people) == 1 for people in pictures]),
        )
        motions.append(motion)
    return motions


def people_of(arrays: Arrays, picture: str, size: tuple[int, int]) -> list[PosedPicture]:
    """Return the people of a stored picture in pixels.

    Args:
        arrays: Tensors of a `pose_align_draw` vector.
        picture: Prefix of its keypoints and scores.
        size: Width and height of the picture.
    """
    bodies = arrays[f"{picture}.bodies_candidate"].reshape(-1, 18, 2) * size
    # All left hands come first.
    hands = arrays[f"{picture}.hands"].reshape(2, -1, 21, 2) * size
    hand_scores = arrays[f"{picture}.hands_score"].reshape(2, -1, 21)
    people = []
    for person, body in enumerate(bodies):
        further = np.zeros((NUM_FURTHER_POINTS, 3))
        further[FACE, :2] = arrays[f"{picture}.faces"][person] * size
        further[FACE, 2] = arrays[f"{picture}.faces_score"][person]
        for side, part in enumerate((LEFT_HAND, RIGHT_HAND)):
            further[part, :2] = hands[side, person]
            further[part, 2] = hand_scores[side, person]
        pose = PosedPicture(
            keypoints=body,
            keypoint_confidence=arrays[f"{picture}.bodies_score"][person],
            further_points=further,
            width_px=size[0],
            height_px=size[1],
        )
        people.append(pose)
    return people
