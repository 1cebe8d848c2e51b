"""Spell quantities for people."""


def spell_hours(hours: float) -> str:
    """Return a length of video in the unit that suits it."""
    seconds = 3600 * hours
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{hours:.2f} h"
