"""Who the generated people are: a face, a body and an outfit, each drawn from its own seed.

The face and the hair are the identity; the outfit can be drawn from a second seed, so that one
person appears in several outfits. Lengths of the face are in half head heights, lengths of the body
in body heights, angles in radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from animaray.datasets.world.drawing import Colour, mix

HAIR_STYLES = (
    "bald", "short", "side_part", "quiff", "buzz", "bob", "long", "bun", "curly", "afro",
    "ponytail", "fringe",
)  # fmt: skip
BEARD_STYLES = ("none", "stubble", "full", "goatee", "moustache")
TOP_PATTERNS = ("plain", "stripes", "dots", "block", "logo")
LEG_WEAR = ("trousers", "shorts", "skirt")

_SKIN: tuple[Colour, ...] = (
    (255, 224, 196), (247, 205, 170), (238, 188, 150), (224, 168, 126), (200, 138, 96),
    (168, 110, 74), (132, 84, 58), (98, 62, 46), (250, 212, 186), (216, 158, 112),
)  # fmt: skip
_HAIR: tuple[Colour, ...] = (
    (38, 32, 38), (70, 44, 34), (110, 68, 42), (160, 104, 56), (222, 176, 98), (240, 214, 150),
    (176, 74, 40), (206, 92, 48), (150, 148, 156), (226, 224, 226), (52, 40, 60), (124, 40, 48),
)  # fmt: skip
_EYES: tuple[Colour, ...] = (
    (74, 48, 32), (112, 76, 44), (60, 110, 160), (84, 142, 108), (110, 128, 142), (44, 38, 40),
)  # fmt: skip
_CLOTHES: tuple[Colour, ...] = (
    (226, 88, 74), (244, 160, 74), (246, 206, 92), (96, 168, 120), (58, 130, 134), (76, 132, 196),
    (64, 82, 150), (140, 98, 176), (214, 110, 150), (240, 236, 226), (72, 76, 92), (168, 200, 212),
    (188, 208, 150), (122, 66, 74), (40, 56, 84), (232, 190, 170),
)  # fmt: skip
_LEGS: tuple[Colour, ...] = (
    (52, 66, 104), (72, 92, 132), (60, 62, 72), (148, 126, 98), (196, 178, 144), (88, 78, 70),
    (112, 122, 96), (40, 44, 58), (150, 80, 76), (92, 74, 116),
)  # fmt: skip
_SHOES: tuple[Colour, ...] = (
    (240, 240, 238), (48, 46, 54), (130, 82, 54), (206, 72, 66), (70, 108, 160), (232, 188, 90),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Face:
    """What tells one person from another, above the neck."""

    skin: Colour
    """RGB."""
    half_width: float
    """Half face width, half head heights."""
    jaw_power: float
    """Shape of the jaw: 1.5 is pointed, 3 is square."""
    eye_spacing: float
    """Distance of an eye from the middle, shares of the half width."""
    eye_height: float
    """Height of the eyes over the middle of the head, half head heights."""
    eye_half_width: float
    """Half head heights."""
    eye_roundness: float
    """Half height over half width of an eye."""
    eye_tilt_rad: float
    """Positive: the outer corner is higher."""
    eye_colour: Colour
    """RGB of the iris."""
    lashes: float
    """Thickness of the upper lid line, shares of the eye's half width."""
    brow_thickness: float
    """Half head heights."""
    brow_tilt_rad: float
    """Positive: the outer end is higher."""
    brow_gap: float
    """Distance over the eye, half head heights."""
    nose_length: float
    """From the eyes to the tip, half head heights."""
    nose_half_width: float
    """Half head heights."""
    nose_depth: float
    """How far the tip stands out, half head heights."""
    mouth_half_width: float
    """Half head heights."""
    mouth_fullness: float
    """Half height of the lips, half head heights."""
    mouth_height: float
    """Height of the mouth over the middle of the head (negative), half head heights."""
    lip_colour: Colour
    """RGB."""
    smile: float
    """How far the corners of the mouth rise, half head heights."""
    ear_half_height: float
    """Half head heights."""
    cheek_blush: float
    """Share of red on the cheeks, 0 for none."""
    freckles: int
    """Number of freckles, 0 for none."""
    mole: tuple[float, float] | None
    """Place of a mole on the face plane, None for none."""
    beard: str
    """One of BEARD_STYLES."""
    glasses: str
    """none, round or square."""
    glasses_colour: Colour
    """RGB of the frame."""
    earrings: bool
    """Whether small earrings are worn."""
    hair_style: str
    """One of HAIR_STYLES."""
    hair_colour: Colour
    """RGB."""
    hair_volume: float
    """How far the hair stands off the skull, half head heights."""
    hair_mirrored: bool
    """Whether the parting is on the other side."""
    texture_seed: int
    """Seed of small irregular marks: freckles and curls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Proportions below the neck; all lengths but the height in body heights."""

    height_m: float
    """Body height, metres."""
    head_height: float
    """Chin to crown."""
    shoulder_half_width: float
    """Middle of the neck to a shoulder joint."""
    hip_half_width: float
    """Middle of the pelvis to a hip joint."""
    torso_length: float
    """Hip joints to shoulder joints."""
    waist: float
    """Waist width over the mean of chest and hip width."""
    upper_arm: float
    """Shoulder to elbow."""
    forearm: float
    """Elbow to wrist."""
    thigh: float
    """Hip to knee."""
    shin: float
    """Knee to ankle."""
    limb_thickness: float
    """1 is average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outfit:
    """Clothes; drawn from the outfit seed."""

    top_pattern: str
    """One of TOP_PATTERNS."""
    top_colour: Colour
    """RGB of the cloth."""
    accent_colour: Colour
    """RGB of the pattern."""
    long_sleeves: bool
    """Whether the sleeves reach the wrists."""
    neckline: str
    """round, v or collar."""
    leg_wear: str
    """One of LEG_WEAR."""
    leg_colour: Colour
    """RGB."""
    shoe_colour: Colour
    """RGB."""
    belt: bool
    """Whether a belt is worn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """One generated person."""

    seed: int
    """Seed of the identity: equal seeds are the same person in any outfit."""
    outfit_seed: int
    """Seed of the clothes."""
    face: Face
    """Face and hair."""
    body: Body
    """Proportions."""
    outfit: Outfit
    """Clothes."""


