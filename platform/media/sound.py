"""Carry a video's sound over to another one: packets are copied, never decoded."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from animaray.platform.media.video_file import DecodeLimits, open_video

MP4_SOUND = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "flac", "opus"})
"""Codecs that an mp4 holds and players know; other sound is left out."""
_CARRIER = "matroska"


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundReport:
    """Whether a result got the sound, and what its user should know if not."""

    is_kept: bool = False
    warning: str | None = None
    """None also where there was no sound to keep."""


def copy_sound(
    path: Path, limits: DecodeLimits, *, start_s: float, duration_s: float
) -> bytes | None:
    """Return the first sound stream of a file as a file of its own; run it in a bounded child.

    Args:
        limits: What it may cost.
        start_s: Time that becomes 0, seconds.
        duration_s: How much sound is wanted.

    Returns:
        None where there is no sound, or none that an mp4 can hold.
    """
    container, _ = open_video(path, limits, in_child=True)
    with container:
        stream = next(iter(container.streams.audio), None)
        if stream is None or stream.codec_context is None:
            return None
        if stream.codec_context.name not in MP4_SOUND:
            return None
        carrier = io.BytesIO()
        with av.open(carrier, "w", format=_CARRIER) as target:
            copied = target.add_stream_from_template(stream)
            count = _copy_packets(container, stream, target, copied, (start_s, duration_s))
        return carrier.getvalue() if count else None


def _copy_packets(
    source: Any,  # noqa: ANN401 - av.container.InputContainer
    stream: Any,  # noqa: ANN401 - av.AudioStream
    target: Any,  # noqa: ANN401 - av.container.OutputContainer
    copied: Any,  # noqa: ANN401 - av.AudioStream
    span_s: tuple[float, float],
) -> int:
    """Copy the packets that start within a span; return how many."""
    start_s, duration_s = span_s
    count = 0
    shift = round(start_s / stream.time_base)
    try:
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None:
                continue
            time_s = float((packet.pts - shift) * stream.time_base)
            if time_s >= duration_s:
                break
            if time_s < 0:
                continue
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copied
            target.mux(packet)
            count += 1
    except FFmpegError:  # a damaged end: what came before it is kept
        pass
    return count


def join_sound(video: Path, sound: bytes, out: Path) -> None:
    """Write an mp4 with the pictures of one file and the sound of another, both unchanged.

    Args:
        video: An mp4 of our own.
        out: The mp4 to write.
    """
    with (
        av.open(str(video), format="mp4") as pictures,
        av.open(io.BytesIO(sound), format=_CARRIER) as sounds,
        av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as target,
    ):
        sources = (pictures, pictures.streams.video[0]), (sounds, sounds.streams.audio[0])
        lanes = [
            (container.demux(stream), target.add_stream_from_template(stream))
            for container, stream in sources
        ]
        waiting = [next(packets, None) for packets, _ in lanes]
        while any(packet is not None for packet in waiting):
            lane = min(range(len(lanes)), key=lambda index: _time_s(waiting[index]))
            packet, (packets, stream) = waiting[lane], lanes[lane]
            waiting[lane] = next(packets, None)
            if packet is not None and packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def _time_s(packet: Any) -> float:  # noqa: ANN401 - av.Packet or None
    """Return when a packet is decoded: ends of streams last, packets without a time first."""
    if packet is None:
        return float("inf")
    return float("-inf") if packet.dts is None else float(packet.dts * packet.time_base)
