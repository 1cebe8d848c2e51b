"""Which of the two engines animates a picture, and what may be chosen for the one without weights.

Loads nothing heavy: command lines and services look here before anything else.
"""

from typing import Literal

from animaray.platform.errors import ConfigError, UsageError

EngineName = Literal["parts", "diffusion"]
ENGINES: tuple[EngineName, ...] = ("parts", "diffusion")
MADE_BY: dict[EngineName, str] = {
    "parts": "moved by parts, no generative network",
    "diffusion": "made by a diffusion model",
}
"""For pages and messages."""
PHOTO_PROFILE = "permissive"
"""The profile whose networks the engine `parts` uses."""


def choose_engine(wanted: str, *, has_weights: bool, profile: str = PHOTO_PROFILE) -> EngineName:
    """Return the engine that works.

    Args:
        wanted: `auto` or an engine's name.
        has_weights: Whether a weights folder of an animator is given.
        profile: Perception profile.

    Raises:
        ConfigError: The engine is unknown, or profile and engine do not go together.
        UsageError: Weights are given to the engine that has none.
    """
    if wanted == "auto":
        return "parts" if not has_weights and profile == PHOTO_PROFILE else "diffusion"
    if wanted == "diffusion":
        return "diffusion"
    if wanted != "parts":
        raise ConfigError(f"Unknown engine `{wanted}`; known are auto, {', '.join(ENGINES)}.")
    if has_weights:
        raise UsageError(
            "The engine `parts` has no animator; weights belong to `diffusion`.",
            fix="Leave out the weights, or use --engine diffusion.",
        )
    if profile != PHOTO_PROFILE:
        raise ConfigError(
            f"The engine `parts` works with the profile {PHOTO_PROFILE}, got `{profile}`.",
            fix=f"Use --profile {PHOTO_PROFILE}, or --engine diffusion.",
        )
    return "parts"
