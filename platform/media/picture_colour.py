"""Bring pictures to sRGB by the colour profile that they carry, and put them over white.

A picture without a profile is taken for sRGB, and so is one whose profile is damaged or belongs to
another kind of pixels, as browsers do.
"""

import io

from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_GREY_MODES = frozenset({"1", "L"})
_PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}
_OWN_MODES = frozenset({"CMYK", "LAB"})


def to_srgb(picture: Image.Image) -> Image.Image:
    """Return an 8-bit picture as RGB or RGBA in sRGB.

    Args:
        picture: Of any mode but 16-bit ones; `info` may hold the profile.
    """
    if picture.mode in _PREMULTIPLIED:
        picture = picture.convert(_PREMULTIPLIED[picture.mode])
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    converted = _converted(picture.convert("L") if picture.mode == "LA" else picture)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def over_white(picture: Image.Image) -> Image.Image:
    """Return a picture as RGB, with white behind what is transparent."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _converted(picture: Image.Image) -> Image.Image:
    profile, mode = _profile_of(picture)
    if profile is None and picture.mode == "LAB":
        profile, mode = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB"
    if profile is None or not _fits(picture.mode, mode):
        return picture.convert("RGB")
    colours = picture if picture.mode == mode else picture.convert(mode)
    converted = ImageCms.profileToProfile(colours, profile, _SRGB, outputMode="RGB")
    assert converted is not None  # noqa: S101 - only a conversion in place returns nothing
    return converted


def _profile_of(picture: Image.Image) -> tuple[ImageCms.ImageCmsProfile | None, str]:
    """Return the picture's profile and the mode of the pixels that it describes."""
    data = picture.info.get("icc_profile")
    if not data:
        return None, ""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = _PROFILE_MODES.get(profile.profile.xcolor_space.strip(), "")
        if mode:  # a profile may open and still describe no way to sRGB
            ImageCms.buildTransform(profile, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None, ""
    return profile, mode


def _fits(mode: str, profile_mode: str) -> bool:
    if mode in _OWN_MODES or profile_mode in _OWN_MODES:
        return mode == profile_mode
    return profile_mode == "RGB" or (profile_mode == "L" and mode in _GREY_MODES)
