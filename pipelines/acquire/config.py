"""Settings of acquisition, and how the fetching of one input can end."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from animaray.platform.errors import ConfigError

# No sound is wanted, so no merging and no ffmpeg; H.264 decodes everywhere.
_FORMAT = "bv*[protocol^=http]/b[protocol^=http]/bv*[protocol=m3u8_native]/b[protocol=m3u8_native]"


@dataclass(frozen=True, kw_only=True, slots=True)
class AcquireConfig:
    """How videos are fetched and imported."""

    max_file_bytes: int = 4 * 1024**3
    """Largest file that is fetched or taken out of an archive, bytes."""
    connect_timeout_s: float = 20.0
    """Longest wait for a connection, seconds."""
    read_timeout_s: float = 30.0
    """Longest silence of a server, seconds."""
    item_timeout_s: float = 1800.0
    """Longest time for one input, seconds; what fetches it is killed then."""
    max_attempts: int = 4
    """Tries of one input in one run, for failures that pass."""
    backoff_s: float = 2.0
    """First wait between two tries, seconds; it doubles, with jitter."""
    max_wait_s: float = 120.0
    """Longest wait that a server may ask for within a run, seconds; more ends its turn."""
    max_consecutive_blocks: int = 5
    """After so many blocked inputs in a row a platform is left alone for the rest of the run."""
    num_parallel: int = 4
    """Inputs fetched at a time."""
    platform_rate_per_hour: float = 240.0
    """Inputs an hour from one video site; a guest is stopped at about 300 (yt-dlp wiki)."""
    host_rate_per_hour: float = 7200.0
    """Files an hour from one other host."""
    burst: int = 5
    """Inputs that may come at once after a rest."""
    allow_private_hosts: bool = False
    """Whether private, loopback and link-local addresses may be asked."""
    allow_generic_pages: bool = False
    """Whether yt-dlp may search any web page for a video (its generic extractor)."""
    cookies_file: str = ""
    """Netscape cookie file for yt-dlp; empty for none."""
    cookies_from_browser: str = ""
    """Browser whose cookies yt-dlp uses, as in firefox; empty for none."""
    format: str = _FORMAT
    """Formats for yt-dlp, best first."""
    max_height_px: int = 1080
    """Largest short side asked for, pixels."""
    max_playlist_items: int = 5000
    """Most entries taken from one playlist."""
    max_archive_members: int = 1_000_000
    """Most members read of one tar file, and rows of one Parquet file."""
    retry_unavailable: bool = False
    """Whether inputs that were gone are asked for again."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A number is not positive, or the cookie file is absent.
        """
        for name in (
            "max_file_bytes", "item_timeout_s", "max_attempts", "max_consecutive_blocks",
            "num_parallel", "platform_rate_per_hour", "host_rate_per_hour", "burst",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected {name} > 0, got {getattr(self, name)}.")
        if self.cookies_file and not Path(self.cookies_file).is_file():
            raise ConfigError(f"Expected a cookie file at {self.cookies_file}; there is none.")


PASSING = frozenset({"timeout", "cut", "connection", "server_error", "wrong_length"})
"""Reasons of `failed` that another try in the same run may cure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchOutcome:
    """How fetching one input ended."""

    state: str
    """fetched, blocked (later), unavailable (never), failed (next run) or expanded (a playlist)."""
    reason: str | None = None
    """Closed-list code, None when fetched."""
    detail: str | None = None
    """What happened, one line."""
    path: Path | None = None
    """Temporary file with all bytes, when fetched."""
    retry_after_s: float | None = None
    """How long the server asks to wait, seconds."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns for the sources table."""
    entries: tuple[str, ...] = ()
    """Addresses of a playlist's videos."""
