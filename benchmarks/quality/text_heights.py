"""How small and how faint may burned-in text be and still be found? Drawn on clean real clips.

    python -m benchmarks.quality.text_heights ../shared/real/videos --on v02 v04 v09 v27

Prints, for captions with a rim and for half transparent watermarks, the share of the three sampled
frames in which text was found, per font size at the size that is looked at (480 px).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from animaray.models.perception.profiles import load_text_detector
from animaray.pipelines.stages.text import TextConfig, TextStage
from animaray.platform.media.video import decode_video

Frames = UInt8[np.ndarray, "frames height width 3"]
SIZES_PX = (8, 10, 12, 14, 18, 24)
CAPTIONS = ("dance with me", "one two three", "never again")
WATERMARK = ("@someone.tv",) * 3
_FONT = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


class Drawn:
    """Stands for the samples of a clip."""

    def __init__(self, frames_uint8: Frames) -> None:
        self.frames_uint8 = frames_uint8

    def take(self, _selection: object) -> "Drawn":
        """Return the frames."""
        return self


def three_frames(path: Path) -> Frames:
    """Return three moments of a video, at the size that is looked at."""
    frames = decode_video(path, fps=1.0).frames_uint8
    chosen = frames[[len(frames) // 6, len(frames) // 2, len(frames) * 5 // 6]]
    scale = TextConfig().long_side_px / max(chosen.shape[1:3])
    size = round(chosen.shape[2] * scale), round(chosen.shape[1] * scale)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in chosen])


def write(frames: Frames, lines: Sequence[str], place: tuple[float, float], size_px: int) -> Frames:
    """Write captions, white with a black rim; what is at the top is half transparent, without."""
    is_caption = place[1] > 0.5 * frames.shape[1]
    alpha = 255 if is_caption else 128
    drawn = []
    for frame, words in zip(frames, lines, strict=True):
        picture = Image.fromarray(frame).convert("RGBA")
        layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
        ImageDraw.Draw(layer).text(
            place, words, font=ImageFont.truetype(str(_FONT), size_px), fill=(255, 255, 255, alpha),
            stroke_width=size_px // 12 if is_caption else 0, stroke_fill=(0, 0, 0, 255),
        )  # fmt: skip
        drawn.append(np.array(Image.alpha_composite(picture, layer).convert("RGB")))
    return np.stack(drawn)


def main() -> int:
    """Draw, look and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", type=Path, help="folder of videos")
    parser.add_argument("--on", nargs="+", required=True, help="file names without suffix")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    stage = TextStage(load_text_detector())
    clips = {name: three_frames(options.videos / f"{name}.mp4") for name in options.on}
    for kind, lines in (("caption", CAPTIONS), ("watermark, half transparent", WATERMARK)):
        for size_px in SIZES_PX:
            found = {}
            for name, frames in clips.items():
                height, width = frames.shape[1:3]
                low = (0.25 * width, 0.88 * height - size_px)
                drawn = write(frames, lines, low if lines is CAPTIONS else (8, 10), size_px)
                row: dict[str, Any] = {
                    "samples": Drawn(drawn), "clip_num_frames": 3, "clip_fps": 1.0,
                    "clip_width": width, "clip_height": height,
                }  # fmt: skip
                found[name] = round(stage(row)["text_scores"]["text_found_share"], 2)
            print(f"{kind}, {size_px} px: {found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
