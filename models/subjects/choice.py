"""Whom to take where several people are seen: the choice as a user writes it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from animaray.platform.errors import PersonChoiceError

PROMINENT_SHARE = 0.5
"""People smaller than this share of the largest one are bystanders: numbers, `left`, `right` and
`all` do not count them, and nobody is asked about them. A point may still name them."""
ACCEPTED = "left, right, largest, all, a number from 1 (counted from the left) or a point x,y"

_POINT = re.compile(r"(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonChoice:
    """One choice of one person, or of all."""

    kind: Literal["left", "right", "largest", "all", "number", "point"]
    """How the person is named."""
    number: int | None = None
    """From 1, counted from the left."""
    point_px: tuple[float, float] | None = None
    """A pixel x, y of the picture, or of the video's first frame, that lies on the person."""

    @classmethod
    def parse(cls, text: str) -> "PersonChoice":
        """Read a choice.

        Args:
            text: left, right, largest, all, a number from 1, or a point such as 320,140.

        Raises:
            PersonChoiceError: It is none of these.
        """
        wanted = text.strip().lower()
        point = _POINT.fullmatch(wanted)
        if point is not None:
            return cls(kind="point", point_px=(float(point[1]), float(point[2])))
        if wanted.isdecimal() and int(wanted) >= 1:
            return cls(kind="number", number=int(wanted))
        if wanted == "left":
            return cls(kind="left")
        if wanted == "right":
            return cls(kind="right")
        if wanted == "largest":
            return cls(kind="largest")
        if wanted == "all":
            return cls(kind="all")
        raise PersonChoiceError(f"A person is named by {ACCEPTED}; got `{text[:64]}`.")

    def scaled(self, factor: float) -> "PersonChoice":
        """Return the choice for a picture of another size; only a point changes."""
        if self.point_px is None:
            return self
        x, y = self.point_px
        return PersonChoice(kind="point", point_px=(x * factor, y * factor))


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenPerson:
    """What a choice is made by."""

    left_px: float
    """Left edge of the box around the seen keypoints."""
    top_px: float
    """Its top edge."""
    right_px: float
    """Its right edge."""
    bottom_px: float
    """Its bottom edge."""
    size_px: float
    """Typical longer side of the box."""

    @property
    def centre_x(self) -> float:
        """Middle of the box."""
        return (self.left_px + self.right_px) / 2

    def distance_to(self, x: float, y: float) -> float:
        """Return how far a point lies outside the box, 0 inside."""
        across = max(self.left_px - x, 0.0, x - self.right_px)
        down = max(self.top_px - y, 0.0, y - self.bottom_px)
        return float((across**2 + down**2) ** 0.5)


def choose_people(
    people: Sequence[SeenPerson],
    choices: Sequence[PersonChoice],
    *,
    height_px: int,
    where: str,
    option: str | None,
) -> list[int]:
    """Return the places in `people` of those chosen, in the order of the choices.

    Without a choice it is the largest one; `all` goes from left to right.

    Args:
        people: Who is seen; at least one.
        choices: Whom to take.
        height_px: Height of the picture, to tell sizes.
        where: For messages, such as "the driving video".
        option: The option to name where a choice is missing; None takes the largest silently.

    Raises:
        PersonChoiceError: There is no such person, two choices name the same one, or a choice is
            needed and missing.
    """
    prominent = prominent_people(people)
    largest = max(range(len(people)), key=lambda index: people[index].size_px)
    if not choices:
        if option is not None and len(prominent) > 1:
            raise PersonChoiceError(
                f"{len(prominent)} people are visible in {where}; nobody was chosen for you: "
                f"{_describe(people, prominent, height_px)}.",
                fix=f"Add {option} left, right, largest, a number or a point x,y"
                " (`all` animates each of them).",
                reason="several_people",
            )
        return [largest]
    if choices[0].kind == "all":
        return prominent
    chosen = [_chosen(people, prominent, largest, choice, height_px, where) for choice in choices]
    if len(set(chosen)) < len(chosen):
        raise PersonChoiceError(
            f"Two choices name the same person in {where}: "
            f"{_describe(people, prominent, height_px)}.",
            reason="same_person",
        )
    return chosen


def prominent_people(people: Sequence[SeenPerson]) -> list[int]:
    """Return the places of all who are not mere bystanders, from left to right."""
    largest = max(person.size_px for person in people)
    places = [
        index for index, person in enumerate(people) if person.size_px >= PROMINENT_SHARE * largest
    ]
    return sorted(places, key=lambda index: people[index].centre_x)