def sample_person(seed: int, outfit_seed: int | None = None) -> Person:
    """Draw a person.

    Args:
        seed: Seed of face, hair and body.
        outfit_seed: Seed of the clothes; None takes the person's seed.

    Returns:
        The person, the same for the same seeds.
    """
    clothes_seed = seed if outfit_seed is None else outfit_seed
    rng = np.random.default_rng([11, seed])
    feminine = bool(rng.random() < 0.5)
    return Person(
        seed=seed,
        outfit_seed=clothes_seed,
        face=_sample_face(rng, feminine=feminine),
        body=_sample_body(rng, feminine=feminine),
        outfit=_sample_outfit(np.random.default_rng([12, clothes_seed]), feminine=feminine),
    )


def _pick(rng: np.random.Generator, choices: tuple[Colour, ...]) -> Colour:
    base = choices[int(rng.integers(len(choices)))]
    r, g, b = (int(np.clip(channel + rng.integers(-8, 9), 0, 255)) for channel in base)
    return (r, g, b)


def _choose(rng: np.random.Generator, weights: dict[str, float | int]) -> str:
    chances = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(weights), p=chances / chances.sum()))]


def _hair_style(rng: np.random.Generator, *, feminine: bool) -> str:
    if feminine:
        weights = {
            "bob": 3, "long": 3, "bun": 2.5, "ponytail": 2.5, "curly": 1.5, "fringe": 2,
            "afro": 1, "short": 0.6, "side_part": 0.5,
        }  # fmt: skip
    else:
        weights = {
            "short": 2, "side_part": 2.5, "quiff": 2.5, "buzz": 1.6, "bald": 1.6, "curly": 1.6,
            "afro": 1, "long": 0.6, "bun": 0.5,
        }  # fmt: skip
    return _choose(rng, weights)


