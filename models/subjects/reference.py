"""The people to animate: from a picture of any size to what the animator is told about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from animaray.models.alignment.alignment import PosedPicture
from animaray.models.face.identity import FaceIdentity, measure_face
from animaray.models.face.landmarks import nearest_face
from animaray.models.frames import to_frames
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.find_people import find_faces, find_people, reduced
from animaray.models.perception.protocols import (
    FaceDetection,
    IdentityEmbedder,
    ImageEncoder,
    LatentCodec,
    Perception,
    PersonPose,
    RawIdentityEmbedder,
)
from animaray.models.pose.further_points import map_further
from animaray.models.pose.layouts import FACE_POINTS, VISIBLE_CONFIDENCE
from animaray.models.subjects.choice import (
    PROMINENT_SHARE,
    PersonChoice,
    choose_people,
    prominent_people,
)
from animaray.models.subjects.encoding import add_noise, device_of
from animaray.models.subjects.framing import FrameFit
from animaray.models.subjects.tracks import seen_person
from animaray.platform.errors import ConfigError, FaceError, PersonChoiceError, PoseError

MIN_FACE_PX = 20
"""Lower faces are refused: at 16 pixels a recogniser takes a person for somebody else (cosine 0.3
to the full picture, at 24 pixels 0.7; docs/lab_log.md, 2026-11-30)."""
CLEAR_FACE_PX = 48
"""Lower faces are warned of: from here on the cosine is over 0.9."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A prepared reference image."""

    picture_uint8: UInt8[np.ndarray, "height width 3"]
    """The picture in the model's size."""
    fit: FrameFit
    """How it got there; maps points of the (reduced) original."""
    pose: PosedPicture
    """The person's keypoints in the model's picture."""
    face: FaceDetection | None
    """The face, in the (reduced) original; None where none was to be looked for."""
    identity: FaceIdentity
    """Whose face it is; zeros without one."""
    image_embedding: Float[Tensor, "1 image_dim"]
    """Image embedding of `picture_uint8`, or of the whole picture if the model wants that."""
    num_persons: int
    """People who could have been chosen."""
    reduction: float = 1.0
    """Sides of the reduced original divided by those of the original."""

    @property
    def identity_embedding(self) -> Float32[np.ndarray, " identity_dim"]:
        """Unit vector, for comparisons."""
        return self.identity.unit

    def with_identity(self, identity: Float32[np.ndarray, " identity_dim"]) -> "Reference":
        """Return a copy that shall look like somebody else.

        Args:
            identity: Unit vector.
        """
        return replace(self, identity=self.identity.of_somebody_else(identity))


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceWish:
    """Whom of a picture to prepare, and how."""

    choices: Sequence[PersonChoice] = ()
    """Whom to take, in this order; none takes the largest. A point is in pixels of the picture."""
    option: str | None = None
    """Name of the option to ask for where several are seen and none is chosen; None takes the
    largest silently."""
    no_face: bool = False
    """Look for no face and tell the animator no identity, as the released code does where it finds
    none: for characters without a human face."""


def prepare_reference(
    picture_uint8: UInt8[np.ndarray, "height width 3"],
    config: AnimatorConfig,
    perception: Perception,
    image_encoder: ImageEncoder,
) -> Reference:
    """Prepare the largest person of a picture; arguments and errors as in `prepare_references`."""
    return prepare_references(picture_uint8, config, perception, image_encoder)[0]


