"""The demo's folder, its numbered steps and what it remembers between starts."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from animaray.platform.storage import read_json, write_json_atomic

if TYPE_CHECKING:
    from animaray.pipelines.curate import CurationSummary

NUM_STEPS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSettings:
    """What the user chose."""

    out: Path
    """Folder that gets everything."""
    videos: Path | None = None
    """Folder of real videos; None renders the generated world."""
    image: Path | None = None
    """Picture to animate; None chooses one."""
    profile: str = "generated"
    """Who looks at the pixels."""
    num_videos: int = 26
    """How many videos of the generated world to render."""
    seed: int = 7
    """Seed of the generated world, the trainings and the job."""
    train_minutes: float = 4.0
    """Time limit of the animator's training."""
    max_frames: int = 16
    """Frames of the animation."""

    @property
    def videos_dir(self) -> Path:
        """Folder of the source videos."""
        return self.videos or self.out / "videos"

    @property
    def dataset_dir(self) -> Path:
        """Folder of the curated dataset."""
        return self.out / "dataset"

    @property
    def aligner_dir(self) -> Path:
        """Run folder of the aligner's training; its weights are in `weights`."""
        return self.out / "runs" / "aligner"

    @property
    def animator_dir(self) -> Path:
        """Run folder of the animator's training; its weights are in `weights`."""
        return self.out / "runs" / "animator"

    @property
    def serving_dir(self) -> Path:
        """Data folder of the service."""
        return self.out / "serving"

    @property
    def evaluation_dir(self) -> Path:
        """Folder of the evaluation's tables and videos."""
        return self.out / "evaluation"

    @property
    def media_dir(self) -> Path:
        """Folder of the page's pictures and videos."""
        return self.out / "media"


@dataclass(slots=True)
class DemoRun:
    """Numbered steps with their seconds; kept in demo.json, so that a second start can tell."""

    settings: DemoSettings
    facts: dict[str, Any] = field(default_factory=dict)
    """Measured values that the page shows."""
    timings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per step: title, seconds, note."""
    num_steps: int = NUM_STEPS
    """How many there will be."""
    _number: int = 0

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[dict[str, Any]]:
        """Announce a step, time it, and print what came of it.

        The yielded record's "note" is printed; "found" = True keeps the seconds of the first start.
        """
        self._number += 1
        self._say(f"[{self._number}/{self.num_steps}] {title} ...")
        record: dict[str, Any] = {"title": title, "note": ""}
        started = time.monotonic()
        yield record
        seconds = time.monotonic() - started
        before = self._read_before().get(name)
        if record.pop("found", False) and before is not None:
            record["seconds"] = before["seconds"]
            record["note"] += f" (found; {before['seconds']:.0f} s in the first start)"
        else:
            record["seconds"] = seconds
        self.timings[name] = record
        self._say(f"[{self._number}/{self.num_steps}] {title}: {record['note']} ({seconds:.0f} s)")
        self.save()

    def curate(self, **choices: Any) -> "CurationSummary":  # noqa: ANN401 - settings of curation
        """Curate the videos, as both demos do."""
        from animaray.pipelines.curate import CurationConfig, curate

        with self.step("curate", "curate with Ray Data") as record:
            config = CurationConfig(
                sources=(str(self.settings.videos_dir),),
                output_dir=self.settings.dataset_dir,
                profile=self.settings.profile,
                **choices,
            )
            summary = curate(config)
            record |= {"note": summary.one_line(), "found": summary.num_new_sources == 0}
        return summary

    def save(self) -> None:
        """Write demo.json."""
        timings = {**self._read_before(), **self.timings}
        document = {"schema_version": 1, "facts": self.facts, "timings": timings}
        write_json_atomic(self._file, document)

    @property
    def _file(self) -> Path:
        return self.settings.out / "demo.json"

    def _read_before(self) -> dict[str, Any]:
        return read_json(self._file)["timings"] if self._file.is_file() else {}

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
