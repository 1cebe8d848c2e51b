"""Look for burned-in text in every clip that curation makes of some videos, as curation does.

    python -m benchmarks.quality.text_on_videos ../shared/real/videos --with-text v01 v05 v20 x06
    python -m benchmarks.quality.text_on_videos demo/videos

Prints one row per clip: share, place, what was read in each sampled frame, and its CPU seconds.
Exits 1 when a clip of a file named by --with-text has none, or another clip has some. One process,
one thread, no Ray; shots, clips and their encoding are the product's own.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from animaray.models.perception.profiles import load_text_detector
from animaray.models.perception.protocols import TextDetector, TextLine
from animaray.pipelines.curate import read_source
from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.rows import new_row
from animaray.pipelines.curation.workplace import Workplace
from animaray.pipelines.stages.clips import split_clips
from animaray.pipelines.stages.cut_clip import cut_clip
from animaray.pipelines.stages.text import TextStage
from animaray.platform.media.video import DecodedVideo, FrameSelection


class Listening:
    """A detector that keeps what it read of each frame."""

    def __init__(self, detector: TextDetector) -> None:
        self.name = detector.name
        self._detector = detector
        self.frames: list[list[TextLine]] = []

    def detect(self, frame: np.ndarray) -> list[TextLine]:
        """Return the lines of a frame."""
        self.frames.append(self._detector.detect(frame))
        return self.frames[-1]

    def heard(self) -> str:
        """Return what was read since the last call, frame by frame, with its score."""
        told = [
            " ".join(f"{line.words!r} {line.score:.2f}" for line in lines) or "-"
            for lines in self.frames
        ]
        self.frames = []
        return " | ".join(told)


class Decoded:
    """The sampled frames of a clip, decoded beforehand: stages share that cost."""

    def __init__(self, media_path: str, selection: FrameSelection) -> None:
        self._clip = ClipSamples(media_path).take(selection)

    def take(self, _selection: FrameSelection) -> DecodedVideo:
        """Return the frames."""
        return self._clip

    def save(self, path: Path) -> None:
        """Write the frames side by side, for a person to look at."""
        sheet = np.concatenate(list(self._clip.frames_uint8), axis=1)
        cv2.imwrite(str(path), sheet[..., ::-1])


def clips_of(path: Path, config: CurationConfig, staging: Path) -> Iterator[dict[str, Any]]:
    """Yield the encoded clips of one file; none when it cannot be read."""
    row = read_source(new_row(str(path), str(path.parent)), Workplace(config=config))
    if row["state"] is None:
        for clip in split_clips({**row, "staging_dir": str(staging)}, config.clips):
            yield cut_clip(clip, config.cut, config.limits)


def main() -> int:
    """Look at every clip and compare with what is known."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", type=Path, help="folder of videos")
    parser.add_argument("--with-text", nargs="*", default=[], help="file names without suffix")
    parser.add_argument("--sheets", type=Path, help="folder for the frames that were looked at")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    listening = Listening(load_text_detector())
    stage = TextStage(listening)
    wrong, spent = [], []
    with tempfile.TemporaryDirectory() as folder:
        config = CurationConfig(sources=(str(options.videos),), output_dir=Path(folder))
        for path in sorted(options.videos.iterdir()):
            for number, clip in enumerate(clips_of(path, config, Path(folder) / "_staging")):
                if clip["state"] is not None:
                    print(f"{path.name} {number}: {clip['state']} ({clip['reason']})", flush=True)
                    continue
                samples = Decoded(clip["media_path"], stage.selection(clip))
                if options.sheets is not None:
                    options.sheets.mkdir(parents=True, exist_ok=True)
                    samples.save(options.sheets / f"{path.stem}_{number}.png")
                started = time.process_time()
                scores = stage({**clip, "samples": samples})["text_scores"]
                spent.append(time.process_time() - started)
                is_right = (scores["text_share"] > 0) == (path.stem in options.with_text)
                wrong += [] if is_right else [f"{path.name} {number}"]
                print(
                    f"{path.name} {number} [{clip['clip_start_s']:.1f}, {clip['clip_end_s']:.1f}] s"
                    f" share {scores['text_share']:.4f} in {scores['text_found_share']:.2f}"
                    f" {scores['text_place'] or 'none'}, scene {scores['text_scene_share']:.4f},"
                    f" {spent[-1]:.2f} CPU s{'' if is_right else ', WRONG'}: {listening.heard()}",
                    flush=True,
                )
                Path(clip["media_path"]).unlink()
    print(
        f"{len(spent)} clips, {len(wrong)} wrong {wrong}; CPU s a clip: mean {np.mean(spent):.2f},"
        f" most {np.max(spent):.2f}"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
