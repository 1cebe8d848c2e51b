"""Read what a source declares, in a bounded child process.

Reads: path. Adds: codec, width, height, fps, duration_s, start_s, rotation_deg, pixel_aspect,
has_audio. Drops: nothing. A source that is no usable video ends as unreadable with its reason.
"""

from typing import Any

from animaray.platform.errors import MediaError
from animaray.platform.media.video import DecodeLimits, probe_in_child

READS = ("path",)
ADDS = (
    "codec", "width", "height", "fps", "duration_s", "start_s", "rotation_deg", "pixel_aspect",
    "has_audio",
)  # fmt: skip
DROPS: tuple[str, ...] = ()


def probe(row: dict[str, Any], limits: DecodeLimits) -> dict[str, Any]:
    """Probe one source; size is that of the upright picture, pixels."""
    facts: dict[str, Any] = dict.fromkeys(ADDS)
    try:
        info = probe_in_child(row["path"], limits)
    except MediaError as error:
        state = {"state": "unreadable", "reason": error.reason, "detail": error.message}
        return {**row, **facts, **state}
    return {**row, **{name: getattr(info, name) for name in ADDS}}