def _sample_face(rng: np.random.Generator, *, feminine: bool) -> Face:
    skin = _pick(rng, _SKIN)
    hair = _pick(rng, _HAIR)
    beards = {"none": 5.0, "stubble": 1.2, "full": 2.0, "goatee": 1.2, "moustache": 1.0}
    lip_tint = (196, 52, 72) if feminine and rng.random() < 0.6 else (176, 84, 78)
    mole = (float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.5, -0.2)))
    return Face(
        skin=skin,
        half_width=float(rng.uniform(0.70, 0.90)),
        jaw_power=float(rng.uniform(1.55, 2.1) if feminine else rng.uniform(1.7, 2.8)),
        eye_spacing=float(rng.uniform(0.40, 0.52)),
        eye_height=float(rng.uniform(0.0, 0.12)),
        eye_half_width=float(rng.uniform(0.13, 0.19)),
        eye_roundness=float(rng.uniform(0.55, 1.0)),
        eye_tilt_rad=float(rng.uniform(-0.16, 0.22)),
        eye_colour=_pick(rng, _EYES),
        lashes=float(rng.uniform(0.25, 0.42) if feminine else rng.uniform(0.12, 0.24)),
        brow_thickness=float(rng.uniform(0.025, 0.06) if feminine else rng.uniform(0.04, 0.10)),
        brow_tilt_rad=float(rng.uniform(-0.25, 0.25)),
        brow_gap=float(rng.uniform(0.16, 0.26)),
        nose_length=float(rng.uniform(0.30, 0.46)),
        nose_half_width=float(rng.uniform(0.07, 0.15)),
        nose_depth=float(rng.uniform(0.10, 0.24)),
        mouth_half_width=float(rng.uniform(0.18, 0.34)),
        mouth_fullness=float(rng.uniform(0.05, 0.11) if feminine else rng.uniform(0.03, 0.075)),
        mouth_height=float(rng.uniform(-0.58, -0.50)),
        lip_colour=mix(skin, lip_tint, 0.62),
        smile=float(rng.uniform(0.0, 0.09)),
        ear_half_height=float(rng.uniform(0.15, 0.24)),
        cheek_blush=float(rng.uniform(0.0, 0.22)),
        freckles=int(rng.integers(10, 22)) if rng.random() < 0.2 else 0,
        mole=mole if rng.random() < 0.2 else None,
        beard="none" if feminine else _choose(rng, beards),
        glasses=_choose(rng, {"none": 0.66, "round": 0.18, "square": 0.16}),
        glasses_colour=_pick(rng, ((40, 38, 46), (150, 60, 52), (190, 150, 80), (60, 84, 130))),
        earrings=bool(feminine and rng.random() < 0.4),
        hair_style=_hair_style(rng, feminine=feminine),
        hair_colour=hair,
        hair_volume=float(rng.uniform(0.06, 0.18)),
        hair_mirrored=bool(rng.random() < 0.5),
        texture_seed=int(rng.integers(1 << 31)),
    )


def _sample_body(rng: np.random.Generator, *, feminine: bool) -> Body:
    thickness = float(rng.uniform(0.85, 1.25))
    shoulder = rng.uniform(0.092, 0.105) if feminine else rng.uniform(0.104, 0.124)
    return Body(
        height_m=float(rng.uniform(1.52, 1.76) if feminine else rng.uniform(1.64, 1.94)),
        head_height=float(rng.uniform(0.200, 0.218)),
        shoulder_half_width=float(shoulder * (0.75 + 0.25 * thickness)),
        hip_half_width=float(rng.uniform(0.056, 0.066)),
        torso_length=float(rng.uniform(0.275, 0.300)),
        waist=float(rng.uniform(0.74, 0.88) if feminine else rng.uniform(0.86, 1.02)),
        upper_arm=float(rng.uniform(0.150, 0.165)),
        forearm=float(rng.uniform(0.135, 0.150)),
        thigh=float(rng.uniform(0.212, 0.230)),
        shin=float(rng.uniform(0.205, 0.222)),
        limb_thickness=thickness,
    )


def _sample_outfit(rng: np.random.Generator, *, feminine: bool) -> Outfit:
    top = _pick(rng, _CLOTHES)
    accent = _pick(rng, _CLOTHES)
    while sum(abs(a - b) for a, b in zip(top, accent, strict=True)) < 150:
        accent = _pick(rng, _CLOTHES)
    legs = {"trousers": 5.0, "shorts": 2.0, "skirt": 3.0 if feminine else 0.0}
    leg_colour = _pick(rng, _LEGS)
    while sum(abs(a - b) for a, b in zip(top, leg_colour, strict=True)) < 90:
        leg_colour = _pick(rng, _LEGS)
    return Outfit(
        top_pattern=_choose(
            rng, {"plain": 2.0, "stripes": 2.0, "dots": 1.3, "block": 1.6, "logo": 1.6}
        ),
        top_colour=top,
        accent_colour=accent,
        long_sleeves=bool(rng.random() < 0.5),
        neckline=_choose(rng, {"round": 2.0, "v": 1.0, "collar": 1.0}),
        leg_wear=_choose(rng, legs),
        leg_colour=leg_colour,
        shoe_colour=_pick(rng, _SHOES),
        belt=bool(rng.random() < 0.3),
    )
