"""What one curation run did, in numbers that add up."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import SOURCE_STATES
from animaray.platform.quantities import spell_hours

NOT_HAD = ("unavailable", "blocked", "queued", "expanded")
"""States of addresses whose video is not here."""
_ALWAYS_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationSummary:
    """State of every input of a run; the states' counts add up to `num_inputs`."""

    num_inputs: int
    """Files found (after the limit)."""
    num_new_sources: int
    """Of these, looked at in this run; the rest were finished before."""
    sources_by_state: Mapping[str, int]
    """Inputs per final state; see `datasets.schemas.SOURCE_STATES`."""
    num_clips: int
    """Clips of these inputs, kept and rejected."""
    num_kept_clips: int
    """Clips that the run's policy keeps."""
    clips_by_policy: Mapping[str, int]
    """Kept clips under each policy that was applied."""
    dropped_by_reason: Mapping[str, int]
    """Clips per reason; one clip may have several."""
    flagged: Mapping[str, int]
    """Kept clips per flag: what the policy marks and does not drop."""
    hours: Mapping[str, float]
    """Hours of video: inputs and kept."""
    seconds_by_stage: Mapping[str, float]
    """Time spent in each stage by all workers of this run, seconds."""
    wall_s: float
    """Time from start to end, seconds."""
    policy: str
    """The run's policy."""
    version: int
    """Version of the commit log that holds the result."""
    problems: Sequence[str]
    """One line per input that could not be had or read."""
    left_out: Mapping[str, int]
    """Files beside the inputs that are no video, by suffix."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return {**asdict(self), "funnel": [list(step) for step in self.funnel()]}

    def funnel(self) -> list[tuple[str, int]]:
        """Return what was left after each step, for a bar chart."""
        states = self.sources_by_state
        readable = self.num_inputs - states["unreadable"] - sum(states[name] for name in NOT_HAD)
        return [
            ("inputs", self.num_inputs),
            ("readable", readable),
            ("not a duplicate", readable - states["duplicate"]),
            ("clips", self.num_clips),
            ("kept clips", self.num_kept_clips),
        ]

    def one_line(self) -> str:
        """Return the result in one line."""
        states = ", ".join(
            f"{count} {state}"
            for index, (state, count) in enumerate(self.sources_by_state.items())
            if count or index < _ALWAYS_SHOWN
        )
        return (
            f"{self.num_inputs} inputs ({states}); {self.num_kept_clips} of {self.num_clips} clips "
            f"kept under {self.policy}"
        )

    def lines(self) -> list[str]:
        """Return the result for a terminal."""
        lines = [
            self.one_line(),
            f"  looked at {self.num_new_sources} inputs in {self.wall_s:.0f} s; "
            f"{spell_hours(self.hours['kept'])} of {spell_hours(self.hours['inputs'])} kept",
            "  kept clips by policy: "
            + ", ".join(f"{name} {count}" for name, count in self.clips_by_policy.items()),
        ]
        if self.dropped_by_reason:
            reasons = (f"{name} {count}" for name, count in self.dropped_by_reason.items())
            lines.append("  dropped for: " + ", ".join(reasons))
        if self.flagged:
            flags = (f"{name} {count}" for name, count in self.flagged.items())
            lines.append("  kept with a flag: " + ", ".join(flags))
        if self.left_out:
            kinds = ", ".join(f"{name} {count}" for name, count in self.left_out.items())
            total = sum(self.left_out.values())
            lines.append(f"  left out as no videos: {total} files ({kinds})")
        return lines + [f"  {problem}" for problem in self.problems]


def count_flags(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many verdicts carry each flag, the most frequent first."""
    return dict(Counter(code for row in verdicts for code in row["flag_codes"] or ()).most_common())


def summarize(  # noqa: PLR0913 - each is counted by another
    dataset: CurationDataset,
    input_ids: Sequence[str],
    *,
    policy: str,
    num_new_sources: int,
    seconds_by_stage: Mapping[str, float],
    wall_s: float,
    left_out: Sequence[str] = (),
) -> CurationSummary:
    """Count what became of some inputs."""
    wanted = set(input_ids)
    sources = [row for row in dataset.sources() if row["input_id"] in wanted]
    states = Counter(row["state"] for row in sources)
    clips = [row for row in dataset.clips() if row["input_id"] in wanted]
    clip_ids = {row["clip_id"] for row in clips}
    verdicts = {
        name: [row for row in dataset.verdicts(name) if row["clip_id"] in clip_ids]
        for name in dataset.policies()
    }
    kept = {row["clip_id"] for row in verdicts.get(policy, []) if row["keep"]}
    reasons = Counter(code for row in verdicts.get(policy, []) for code in row["reason_codes"])
    return CurationSummary(
        num_inputs=len(input_ids),
        num_new_sources=num_new_sources,
        sources_by_state={state: states.get(state, 0) for state in SOURCE_STATES},
        num_clips=len(clips),
        num_kept_clips=len(kept),
        clips_by_policy={name: sum(row["keep"] for row in rows) for name, rows in verdicts.items()},
        dropped_by_reason=dict(reasons.most_common()),
        flagged=count_flags(row for row in verdicts.get(policy, []) if row["keep"]),
        hours={
            "inputs": sum(row["duration_s"] or 0.0 for row in sources) / 3600,
            "kept": sum(row["duration_s"] or 0.0 for row in clips if row["clip_id"] in kept) / 3600,
        },
        seconds_by_stage={name: round(value, 2) for name, value in seconds_by_stage.items()},
        wall_s=round(wall_s, 2),
        policy=policy,
        version=dataset.snapshot.version,
        problems=[
            f"{row['uri']}: {row['state']} ({row['reason']}): {row['detail']}"
            for row in sources
            if row["state"] in {"unreadable", "failed", "unavailable", "blocked", "queued"}
        ],
        left_out=dict(
            Counter(Path(name).suffix.lower() or "no suffix" for name in left_out).most_common()
        ),
    )