def _chosen(
    people: Sequence[SeenPerson],
    prominent: Sequence[int],
    largest: int,
    choice: PersonChoice,
    height_px: int,
    where: str,
) -> int:
    if choice.point_px is not None:
        return _at_point(people, choice.point_px, where)
    if choice.number is not None:
        if choice.number > len(prominent):
            raise PersonChoiceError(
                f"There is no person {choice.number} in {where}: "
                f"{_describe(people, prominent, height_px)}.",
                reason="no_such_person",
            )
        return prominent[choice.number - 1]
    ends = {"left": prominent[0], "right": prominent[-1]}
    return ends.get(choice.kind, largest)


def _at_point(people: Sequence[SeenPerson], point: tuple[float, float], where: str) -> int:
    nearest = min(range(len(people)), key=lambda index: people[index].distance_to(*point))
    person = people[nearest]
    # A head reaches above the eyes, and hands beyond the wrists.
    if person.distance_to(*point) > 0.15 * person.size_px:
        raise PersonChoiceError(
            f"Nobody is at {point[0]:g},{point[1]:g} in {where}; the nearest person is at "
            f"{person.centre_x:.0f},{(person.top_px + person.bottom_px) / 2:.0f}.",
            reason="no_such_person",
        )
    return nearest


def _describe(people: Sequence[SeenPerson], prominent: Sequence[int], height_px: int) -> str:
    """Return the people who can be named, as in `1 (left, 61 % of the height)`."""
    names = []
    for number, index in enumerate(prominent, start=1):
        person = people[index]
        side = {1: "left, "}.get(number, "right, " if number == len(prominent) else "")
        side = side if len(prominent) > 1 else ""
        share = (person.bottom_px - person.top_px) / height_px
        names.append(f"{number} ({side}{share:.0%} of the height)")
    return ", ".join(names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairing:
    """Who of the driving video moves whom of the picture: the k-th choices belong together."""

    driving: tuple[PersonChoice, ...] = ()
    """People of the driving video; empty takes the largest."""
    reference: tuple[PersonChoice, ...] = ()
    """People of the reference picture; empty takes the largest."""

    @classmethod
    def parse(
        cls,
        persons: str | Sequence[str] | None = None,
        reference_persons: str | Sequence[str] | None = None,
    ) -> "Pairing":
        """Read no choice, one or several of both; `all` in one of them means all in both.

        Args:
            persons: People of the driving video.
            reference_persons: People of the reference picture.

        Raises:
            PersonChoiceError: A choice cannot be read, or the lists are not equally long.
        """
        driving = _parse("person", persons)
        reference = _parse("reference_person", reference_persons)
        kinds = {choice.kind for choice in (*driving, *reference)}
        if "all" in kinds:
            if kinds != {"all"}:
                raise PersonChoiceError(
                    "Option `reference_person`: `all` for the video and single people for the"
                    " picture do not go together.",
                    fix="Leave out the other choice.",
                )
            everybody = (PersonChoice(kind="all"),)
            return cls(driving=everybody, reference=everybody)
        if max(1, len(driving)) != max(1, len(reference)):
            raise PersonChoiceError(
                f"Option `reference_person`: {max(1, len(driving))} people of the driving video"
                f" would move {max(1, len(reference))} of the picture.",
                fix="Choose as many people in the one as in the other.",
            )
        return cls(driving=tuple(driving), reference=tuple(reference))

    @property
    def is_all(self) -> bool:
        """Tell whether everybody is animated, paired from left to right."""
        return any(choice.kind == "all" for choice in self.driving)


def _parse(option: str, texts: str | Sequence[str] | None) -> list[PersonChoice]:
    """Read the choices of an option; `all` stands alone.

    Raises:
        PersonChoiceError: One is not a choice, or `all` is joined by another.
    """
    texts = [texts] if isinstance(texts, str) else texts
    try:
        choices = [PersonChoice.parse(text) for text in texts or ()]
    except PersonChoiceError as error:
        raise PersonChoiceError(f"Option `{option}`: {error.message}") from error
    if len(choices) > 1 and any(choice.kind == "all" for choice in choices):
        raise PersonChoiceError(
            f"Option `{option}`: `all` already names everybody; leave out the other choices."
        )
    return choices
