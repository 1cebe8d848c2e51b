"""Map pictures of high dynamic range (PQ, HLG) to the standard range that networks know.

Code values become display light, whose highlights are rolled off above diffuse white, then sRGB.
Diffuse white (203 cd/m2) becomes the brightest level, as players show such a file on a screen of
standard range.

References:
    ITU-R BT.2100-2, tables 4 and 5 (PQ and HLG); BT.2390-11, section 5.4.1 (roll-off);
    BT.2408-7 (203 cd/m2 for diffuse white); BT.2087-0 (BT.2020 to BT.709).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

_WHITE_NITS = 203.0
_PEAK_NITS = 1000.0
"""What phones and most films are mastered for; few files tell it rightly."""
_LEVELS = 1 << 16
_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
_HLG_GAMMA = 1.2
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToneMap:
    """How code values of one transfer function become light."""

    to_light: Callable[[Float64[np.ndarray, " levels"]], Float64[np.ndarray, " levels"]]
    """From code values of 0 to 1 to linear light: of the display for PQ (cd/m2), of the scene for
    HLG (0 to 1)."""
    is_scene_light: bool
    """Whether the display's own gamma is still to come, which is HLG's way."""


def pq_light(code: Float64[np.ndarray, " levels"]) -> Float64[np.ndarray, " levels"]:
    """Return the display light of PQ code values (0 to 1), cd/m2."""
    power = np.asarray(code) ** (1 / _PQ_M2)
    base = np.maximum(power - _PQ_C1, 0.0) / (_PQ_C2 - _PQ_C3 * power)
    return np.asarray(10_000.0 * base ** (1 / _PQ_M1))


def pq_code(nits: Float64[np.ndarray, " levels"]) -> Float64[np.ndarray, " levels"]:
    """Return the PQ code values (0 to 1) of display light, cd/m2."""
    power = (np.asarray(nits) / 10_000.0) ** _PQ_M1
    return np.asarray(((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)) ** _PQ_M2)


def hlg_light(code: Float64[np.ndarray, " levels"]) -> Float64[np.ndarray, " levels"]:
    """Return the scene light of HLG code values, both 0 to 1."""
    code = np.asarray(code)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - _HLG_C) / _HLG_A) + _HLG_B) / 12)


TONE_MAPS = {
    16: ToneMap(to_light=pq_light, is_scene_light=False),
    18: ToneMap(to_light=hlg_light, is_scene_light=True),
}
"""PQ and HLG by the number of the transfer function (ITU-T H.273, table 3)."""


def map_tones(
    code: UInt16[np.ndarray, "height width 3"], tone_map: ToneMap, *, is_bt2020: bool = True
) -> UInt8[np.ndarray, "height width 3"]:
    """Return sRGB of standard range.

    Args:
        code: RGB code values of full range, 0 to 65535.
        is_bt2020: Whether their primaries are BT.2020, else BT.709.
    """
    light = _light_table(tone_map)[code]
    if tone_map.is_scene_light:
        # The display's own gamma follows the luminance of all three together.
        luminance = light @ _BT2020_LUMA
        light *= _PEAK_NITS * np.maximum(luminance, 1e-6)[..., None] ** (_HLG_GAMMA - 1)
    brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    light *= _roll_off(brightest)[..., None]
    if is_bt2020:
        light = light @ _BT2020_TO_BT709.T
    index = np.clip(light * (_LEVELS - 1) + 0.5, 0, _LEVELS - 1).astype(np.uint16)
    return _srgb_table()[index]


@cache
def _light_table(tone_map: ToneMap) -> Float32[np.ndarray, " levels"]:
    return tone_map.to_light(np.linspace(0.0, 1.0, _LEVELS)).astype(np.float32)


def _roll_off(nits: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    """Return by what to multiply light of some brightness, so that 1 is the brightest level."""
    place = np.minimum(nits, _PEAK_NITS) * ((_LEVELS - 1) / _PEAK_NITS)
    factors: Float32[np.ndarray, "height width"] = _factor_table()[place.astype(np.uint16)]
    return np.where(nits > _PEAK_NITS, 1.0 / np.maximum(nits, 1.0), factors)


@cache
def _factor_table() -> Float32[np.ndarray, " levels"]:
    """Return the factors for brightnesses from 0 to the peak: BT.2390 with a soft knee."""
    nits = np.linspace(0.0, _PEAK_NITS, _LEVELS)
    peak = float(pq_code(np.array([_PEAK_NITS]))[0])
    code = pq_code(nits) / peak
    most = float(pq_code(np.array([_WHITE_NITS]))[0]) / peak
    knee = 1.5 * most - 0.5
    t = (code - knee) / (1 - knee)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    mapped = pq_light(np.where(code < knee, code, bent) * peak)
    factors = np.full(_LEVELS, 1.0 / _WHITE_NITS)
    factors[1:] = mapped[1:] / nits[1:] / _WHITE_NITS
    return factors.astype(np.float32)


@cache
def _srgb_table() -> UInt8[np.ndarray, " levels"]:
    light = np.linspace(0.0, 1.0, _LEVELS)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(code * 255).astype(np.uint8)
