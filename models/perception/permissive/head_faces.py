"""Faces on the heads that the body network shows: profile permissive's face detector.

MediaPipe's short-range detector misses small faces of a whole picture. So the body network finds
heads first, and the detector looks at each one's surroundings; the face mesh then gives the five
landmarks, and is a second witness: it also finds small faces on a head that the detector misses,
and a face of the whole picture without a body (a close-up) counts only if both see it. Faces from
the side have no mesh; their landmarks are the detector's own.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.permissive.anchor_detections import Detection, distinct
from animaray.models.perception.permissive.blaze_face import FACE_ANCHORS, BlazeFace
from animaray.models.perception.permissive.mediapipe_body import Body
from animaray.models.perception.permissive.mediapipe_face import (
    MIN_MESH_SCORE,
    FaceMesh,
    FaceMeshNetwork,
)
from animaray.models.perception.permissive.mediapipe_pose import MediaPipePoseEstimator
from animaray.models.perception.permissive.upright_crop import UprightCrop
from animaray.models.perception.protocols import FaceDetection

_CROP_PER_HEAD = 2.5
_SMALL_HEAD_PX, _CROP_PER_SMALL_HEAD = 24, 1.5
_LEFT_EYE, _RIGHT_EYE, _NOSE, _MOUTH = range(4)
_MOUTH_PER_EYES = 0.8
"""Width of a mouth, in distances between the eyes."""
# Boxes run from the hairline to the chin, and from one cheek to the other: what is added to the top
# and how wide they are, in heights and widths of what the networks give.
_MESH_FOREHEAD, _MESH_WIDTH = 0.13, 1.0
_DETECTOR_FOREHEAD, _DETECTOR_WIDTH = 0.23, 0.9


class HeadFaceDetector:
    """Find faces of about 12 px and more, with five landmarks."""

    def __init__(
        self,
        poses: MediaPipePoseEstimator,
        faces: BlazeFace,
        meshes: FaceMeshNetwork,
        *,
        min_score: float = 0.5,
        min_head_score: float = 0.4,
    ) -> None:
        """Take the networks that it looks with.

        Args:
            poses: Shows the heads; one look at each person is enough.
            faces: Looks at each head.
            min_score: Least score of the face detector in [0, 1] for close-ups without a body.
            min_head_score: The same on a head: small faces in profile reach no more.
        """
        self.name = "permissive/head_faces"
        self.min_score = min_score
        self.min_head_score = min_head_score
        self._poses = poses
        self._faces = faces
        self._meshes = meshes

    @classmethod
    def load(cls, *, num_threads: int = 1, device: str = "cpu") -> "HeadFaceDetector":
        """Open the registered weights."""
        poses = MediaPipePoseEstimator.load(num_threads=num_threads, device=device)
        poses.config = replace(poses.config, use_second_look=False)
        return cls(
            poses,
            BlazeFace.load(num_threads=num_threads, device=device),
            FaceMeshNetwork.load(num_threads=num_threads, device=device),
        )

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[FaceDetection]:
        """Return the faces of one RGB picture, largest box first."""
        found = [
            face
            for body in self._poses.find(frame)
            for face, _ in (self._on_head(frame, body),)
            if face is not None
        ]
        found.extend(self._close_ups(frame))
        faces = [
            FaceDetection(box=each.box, score=each.score, landmarks=each.points)
            for each in distinct(found)
        ]
        return sorted(faces, key=_box_area, reverse=True)

    def find_of_body(
        self, frame: UInt8[np.ndarray, "height width 3"], body: Body
    ) -> tuple[FaceDetection | None, FaceMesh | None]:
        """Return the face of a person who was found already, and its mesh unless seen aside.

        Args:
            body: The person in this picture.
        """
        face, mesh = self._on_head(frame, body)
        if face is None:
            return None, None
        return FaceDetection(box=face.box, score=face.score, landmarks=face.points), mesh

    def _on_head(
        self, frame: UInt8[np.ndarray, "height width 3"], body: Body
    ) -> tuple[Detection | None, FaceMesh | None]:
        """Return the face that lies nearest to a head's landmarks, as seen by two networks."""
        head = body.head_box()
        middle, side = (head[:2] + head[2:]) / 2, float(head[2] - head[0])
        around = UprightCrop(
            x=float(middle[0]),
            y=float(middle[1]),
            side_px=side * (_CROP_PER_SMALL_HEAD if side < _SMALL_HEAD_PX else _CROP_PER_HEAD),
            input_px=FACE_ANCHORS.side_px,
        )
        found = self._faces.find_in(frame, around, min_score=self.min_head_score)
        if found:
            nearest = min(
                found, key=lambda face: float(np.linalg.norm(face.points.mean(axis=0) - middle))
            )
            mesh = self._mesh_of(frame, nearest)
            if mesh.score >= MIN_MESH_SCORE:
                return _face_of_mesh(mesh, max(mesh.score, nearest.score)), mesh
            return _face_from_side(nearest), None
        mesh = self._meshes.find(frame, head)
        if mesh.score < MIN_MESH_SCORE:
            return None, None
        return _face_of_mesh(mesh, mesh.score), mesh

    def _close_ups(self, frame: UInt8[np.ndarray, "height width 3"]) -> Iterator[Detection]:
        """Yield the large faces of the whole picture on which both networks agree."""
        for face in self._faces.find(frame, min_score=self.min_score):
            mesh = self._mesh_of(frame, face)
            if mesh.score >= MIN_MESH_SCORE:
                yield _face_of_mesh(mesh, max(mesh.score, face.score))

    def _mesh_of(self, frame: UInt8[np.ndarray, "height width 3"], face: Detection) -> FaceMesh:
        right, down = face.points[_RIGHT_EYE] - face.points[_LEFT_EYE]
        return self._meshes.find(frame, face.box, turn=float(np.arctan2(down, right)))


def _face_of_mesh(mesh: FaceMesh, score: float) -> Detection:
    box = _face_box(mesh.box(), _MESH_FOREHEAD, _MESH_WIDTH)
    return Detection(box=box, score=min(score, 1.0), points=mesh.landmarks())


def _face_from_side(face: Detection) -> Detection:
    """Return a face without a mesh; the corners lie where a mouth of usual width has them."""
    points = face.points
    across = (points[_RIGHT_EYE] - points[_LEFT_EYE]) * (_MOUTH_PER_EYES / 2)
    corners = [points[_MOUTH] - across, points[_MOUTH] + across]
    return Detection(
        box=_face_box(face.box, _DETECTOR_FOREHEAD, _DETECTOR_WIDTH),
        score=face.score,
        points=np.stack([*points[:_MOUTH], *corners]).astype(np.float32),
    )


def _face_box(
    box: Float32[np.ndarray, " 4"], forehead: float, width: float
) -> Float32[np.ndarray, " 4"]:
    """Return a box with the forehead added, and of a share of its width."""
    left, top, right, bottom = (float(side) for side in box)
    middle, half = (left + right) / 2, (right - left) / 2 * width
    top -= forehead * (bottom - top)
    return np.array([middle - half, top, middle + half, bottom], dtype=np.float32)


def _box_area(face: FaceDetection) -> float:
    left, top, right, bottom = face.box
    return float((right - left) * (bottom - top))
