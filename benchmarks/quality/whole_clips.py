"""Measure rendered videos with the product's own stages, each as one clip from end to end."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from animaray.datasets.schemas import FAMILIES
from animaray.models.perception.profiles import (
    load_perception,
    load_point_tracker,
    load_text_detector,
)
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.perception_worker import PerceptionWorker
from animaray.pipelines.curation.rows import new_row
from animaray.pipelines.policy.policies import STANDARD
from animaray.pipelines.policy.verdicts import add_verdicts
from animaray.platform.media.video import write_mp4


class WholeClips:
    """The perception stages of a profile, for videos that are not cut into shots first."""

    def __init__(self, profile: str, work: Path, faces: str | None = None) -> None:
        """Load the networks.

        Args:
            profile: Who looks.
            work: Folder of the rendered videos.
            faces: Profile of the face detector, if another one.
        """
        work.mkdir(parents=True, exist_ok=True)
        self._work = work
        # Every family is measured: a calibration wants the scores of clips without faces, too.
        config = CurationConfig(
            sources=("rendered",), output_dir=work, profile=profile, skip_lost=False
        )
        perception = load_perception(profile, num_threads=1)
        if faces is not None and faces != profile:
            detector = load_perception(faces, num_threads=1).face_detector
            perception = replace(perception, face_detector=detector)
        # The strict policy wants to know of text, in drawn worlds, too.
        self._stages = PerceptionWorker(
            perception, load_point_tracker(profile), config, load_text_detector()
        )

    def write(
        self, name: str, frames_uint8: UInt8[np.ndarray, "frames height width 3"], fps: float
    ) -> Path:
        """Write a video as a source would have it."""
        path = self._work / f"{name}.mp4"
        write_mp4(path, frames_uint8, fps, crf=20)
        return path

    def scores(
        self, path: Path, num_frames: int, fps: float, size: tuple[int, int]
    ) -> Mapping[str, Any]:
        """Return raw scores and family states of a video, as the clips table has them.

        Raises:
            RuntimeError: A family could not be measured.
        """
        row = {
            **new_row(str(path), str(self._work)), "clip_id": path.stem,
            "staging_dir": str(self._work), "media_path": str(path), "clip_fps": fps,
            "clip_num_frames": num_frames, "clip_width": size[0], "clip_height": size[1],
            "clip_damaged_share": 0.0, "clip_combed_share": None,
        }  # fmt: skip
        measured = self._stages.measure_stored(row)
        broken = {
            family: measured.get(f"{family}_note")
            for family in FAMILIES
            if measured.get(f"{family}_state") == "failed"
        }
        if broken or measured["state"] is not None:
            raise RuntimeError(f"{path.name} could not be measured: {broken or measured['detail']}")
        scores: Mapping[str, Any] = add_verdicts(measured, [STANDARD], "all")["scores"]
        return scores