def prepare_references(
    picture_uint8: UInt8[np.ndarray, "height width 3"],
    config: AnimatorConfig,
    perception: Perception,
    image_encoder: ImageEncoder,
    wish: ReferenceWish | None = None,
) -> list[Reference]:
    """Find people, their faces and identities, and fit the picture to the model's size.

    All of them share one picture, whose window shows everybody chosen.

    Args:
        picture_uint8: RGB, any size, upright.
        config: Gives the model's size.
        perception: Detectors and recogniser.
        image_encoder: Sums up the picture.
        wish: Whom to take, and whether they have faces; None takes the largest, with a face.

    Raises:
        PoseError: Nobody is found in the picture.
    """
    # Who is in the picture, and who of them is wished for.
    wish = wish or ReferenceWish()
    picture = reduced(picture_uint8)
    people = find_people(picture, perception.pose_estimator)
    if not people:
        raise PoseError(
            "The reference picture shows no person whose body keypoints can be found.",
            fix="Use a picture that shows one person clearly, at least head and shoulders.",
            reason="no_person",
        )
    height, width = picture.shape[:2]
    seen = [seen_person(person) for person in people]
    chosen = choose_people(
        seen,
        [choice.scaled(width / picture_uint8.shape[1]) for choice in wish.choices],
        height_px=height,
        where="the reference picture",
        option=wish.option,
    )
    # Each one's own face, not that of a neighbour.
    faces: Sequence[FaceDetection | None] = [None] * len(chosen)
    if not wish.no_face:
        found = find_faces(picture, perception.face_detector)
        faces = _own_faces(found, [people[index] for index in chosen])
    # One window of the model's size for all of them, and what the image encoder sees of it.
    fit = _fit_of([people[index] for index in chosen], (width, height), config)
    framed = fit.apply_picture(picture)
    embedded = framed if config.image_embedding_of == "frame" else picture_uint8
    image_embedding = _embed(embedded, image_encoder)
    # Identities are measured in the picture before the cut: the window may be smaller than it.
    embedder = perception.identity_embedder
    require_identity_input(embedder, config)
    return [
        Reference(
            picture_uint8=framed,
            fit=fit,
            pose=PosedPicture(
                keypoints=fit.apply_points(people[index].keypoints),
                keypoint_confidence=people[index].keypoint_confidence,
                width_px=config.width_px,
                height_px=config.height_px,
                further_points=map_further(people[index].further_points, fit.apply_points),
            ),
            face=face,
            identity=FaceIdentity.of_nobody(embedder)
            if face is None
            else measure_face(embedder, picture, face.landmarks, config.identity_input),
            image_embedding=image_embedding,
            num_persons=len(prominent_people(seen)),
            reduction=width / picture_uint8.shape[1],
        )
        for index, face in zip(chosen, faces, strict=True)
    ]


@torch.no_grad()
def _embed(
    picture_uint8: UInt8[np.ndarray, "height width 3"], image_encoder: ImageEncoder
) -> Float[Tensor, "1 embedding"]:
    frames = to_frames(np.ascontiguousarray(picture_uint8)[None], device_of(image_encoder))
    return image_encoder.encode(frames)


def _fit_of(
    people: Sequence[PersonPose], size_px: tuple[int, int], config: AnimatorConfig
) -> FrameFit:
    """Return how a picture of that size becomes the model's, with everybody of `people` in it."""
    if not config.keep_aspect:
        return FrameFit.stretched(size_px, config.width_px, config.height_px)
    return FrameFit.for_person(
        size_px,
        np.stack([person.keypoints for person in people]),
        config.width_px,
        config.height_px,
        keypoint_confidence=np.stack([person.keypoint_confidence for person in people]),
    )


def require_identity_input(embedder: IdentityEmbedder, config: AnimatorConfig) -> None:
    """Refuse a recogniser that does not give what the model's Face Encoder takes.

    Raises:
        ConfigError: The model wants the raw output, and the recogniser gives unit vectors only.
    """
    if config.identity_input != "unit" and not isinstance(embedder, RawIdentityEmbedder):
        raise ConfigError(
            "This model's Face Encoder takes the recogniser's raw output, which "
            f"{embedder.name} does not give.",
            fix="Use the recogniser it was trained with: profile paper.",
        )


