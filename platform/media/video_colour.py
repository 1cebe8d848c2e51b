"""Between the RGB that everything computes with and the Y'CbCr that videos store.

What we write is converted by the BT.709 matrix, in limited range, and says so in the bitstream and
in the container; without tags a player guesses the matrix from the picture's height. The transfer
is tagged sRGB (IEC 61966-2-1), since our pictures are sRGB: a player that manages colour would
darken or lighten pixels that are tagged with BT.709's camera curve, and the others take both tags
alike (docs/decisions/0016-colour.md). A video that we read keeps its own curve: pixels of a
BT.709 video are taken for sRGB, as players show them.

References:
    ITU-T H.273 (code points of matrix, primaries, transfer and range).
"""

from typing import Any

from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from animaray.platform.errors import MediaError

BT601, BT709 = int(Colorspace.ITU601), int(Colorspace.ITU709)
OWN_UNTAGGED = BT601
"""Matrix of clips that we stored before we tagged them, whatever their height."""
_HD_HEIGHT_PX = 720
_MATRICES = {
    1: BT709,
    4: int(Colorspace.FCC),
    5: BT601,
    6: BT601,
    7: int(Colorspace.SMPTE240M),
    9: int(Colorspace.BT2020),
    10: int(Colorspace.BT2020),
}
_OTHER_MATRICES = {8: "YCgCo", 11: "Y'D'zD'x", 13: "constant-luminance", 14: "ICtCp"}


def to_rgb(
    reformatter: VideoReformatter,
    frame: Any,  # noqa: ANN401 - av.VideoFrame
    size_px: tuple[int, int] | None = None,
    *,
    untagged: int | None = None,
    bits: int = 8,
) -> Any:  # noqa: ANN401 - uint8 or uint16[height width 3]
    """Convert a decoded frame by the matrix and range that it is tagged with.

    Args:
        reformatter: Kept from frame to frame: a new one each would plan the conversion anew.
        size_px: Width and height wanted; None keeps the frame's.
        untagged: Matrix of a frame that has no tag, BT601 or BT709; None takes BT.709 from 720
            lines on, as players do.
        bits: 8 or 16 for each value.

    Returns:
        RGB code values, uint8 or uint16 [height width 3].

    Raises:
        MediaError: The matrix is none that can be converted (`reason` is not_a_video).
    """
    width, height = size_px or (frame.width, frame.height)
    return reformatter.reformat(
        frame,
        width=width,
        height=height,
        format={8: "rgb24", 16: "rgb48le"}[bits],
        src_colorspace=_matrix_of(frame, untagged),
        # AREA keeps fine texture from turning into noise when shrinking.
        interpolation=Interpolation.BILINEAR if size_px is None else Interpolation.AREA,
        threads=1,
    ).to_ndarray()


def is_as_we_store(frame: Any, untagged: int | None) -> bool:  # noqa: ANN401 - av.VideoFrame
    """Return whether a decoded frame holds its colours as `to_yuv` makes them.

    Args:
        untagged: Matrix of a frame that has no tag; see `to_rgb`.
    """
    is_limited = int(frame.color_range) in {int(ColorRange.UNSPECIFIED), int(ColorRange.MPEG)}
    is_subsampled = frame.format.name == "yuv420p"
    return is_subsampled and is_limited and _matrix_of(frame, untagged) == BT709


def shrink_planes(
    reformatter: VideoReformatter,
    frame: Any,  # noqa: ANN401 - av.VideoFrame
    size_px: tuple[int, int],
) -> Any:  # noqa: ANN401 - av.VideoFrame
    """Shrink a frame that is as we store it, without a way through RGB."""
    width, height = size_px
    return reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="yuv420p",
        src_colorspace=BT709,
        dst_colorspace=BT709,
        interpolation=Interpolation.AREA,
        threads=1,
    )


def to_yuv(
    reformatter: VideoReformatter,
    rgb: Any,  # noqa: ANN401 - av.VideoFrame
) -> Any:  # noqa: ANN401 - av.VideoFrame
    """Convert an RGB frame to 4:2:0 by the BT.709 matrix, limited range."""
    return reformatter.reformat(
        rgb,
        format="yuv420p",
        dst_colorspace=BT709,
        dst_color_range=ColorRange.MPEG,
        threads=1,
    )


def tag_frame(frame: Any) -> Any:  # noqa: ANN401 - av.VideoFrame
    """Tag a frame that holds its colours as `to_yuv` makes them; return it."""
    frame.colorspace = BT709
    frame.color_range = int(ColorRange.MPEG)
    return frame


def tag_stream(codec_context: Any) -> None:  # noqa: ANN401 - av.VideoCodecContext
    """Tag a stream to be encoded with what `to_yuv` makes; encoder and container both write it."""
    codec_context.colorspace = BT709
    codec_context.color_primaries = int(ColorPrimaries.BT709)
    codec_context.color_trc = int(ColorTrc.IEC61966_2_1)
    codec_context.color_range = int(ColorRange.MPEG)


def _matrix_of(frame: Any, untagged: int | None) -> int | None:  # noqa: ANN401 - av.VideoFrame
    """Return the matrix of a frame, None where it has no use for one.

    Raises:
        MediaError: It is none that can be converted.
    """
    if frame.format.is_rgb or frame.format.has_palette or len(frame.format.components) < 3:
        return None
    tag = int(frame.colorspace)
    if tag in _OTHER_MATRICES:
        raise MediaError(
            f"The video stores its colours as {_OTHER_MATRICES[tag]}, which is not read.",
            fix="Convert it to H.264 with the BT.709 matrix.",
            reason="not_a_video",
        )
    guess = BT709 if frame.height >= _HD_HEIGHT_PX else BT601
    return _MATRICES.get(tag, untagged or guess)
