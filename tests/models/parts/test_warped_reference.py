"""The warped reference: latents of moved frames and two masks, as the network takes them."""

import cv2
import numpy as np
import torch

from animaray.models.frames import to_frames
from animaray.models.parts.warped_reference import MovingPerson, warp_reference
from animaray.models.perception.generated.codec import GeneratedCodec
from animaray.models.pose.body_pose import BodyPose

SIZE = 64


def _pose(right_wrist=(14, 44)) -> np.ndarray:
    points = np.zeros((18, 2), np.float32)
    points[[0, 14, 15, 16, 17]] = [(32, 12), (30, 10), (34, 10), (28, 11), (36, 11)]
    points[[1, 2, 5, 8, 11]] = [(32, 22), (24, 22), (40, 22), (27, 48), (37, 48)]
    points[[4, 7]] = [right_wrist, (50, 44)]
    points[3], points[6] = (points[2] + points[4]) / 2, (points[5] + points[7]) / 2
    return points


def _person(*wrists: tuple[int, int]) -> MovingPerson:
    confidence = np.ones(18, np.float32)
    confidence[[9, 10, 12, 13]] = 0
    driven = np.stack([_pose(wrist) for wrist in wrists])
    return MovingPerson(
        reference=BodyPose(keypoints=_pose(), confidence=confidence),
        driven_keypoints=driven,
        driven_confidence=np.tile(confidence, (len(wrists), 1)),
    )


@torch.no_grad()
def _picture_latents(codec: GeneratedCodec) -> torch.Tensor:
    """Return latents of a red person before a grey wall."""
    picture = np.full((SIZE, SIZE, 3), 128, np.uint8)
    points = _pose()
    for start, end in ((2, 4), (5, 7), (2, 5), (2, 8), (5, 11), (8, 11), (1, 0)):
        ends = points[start].astype(int).tolist(), points[end].astype(int).tolist()
        cv2.line(picture, *ends, (200, 40, 30), 6)
    cv2.fillConvexPoly(picture, points[[2, 5, 11, 8]].astype(np.int32), (200, 40, 30))
    cv2.circle(picture, (32, 12), 8, (220, 180, 150), -1)
    return codec.encode(to_frames(picture[None]))


def test_a_resting_pose_leaves_the_reference_and_a_moved_one_does_not():
    codec = GeneratedCodec.load()
    reference = _picture_latents(codec)
    warped = warp_reference(codec, reference, [_person((14, 44), (8, 4))])
    assert warped.shape == (2, 6, 8, 8)
    with torch.no_grad():
        again = codec.encode(codec.decode(reference).clamp(-1, 1))
    distance = (warped[:, :4] - again).abs().mean(dim=(1, 2, 3))
    assert distance[0] < 0.5 * distance[1]
    moved, left = warped[:, 4], warped[:, 5]
    assert moved.amin() >= 0
    assert moved.amax() <= 1
    # The lifted arm is where it was not before, and has left its place.
    assert moved[1, 0, 1] > moved[0, 0, 1]
    assert left[1].sum() > left[0].sum()


def test_frames_are_warped_one_by_one():
    codec = GeneratedCodec.load()
    reference = _picture_latents(codec)
    both = warp_reference(codec, reference, [_person((14, 44), (8, 4))])
    alone = warp_reference(codec, reference, [_person((8, 4))])
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
