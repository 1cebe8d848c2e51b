"""Which decoder reads training windows of our own clips with less CPU: PyAV or decord.

    python -m benchmarks.costs.window_decoders

Both read the same windows of the same clips in turns within one run; the ratio of their CPU
seconds decides, with its least and largest value over the repeats.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from animaray.platform.json_text import json_text
from animaray.platform.media.video_encode import encode_mp4
from animaray.platform.media.video_window import read_frames
from animaray.platform.media.video_window_decord import read_frames_by_decord

SIZES = ((384, 384), (720, 1280))
NUM_FRAMES = 120
REPEATS = 9


def moving_clip(height: int, width: int) -> np.ndarray:
    """Return frames of a smooth picture that moves by two pixels a frame."""
    reach = 2 * NUM_FRAMES
    noise = np.random.default_rng(0).integers(0, 256, (height + reach, width + reach, 3), np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX)
    return np.stack(
        [picture[2 * i : 2 * i + height, 2 * i : 2 * i + width] for i in range(NUM_FRAMES)]
    )


def cpu_seconds(read: Callable[..., object], video: bytes, indices: Sequence[int]) -> float:
    """Return the CPU seconds of one read."""
    started = time.process_time()
    read(video, indices)
    return time.process_time() - started


def main() -> None:
    """Measure and print one JSON document."""
    rows = []
    for height, width in SIZES:
        video = encode_mp4(moving_clip(height, width), 25.0)
        spread = np.random.default_rng(1).choice(NUM_FRAMES, 16, replace=False).tolist()
        for name, indices in (("16 in a row", list(range(50, 66))), ("16 anywhere", spread)):
            by_pyav, by_decord = read_frames(video, indices), read_frames_by_decord(video, indices)
            pairs = [
                tuple(
                    cpu_seconds(read, video, indices)
                    for read in (read_frames, read_frames_by_decord)
                )
                for _ in range(REPEATS)
            ]
            ratios = [decord_s / pyav_s for pyav_s, decord_s in pairs]
            difference = np.abs(by_pyav[0].astype(int) - by_decord[0])
            rows.append(
                {
                    "size": f"{width}x{height}",
                    "window": name,
                    "largest_difference": int(difference.max()),
                    "pyav_cpu_s": statistics.median(pair[0] for pair in pairs),
                    "decord_cpu_s": statistics.median(pair[1] for pair in pairs),
                    "decord_over_pyav": statistics.median(ratios),
                    "least": min(ratios),
                    "most": max(ratios),
                }
            )
    print(json_text({"repeats": REPEATS, "windows": rows}, indent=2))


if __name__ == "__main__":
    main()
