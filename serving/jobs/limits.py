"""What one request may cost: caps that are checked before a GPU is taken, with typed refusals."""

from dataclasses import dataclass

from animaray.platform.errors import ConfigError, MediaError
from animaray.platform.media.file_kind import VIDEO_FORMATS, recognise


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingLimits:
    """Caps on uploads, work and queue; all inclusive."""

    max_picture_bytes: int = 20 * 2**20
    """Size of the reference picture's file."""
    max_video_bytes: int = 200 * 2**20
    """Size of the driving video's file."""
    max_picture_pixels: int = 40_000_000
    """Width times height of the reference picture."""
    max_video_pixels: int = 4096 * 2304
    """Width times height of one frame of the driving video."""
    max_video_frames: int = 600
    """Frames that are animated, after resampling to the model's frame rate."""
    max_video_s: float = 60.0
    """Length of the driving video, seconds."""
    max_inference_steps: int = 100
    """Denoising steps a client may ask for."""
    max_active_jobs_per_tenant: int = 8
    """Jobs a tenant may have waiting or running."""
    max_queued_jobs: int = 64
    """Jobs that may wait, all tenants together."""
    max_attempts: int = 3
    """How often a job is tried when its worker dies."""
    max_job_s: float = 3600.0
    """Seconds one attempt may run."""
    keep_results_s: float = 7 * 86400.0
    """Seconds a finished job and its result are kept."""
    max_upload_s: float = 300.0
    """Seconds a client may take to send its request."""
    decode_memory_bytes: int = 3 * 2**30
    """Memory of the child process that decodes an upload."""
    decode_s: float = 60.0
    """Seconds that child may take."""

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through.

        Raises:
            ConfigError: A limit is not positive.
        """
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ConfigError(f"Limit `{name}` must be positive, got {getattr(self, name)}.")

    @property
    def max_request_bytes(self) -> int:
        """Size of a whole upload: both files and a little for the form around them."""
        return self.max_picture_bytes + self.max_video_bytes + 2**20


def check_upload(kind: str, num_bytes: int, head: bytes, limits: ServingLimits) -> str:
    """Check an uploaded file's size and first bytes.

    Args:
        kind: "reference_image" or "driving_video", the name of the form field.
        num_bytes: Bytes received.
        head: The first HEAD_BYTES or more, or the whole file.

    Returns:
        The container's name, such as "PNG" or "MP4".

    Raises:
        MediaError: The file is empty, too large, or not of the wanted kind; reason is "empty",
            "too_large" or "not_a_picture" or "not_a_video".
    """
    from animaray.platform.media.picture import picture_formats, refuse_kind  # loads Pillow

    is_picture = kind == "reference_image"
    most = limits.max_picture_bytes if is_picture else limits.max_video_bytes
    if num_bytes == 0:
        raise MediaError(f"The upload `{kind}` is empty.", reason="empty")
    if num_bytes > most:
        raise MediaError(
            f"`{kind}` has {num_bytes:,} bytes; at most {most:,} are accepted.",
            fix="Send a smaller file.",
            reason="too_large",
        )
    found = recognise(head)
    accepted = picture_formats() if is_picture else VIDEO_FORMATS
    if found is not None and found.name in accepted:
        return found.name
    if is_picture:
        refuse_kind(found, f"The upload `{kind}`")
    what = "of an unknown kind" if found is None else found.described
    is_swapped = found is not None and found.family == "picture"
    raise MediaError(
        f"The upload `{kind}` is {what}, not a video of an accepted format"
        f" ({', '.join(accepted)}).",
        fix="Were picture and video swapped?" if is_swapped else "Convert it to MP4 (H.264).",
        reason="not_a_video",
    )


def check_driving_video(
    *, width_px: int, height_px: int, num_frames: int, duration_s: float, limits: ServingLimits
) -> None:
    """Check the declared or decoded size of a driving video.

    Args:
        width_px: Upright width.
        height_px: Upright height.
        num_frames: Frames after resampling to the model's frame rate.
        duration_s: Length in seconds.

    Raises:
        MediaError: A cap is exceeded (reason "too_large") or fewer than two frames are left
            (reason "too_short").
    """
    if width_px * height_px > limits.max_video_pixels:
        raise MediaError(
            f"The driving video has {width_px} x {height_px} pixels; at most"
            f" {limits.max_video_pixels:,} pixels a frame are accepted.",
            fix="Scale it down first.",
            reason="too_large",
        )
    if duration_s > limits.max_video_s or num_frames > limits.max_video_frames:
        raise MediaError(
            f"The driving video lasts {duration_s:.1f} s ({num_frames} frames); at most"
            f" {limits.max_video_s:.0f} s and {limits.max_video_frames} frames are accepted.",
            fix="Cut it first.",
            reason="too_large",
        )
    if num_frames < 2:
        raise MediaError(
            f"The driving video has {num_frames} frames at the model's frame rate; at least 2 are"
            " needed.",
            fix="Send a longer video.",
            reason="too_short",
        )