def _own_faces(faces: Sequence[FaceDetection], people: Sequence[PersonPose]) -> list[FaceDetection]:
    """Return each person's face.

    Raises:
        FaceError: There is no face, or two people would share one.
    """
    found: list[FaceDetection] = []
    for number, person in enumerate(people, start=1):
        face = nearest_face(faces, _face_place(person))
        if face is None or any(face is other for other in found):
            whose = "" if len(people) == 1 else f" of person {number} of those chosen"
            raise FaceError(
                f"The reference picture shows no face{whose}.",
                fix="Use a picture where the face is visible, turned to the camera and not"
                " covered; a character without a human face goes on without an identity by"
                " --no-face (in jobs and in Python: no_face).",
                reason="no_face",
            )
        found.append(face)
    return found


def embed_identity(
    picture_uint8: UInt8[np.ndarray, "height width 3"], perception: Perception
) -> Float32[np.ndarray, " identity_dim"]:
    """Return the identity of the largest face of a picture.

    Args:
        picture_uint8: RGB, any size, upright.
        perception: Face detector and recogniser.

    Raises:
        FaceError: There is no face.
        PersonChoiceError: A second face is nearly as large.
    """
    picture = reduced(picture_uint8)
    faces = find_faces(picture, perception.face_detector)
    if not faces:
        raise FaceError(
            "The identity picture shows no face.",
            fix="Use a picture where one face is visible, turned to the camera and not covered.",
            reason="no_face",
        )
    widths = [float(face.box[2] - face.box[0]) for face in faces]
    if sum(width >= PROMINENT_SHARE * max(widths) for width in widths) > 1:
        raise PersonChoiceError(
            f"The identity picture shows {len(faces)} faces; it is not clear whose is meant.",
            fix="Cut out the one face.",
            reason="several_people",
        )
    _check_face_size(faces[0], "identity picture", picture.shape[1] / picture_uint8.shape[1])
    return perception.identity_embedder.embed(picture, faces[0].landmarks)


def check_face_sizes(references: Sequence[Reference]) -> list[str]:
    """Refuse references whose face is too small to be told; return warnings of small ones."""
    warnings = [
        _check_face_size(reference.face, "reference picture", reference.reduction)
        for reference in references
        if reference.face is not None
    ]
    return [warning for warning in warnings if warning is not None]


def _check_face_size(face: FaceDetection, where: str, reduction: float) -> str | None:
    """Return a warning where a face is small.

    Raises:
        FaceError: It is too small to tell whose it is.
    """
    height_px = float(face.box[3] - face.box[1])
    if height_px >= CLEAR_FACE_PX:
        return None
    after = f" after the picture was reduced to {reduction:.0%}" if reduction < 1 else ""
    what = f"The face in the {where} is {height_px:.0f} pixels high{after}"
    fix = f"Use a closer picture{', or cut the person out' if reduction < 1 else ''}: the face"
    fix = f"{fix} should be {CLEAR_FACE_PX} pixels high or more."
    if height_px >= MIN_FACE_PX:
        return f"{what}, so the result may look like somebody else. {fix}"
    raise FaceError(
        f"{what}; under {MIN_FACE_PX} it cannot be told whose it is.",
        fix=fix,
        reason="face_too_small",
    )


def reference_latents(
    reference: Reference,
    codec: LatentCodec,
    noise_aug_strength: float,
    generator: torch.Generator,
) -> Float[Tensor, "1 channels h w"]:
    """Encode the reference picture, with a little noise where the model was trained so.

    Args:
        reference: The prepared picture.
        codec: Makes latents.
        noise_aug_strength: Standard deviation of the noise, in frames of [-1, 1].
        generator: Source of the noise, on the CPU.
    """
    frames = add_noise(to_frames(reference.picture_uint8[None]), noise_aug_strength, generator)
    with torch.no_grad():
        return codec.encode(frames.to(device_of(codec)))


def _face_place(person: PersonPose) -> Float32[np.ndarray, " 2"]:
    """Return the mean of the seen face keypoints, NaN where there are none."""
    points = list(FACE_POINTS)
    seen = person.keypoint_confidence[points] >= VISIBLE_CONFIDENCE
    if not seen.any():
        return np.full(2, np.nan, np.float32)
    return person.keypoints[points][seen].mean(axis=0)
