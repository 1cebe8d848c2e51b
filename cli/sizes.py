"""Read a picture size as users write it."""

from animaray.platform.errors import UsageError


def read_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Return width and height of a text like 576x1024.

    Args:
        text: What the user typed.
        option: Its option, for the error message.

    Raises:
        UsageError: It has another form, or a side of 0.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) > 0):
        raise UsageError(
            f"{option} takes WIDTHxHEIGHT in pixels, as in 576x1024, got `{text[:32]}`."
        )
    return int(width), int(height)
