"""How a decoded picture is shown: its displayed size, turn and mirror, and its colours as RGB.

The one place that decides the size people see. Pixel aspect, turn and shrinking are applied in a
single conversion, so that no picture is resampled twice.

References:
    ISO/IEC 14496-12 (the matrix of the track header), ITU-T H.273 (colour description).
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from animaray.platform.media.high_dynamic_range import TONE_MAPS, map_tones
from animaray.platform.media.video_colour import is_as_we_store, shrink_planes, to_rgb

_WIDE_PRIMARIES = frozenset({2, 9})
"""BT.2020, or untold: what is of high dynamic range is of wide gamut, too."""
_SQUARE_SLACK = 0.005
"""A ratio this near to 1 comes from a width that had to be whole: 854 for 853.3."""
_MAX_PIXEL_ASPECT = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Orientation:
    """One of the eight ways in which a stored picture lies: mirrored, then turned clockwise."""

    mirrored: bool = False
    """Whether left and right are swapped before the turn."""
    rotation_deg: int = 0
    """Clockwise turn: 0, 90, 180 or 270."""

    @property
    def swaps_sides(self) -> bool:
        """True when the stored width becomes the displayed height."""
        return self.rotation_deg % 180 == 90

    def apply(
        self, picture: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
        """Return the picture as it is to be seen."""
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, k=-self.rotation_deg // 90))


UPRIGHT = Orientation()


@dataclass(frozen=True, kw_only=True, slots=True)
class Presentation:
    """How one stored picture is shown; frames that share it belong to one picture format."""

    stored_width: int
    stored_height: int
    pixel_aspect: Fraction
    """Width of a stored pixel divided by its height."""
    orientation: Orientation

    @property
    def size(self) -> tuple[int, int]:
        """Displayed width and height, pixels: lines stay, their length follows the pixels' aspect.

        The sides of a turned picture are swapped.
        """
        width = self.stored_width
        if abs(float(self.pixel_aspect) - 1.0) > _SQUARE_SLACK:
            width = max(1, round(width * self.pixel_aspect))
        sides = width, self.stored_height
        return (sides[1], sides[0]) if self.orientation.swaps_sides else sides


def presentation_of(
    frame: Any,  # noqa: ANN401 - av.VideoFrame
    pixel_aspect: Fraction | None,
    orientation: Orientation,
) -> Presentation:
    """Return how a decoded frame is to be shown.

    Args:
        pixel_aspect: What container or codec say; None or nonsense counts as square.
    """
    aspect = pixel_aspect or Fraction(1)
    if not Fraction(1, _MAX_PIXEL_ASPECT) <= aspect <= _MAX_PIXEL_ASPECT:
        aspect = Fraction(1)
    return Presentation(
        stored_width=frame.width,
        stored_height=frame.height,
        pixel_aspect=aspect,
        orientation=orientation,
    )


def orientation_of(frame: Any) -> Orientation:  # noqa: ANN401 - av.VideoFrame
    """Return how a decoded frame lies, from its display matrix.

    Not for every frame: PyAV's side data and frame refer to each other, and the frame's memory
    would wait for Python's collector of such circles.
    """
    try:
        data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    except ValueError:
        # Side data that PyAV does not know hides the rest; the angle it still tells.
        return Orientation(rotation_deg=round(-frame.rotation / 90) * 90 % 360)
    if data is None:
        return UPRIGHT
    matrix = struct.unpack_from("=9i", bytes(data))
    return orientation_of_matrix(matrix[0], matrix[1], matrix[3], matrix[4])


def orientation_of_matrix(a: int, b: int, c: int, d: int) -> Orientation:
    """Return the nearest of the eight orientations of a matrix.

    A stored point (x, y), y downwards, is shown at (a x + c y, b x + d y).
    """
    mirrored = a * d - b * c < 0
    if mirrored:  # the turn is what is left once the picture is mirrored
        a, b = -a, -b
    if abs(a + d) >= abs(b - c):
        return Orientation(mirrored=mirrored, rotation_deg=0 if a + d >= 0 else 180)
    return Orientation(mirrored=mirrored, rotation_deg=90 if b - c > 0 else 270)


def fitted_size(width: int, height: int, short_side_px: int | None) -> tuple[int, int]:
    """Return a size shrunk to a short side, never enlarged."""
    short = min(width, height)
    if short_side_px is None or short <= short_side_px:
        return width, height
    scale = short_side_px / short
    return max(1, round(width * scale)), max(1, round(height * scale))


class RgbConverter:
    """Convert decoded frames to RGB as displayed, all at the size of the first one.

    Where the picture changes its format in mid stream, the later ones are fitted in with black
    bars, as players do: nobody is stretched.
    """

    def __init__(self, short_side_px: int | None, untagged: int | None = None) -> None:
        """Convert to some size.

        Args:
            short_side_px: Of what is returned; None keeps the size.
            untagged: Matrix of a video without colour tags; see `to_rgb`.
        """
        self._short_side_px = short_side_px
        self._untagged = untagged
        # One for each format: a new one each would plan the conversion anew for every frame.
        self._reformatters: dict[tuple[Presentation, int], VideoReformatter] = {}
        self._plane_reformatter = VideoReformatter()
        self.size: tuple[int, int] | None = None
        """Width and height of what is returned; None before the first."""

    def size_for(self, shown: Presentation) -> tuple[int, int]:
        """Return the width and height of the pictures returned, were this the next one."""
        return self.size or fitted_size(*shown.size, self._short_side_px)

    def convert(
        self,
        frame: Any,  # noqa: ANN401 - av.VideoFrame
        shown: Presentation,
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Return a frame as displayed."""
        self.size = self.size_for(shown)
        width, height = _inside(shown.size, self.size)
        picture = shown.orientation.apply(
            self._to_rgb(frame, shown, (height, width) if shown.orientation.swaps_sides
                         else (width, height))
        )  # fmt: skip
        if (width, height) == self.size:
            return picture
        canvas = np.zeros((self.size[1], self.size[0], 3), dtype=np.uint8)
        top, left = (self.size[1] - height) // 2, (self.size[0] - width) // 2
        canvas[top : top + height, left : left + width] = picture
        return canvas

    def planes(
        self,
        frame: Any,  # noqa: ANN401 - av.VideoFrame
        shown: Presentation,
    ) -> UInt8[np.ndarray, "rows width"] | None:
        """Return luma and chroma of a frame that is stored as we store it; None of another.

        Rows hold the luma plane, then both chroma planes, as PyAV lays them out.
        """
        width, height = size = self.size_for(shown)
        stored = frame.width, frame.height
        is_plain = (
            shown.orientation == UPRIGHT and shown.size == stored
            and _inside(shown.size, size) == size and width % 2 == height % 2 == 0
            and stored[0] % 2 == stored[1] % 2 == 0 and TONE_MAPS.get(frame.color_trc) is None
        )  # fmt: skip
        if not is_plain or not is_as_we_store(frame, self._untagged):
            return None
        self.size = size
        if size != stored:
            frame = shrink_planes(self._plane_reformatter, frame, size)
        planes: UInt8[np.ndarray, "rows width"] = frame.to_ndarray()
        return planes

    def _to_rgb(
        self,
        frame: Any,  # noqa: ANN401 - av.VideoFrame
        shown: Presentation,
        size: tuple[int, int],
    ) -> UInt8[np.ndarray, "height width 3"]:
        tone_map = TONE_MAPS.get(frame.color_trc)
        reformatter = self._reformatters.setdefault((shown, frame.color_trc), VideoReformatter())
        rgb = to_rgb(reformatter, frame, size, untagged=self._untagged, bits=16 if tone_map else 8)
        if tone_map is None:
            return rgb
        return map_tones(rgb, tone_map, is_bt2020=frame.color_primaries in _WIDE_PRIMARIES)


def _inside(shown: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the shown picture's proportions that fits into some room."""
    scale = min(room[0] / shown[0], room[1] / shown[1])
    fitted = round(shown[0] * scale), round(shown[1] * scale)
    return max(1, min(fitted[0], room[0])), max(1, min(fitted[1], room[1]))
