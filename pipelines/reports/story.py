"""Tell the life of one clip or source: where it came from, what was measured, why it stayed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES, SCORES
from animaray.pipelines.policy.policies import Policy
from animaray.pipelines.policy.rules import RULES, Rule, spell_reasons
from animaray.pipelines.policy.verdicts import applied_policy
from animaray.platform.errors import DatasetError


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """What is known of one clip or source."""

    kind: str
    """clip or source."""
    subject: str
    """Its id."""
    source: Mapping[str, Any]
    """Facts of the source: name, state, reason, format, hash."""
    clip: Mapping[str, Any] | None
    """Facts of the clip; None for a source."""
    scores: Mapping[str, Mapping[str, Any]]
    """Raw scores by family; empty for a source."""
    verdicts: Mapping[str, Mapping[str, Any]]
    """State and reasons under each applied policy; of each clip for a source."""
    limits: tuple[Mapping[str, Any], ...]
    """Every rule that judges the clip: score, value, threshold, policy, limit, passes, and whether
    it only flags."""
    commits: tuple[int, ...]
    """Versions of the commit log that hold rows of its source."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the story for a terminal."""
        source = self.source
        lines = [
            f"{self.kind} {self.subject}",
            f"  file      {source['uri']} ({source['file_bytes']} bytes, sha256 "
            f"{str(source['sha256'])[:16]})",
        ]
        if source["codec"]:
            lines.append(
                f"  video     {source['codec']} {source['width']}x{source['height']} "
                f"{source['fps']:.4g} fps {source['duration_s']:.2f} s, "
                f"{source['num_frames']} frames decoded, cuts at {source['cut_times_s']}"
            )
        if source["warning"]:
            lines.append(f"  warning   {source['warning']}")
        why = f" ({source['reason']})" if source["reason"] else ""
        detail = f": {source['detail']}" if source["detail"] else ""
        lines.append(f"  source    {source['state']}{why}{detail}")
        if self.clip is not None:
            lines += self._clip_lines()
        for name, verdict in self.verdicts.items():
            spelled = spell_reasons(verdict)
            reasons = f": {'; '.join(spelled)}" if spelled else ""
            lines.append(f"  {name:<9} {verdict['state']}{reasons}")
        lines.append(f"  commits   {', '.join(str(version) for version in self.commits)}")
        return lines

    def _clip_lines(self) -> list[str]:
        clip = self.clip or {}
        lines = [
            f"  span      {clip['start_s']:.3f} to {clip['end_s']:.3f} s, {clip['num_frames']} "
            f"frames of {clip['width']}x{clip['height']}",
            f"  media     {clip['media_file'] or 'not stored: every shipped policy dropped it'}",
        ]
        for family, scores in self.scores.items():
            note = f" {clip[f'{family}_note']}" if clip[f"{family}_note"] else ""
            producer = f" by {clip[f'{family}_producer']}" if clip[f"{family}_producer"] else ""
            # Of datasets older than the family there is no state.
            state = clip[f"{family}_state"] or "not measured"
            lines.append(f"  {family:<9} {state}{note}{producer}")
            for name, value in scores.items():
                lines.append(f"    {name:<28} {_shown(value):<10} {self._limits_of(name)}".rstrip())
        return lines

    def _limits_of(self, score: str) -> str:
        """Return the limits of one score under every policy, those that it breaks marked."""
        found = []
        for row in self.limits:
            if row["score"] == score:
                sign = ">=" if row["is_minimum"] else "<="
                broken = " FLAGGED" if row["only_flags"] else " BROKEN"
                mark = "" if row["passes"] in {True, None} else broken
                found.append(f"{row['policy']} {sign} {row['limit']:g}{mark}")
        return "; ".join(found)


def _shown(value: float | int | str | Sequence[float] | None) -> str:
    """Return a score in four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(_shown(part) for part in value)
    return "none" if value is None else str(value)


def explain(root: Path | str, what: str) -> Story:
    """Tell the life of a clip or source.

    Args:
        root: Dataset folder.
        what: Clip id, source id, input id or file name.

    Raises:
        DatasetError: Nothing in the dataset has that id or name.
    """
    dataset = CurationDataset.open(root)
    sources = dataset.sources()
    verdicts = {
        name: {row["clip_id"]: row for row in dataset.verdicts(name)} for name in dataset.policies()
    }
    clips = dataset.clips()
    clip = next((row for row in clips if row["clip_id"] == what), None)
    if clip is not None:
        source = next(row for row in sources if row["input_id"] == clip["input_id"])
        return Story(
            kind="clip",
            subject=what,
            source=_facts(source),
            clip={name: value for name, value in clip.items() if name != "identity_embedding"},
            scores={family: {name: clip[name] for name in SCORES[family]} for family in FAMILIES},
            verdicts={
                name: _verdict(rows[what]) for name, rows in verdicts.items() if what in rows
            },
            limits=_limits(clip, [applied_policy(dataset, name) for name in verdicts]),
            commits=_commits(dataset, source["input_id"]),
        )
    for source in sources:
        if what in {source[name] for name in ("source_id", "input_id", "uri", "file_name")}:
            own = [row["clip_id"] for row in clips if row["input_id"] == source["input_id"]]
            return Story(
                kind="source",
                subject=source["source_id"],
                source=_facts(source),
                clip=None,
                scores={},
                verdicts={
                    f"{name} {clip_id}": _verdict(rows[clip_id])
                    for name, rows in verdicts.items()
                    for clip_id in own
                    if clip_id in rows
                },
                limits=(),
                commits=_commits(dataset, source["input_id"]),
            )
    raise DatasetError(
        f"Nothing in {root} has the id or name {what}.",
        fix=f"See the ids: animaray dataset list {root}",
        reason="unknown_clip",
    )


def _facts(source: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {"hashes", "motion_signature"}
    return {name: value for name, value in source.items() if name not in hidden}


def _verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("state", "keep", "reasons", "flags", "policy_fingerprint")
    return {name: row[name] for name in wanted}


def _limits(clip: Mapping[str, Any], policies: Sequence[Policy]) -> tuple[Mapping[str, Any], ...]:
    """Return every rule that judges the clip under each policy, in the order of the rules."""
    rows = []
    for rule in RULES:
        for policy in policies:
            limit = rule.limit(policy)
            if limit is not None and rule.judges(clip["pose_framing"]):
                value = clip[rule.score]
                rows.append(
                    {
                        "score": rule.score,
                        "value": value,
                        "threshold": rule.threshold,
                        "is_minimum": rule.is_minimum,
                        "policy": policy.name,
                        "limit": limit,
                        "passes": _passes(rule, value, limit),
                        "only_flags": rule.only_flags(policy),
                    }
                )
    return tuple(rows)


def _passes(rule: Rule, value: float | int | None, limit: float) -> bool | None:
    if value is None:
        return None
    return value >= limit if rule.is_minimum else value <= limit


def _commits(dataset: CurationDataset, input_id: str) -> tuple[int, ...]:
    log = CommitLog(dataset.root)
    entries = log.commits(dataset.snapshot.version)
    return tuple(entry.version for entry in entries if input_id in entry.inputs)
