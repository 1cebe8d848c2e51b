"""What `animaray dataset show` tells: the dataset, all of one clip, every input, or why.

A dataset: its tables, commits and policies. A clip: all that is stored of it. The inputs: what
became of each, for programs. Why: where a clip or source came from, what was measured, the limits
of every policy, and what they say.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES, SCORES
from animaray.datasets.table_rows import one_array
from animaray.models.pose.further_points import layout_of
from animaray.pipelines.curation.commit import state_of_clips
from animaray.pipelines.policy.policies import Policy, policy_fingerprint
from animaray.pipelines.policy.rules import RULES, spell_reasons
from animaray.pipelines.policy.verdicts import applied_policy
from animaray.platform.errors import DatasetError

Facts = dict[str, Any]


def show_dataset(dataset: CurationDataset) -> Facts:
    """Return what a dataset holds: tables, inputs by state, policies, lineage."""
    tables: dict[str, dict[str, int]] = {}
    for file in dataset.snapshot.files:
        entry = tables.setdefault(file.table, {"files": 0, "rows": 0, "bytes": 0})
        entry["files"] += 1
        entry["rows"] += file.rows
        entry["bytes"] += file.size_bytes
    clips = dataset.table("clips", ["clip_id", "duration_s"])
    sources = dataset.table("sources", ["state", "profile", "code", "config"])
    policies = {}
    for name in dataset.policies():
        kept = kept_clips(dataset, clips, name)
        policies[name] = {
            "fingerprint": policy_fingerprint(applied_policy(dataset, name)),
            "kept_clips": len(kept),
            "kept_hours": hours_of(kept),
        }
    return {
        "dataset": str(dataset.store),
        "version": dataset.snapshot.version,
        "commits": dict(Counter(entry.kind for entry in dataset.snapshot.entries)),
        "tables": tables,
        "sources_by_state": count_values(sources["state"]),
        "num_clips": len(clips),
        "hours": hours_of(clips),
        "policies": policies,
        "profiles": distinct(sources["profile"]),
        "code": distinct(sources["code"]),
        "configs": distinct(sources["config"]),
        "withdrawn": sorted(dataset.snapshot.withdrawn),
    }


def distinct(column: pa.ChunkedArray) -> list[str]:
    """Return the values of a column, each once, sorted."""
    return sorted(value for value in column.unique().to_pylist() if value)


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value of a column occurs, the most frequent first."""
    found = {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}
    return dict(Counter(found).most_common())


def kept_clips(dataset: CurationDataset, clips: pa.Table, policy: str) -> pa.Table:
    """Return the rows of the clips, of columns with `clip_id`, that a policy keeps."""
    verdicts = dataset.table(f"verdicts/{policy}", ["clip_id", "keep"])
    kept = verdicts.filter(verdicts["keep"])["clip_id"]
    return clips.filter(pc.is_in(clips["clip_id"], value_set=one_array(kept)))


def hours_of(rows: pa.Table) -> float:
    """Return the length of clips or sources, by their `duration_s`."""
    return (pc.sum(rows["duration_s"]).as_py() or 0.0) / 3600


def show_clip(dataset: CurationDataset, clip_id: str) -> Facts:
    """Return all that is stored of one clip: facts, verdicts, video, poses and faces.

    Raises:
        DatasetError: There is no such clip.
    """
    clip = dataset.clip(clip_id)
    tracks = None
    if dataset.has_row("tracks", clip_id):
        found = dataset.tracks(clip_id)
        confidence = found.keypoint_confidence
        tracks = {
            "poses": len(found.pts_s),
            "pose_layout": layout_of(found.further_points),
            "mean_keypoint_confidence": float(confidence.mean()) if confidence.size else None,
            "visible_keypoints": np.round((confidence > 0.3).sum(axis=1)).astype(int).tolist(),
            "faces_sampled": len(found.face_frames),
            "faces_valid": int(found.face_valid.sum()),
            "camera": dataset.camera_path(clip_id),
        }
    return {
        "clip": clip,
        "identity_dim": len(clip["identity_embedding"] or ()),
        "verdicts": _verdicts(dataset, clip_id),
        "video_bytes": clip["media_bytes"],
        "tracks": tracks,
    }


def extract_clip(dataset: CurationDataset, clip_id: str, folder: Path) -> list[Path]:
    """Write the stored video, preview and poster of a clip into a folder; return the files.

    Raises:
        DatasetError: There is no such clip, or nothing of it was stored.
    """
    files = {}
    if dataset.clip(clip_id)["media_file"] is not None:
        files["mp4"] = dataset.media_bytes(clip_id)
    if dataset.has_row("preview", clip_id):
        preview = dataset.preview(clip_id)
        files |= {"jpg": preview["poster"], "preview.mp4": preview["video"]}
    if not files:
        raise DatasetError(
            f"Neither video nor preview of clip {clip_id} was stored.", reason="no_media"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, data in files.items():
        (folder / f"{clip_id}.{suffix}").write_bytes(data)
    return [folder / f"{clip_id}.{suffix}" for suffix in files]


def source_states(dataset: CurationDataset, policy: str) -> pa.Table:
    """Return `input_id` and final `state` of each input under a policy's verdicts, by id."""
    sources = dataset.table("sources", ["input_id", "state"])
    judged = clips_with_verdicts(dataset, policy, ["input_id"], ["state"])
    judged = judged.append_column("is_kept", pc.equal(judged["state"], "keep"))
    judged = judged.append_column("is_failed", pc.equal(judged["state"], "failed"))
    own = judged.group_by("input_id").aggregate([("is_kept", "any"), ("is_failed", "all")])
    states = pc.if_else(
        own["is_kept_any"],
        state_of_clips(["keep"]),
        pc.if_else(own["is_failed_all"], state_of_clips(["failed"]), state_of_clips(["drop"])),
    )
    # An input without clips stays as it ended.
    places = pc.index_in(sources["input_id"], value_set=one_array(own["input_id"]))
    states = pc.coalesce(states.take(places), sources["state"])
    return pa.table({"input_id": sources["input_id"], "state": states})


def clips_with_verdicts(
    dataset: CurationDataset, policy: str, of_clips: Sequence[str], of_verdicts: Sequence[str]
) -> pa.Table:
    """Return columns of the clips beside columns of what a policy says of them, by clip."""
    clips = dataset.table("clips", ["clip_id", *of_clips])
    verdicts = dataset.table(f"verdicts/{policy}", ["clip_id", *of_verdicts])
    places = pc.index_in(clips["clip_id"], value_set=one_array(verdicts["clip_id"]))
    for name in of_verdicts:
        clips = clips.append_column(name, one_array(verdicts[name]).take(places))
    return clips


def show_sources(dataset: CurationDataset, policy: str = "standard") -> list[Facts]:
    """Return one object per input ever tried, in the order of their names.

    `file` or `url` names the input; `state`, `reason` and `detail` say what became of it under the
    policy; `clips` holds each clip with `start` and `end` (seconds of the input), `keep`, `state`,
    `reasons` (code, value and threshold), `reason_codes`, `flags` and `scores`.

    Raises:
        DatasetError: The policy was never applied.
    """
    verdicts = {row["clip_id"]: row for row in dataset.verdicts(policy)}
    states = dict(
        zip(*(column.to_pylist() for column in source_states(dataset, policy).columns), strict=True)
    )
    wanted = ("clip_id", "input_id", "start_s", "end_s")
    scores = (name for names in SCORES.values() for name in names)
    found = dataset.table("clips", [*wanted, *scores, *(f"{family}_state" for family in FAMILIES)])
    clips: dict[str, list[Facts]] = {}
    for clip in found.sort_by([("start_s", "ascending"), ("clip_id", "ascending")]).to_pylist():
        item = _clip_object(clip, verdicts[clip["clip_id"]])
        clips.setdefault(clip["input_id"], []).append(item)
    told = ("input_id", "source_id", "uri", "reason", "detail", "duplicate_of", "sha256")
    sources = dataset.table("sources", [*told, "duration_s"]).sort_by("uri")
    return [
        _source_object(row, states[row["input_id"]], clips.get(row["input_id"], []))
        for row in sources.to_pylist()
    ]


def _source_object(row: Mapping[str, Any], state: str, clips: list[Facts]) -> Facts:
    codes = [code for clip in clips for code in clip["reason_codes"]]
    reason = row["reason"]
    if clips:  # the policy decides, not what was stored when another one was in force
        reason = max(codes, key=codes.count) if codes and state != "kept" else None
    return {
        "url" if "://" in row["uri"] else "file": row["uri"],
        "input_id": row["input_id"],
        "source_id": row["source_id"],
        "state": state,
        "reason": reason,
        "detail": row["detail"],
        "duplicate_of": row["duplicate_of"],
        "sha256": row["sha256"],
        "duration": row["duration_s"],
        "clips": clips,
    }


def _clip_object(clip: Mapping[str, Any], verdict: Mapping[str, Any]) -> Facts:
    return {
        "clip_id": clip["clip_id"],
        "start": clip["start_s"],
        "end": clip["end_s"],
        "keep": verdict["keep"],
        "state": verdict["state"],
        "reasons": verdict["reasons"],
        "reason_codes": verdict["reason_codes"],
        "flags": verdict["flags"] or [],
        "scores": {name: clip[name] for scores in SCORES.values() for name in scores},
        "families": {family: clip[f"{family}_state"] for family in FAMILIES},
    }


def show_why(dataset: CurationDataset, what: str) -> Facts:
    """Tell where a clip or source came from, what was measured, and why it stayed or went.

    `limits` holds every rule that judges the clip under each policy, `commits` the versions of the
    log with rows of its source; scores and limits are empty for a source.

    Args:
        what: Clip id, source id, input id or file name.

    Raises:
        DatasetError: Nothing in the dataset has that id or name.
    """
    source, clip = _find_subject(dataset, what)
    input_id = source["input_id"]
    clips = dataset.table("clips", ["clip_id", "input_id"])
    own = clips.filter(pc.equal(clips["input_id"], input_id))["clip_id"].to_pylist()
    verdicts = {clip_id: _verdicts(dataset, clip_id) for clip_id in own}
    facts: Facts = {
        "kind": "source",
        "subject": source["source_id"],
        "source": _without(source, "hashes", "motion_signature"),
        "clip": None,
        "scores": {},
        "verdicts": {
            f"{name} {clip_id}": verdicts[clip_id][name]
            for name in dataset.policies()
            for clip_id in own
            if name in verdicts[clip_id]
        },
        "limits": [],
        "commits": [
            entry.version for entry in dataset.snapshot.entries if input_id in entry.inputs
        ],
    }
    if clip is None:
        return facts
    return facts | {
        "kind": "clip",
        "subject": what,
        "clip": _without(clip, "identity_embedding"),
        "scores": {family: {name: clip[name] for name in SCORES[family]} for family in FAMILIES},
        "verdicts": verdicts[what],
        "limits": _limits(clip, [applied_policy(dataset, name) for name in dataset.policies()]),
    }


def _find_subject(dataset: CurationDataset, what: str) -> tuple[Facts, Facts | None]:
    """Return the source, and the clip if it is one, of an id or a name.

    Raises:
        DatasetError: Nothing in the dataset has that id or name.
    """
    clip = None
    input_id: str | None = what
    try:
        clip = dataset.clip(what)
    except DatasetError as error:
        if error.reason != "unknown_clip":
            raise
        names = dataset.table("sources", ["input_id", "source_id", "uri", "file_name"])
        hits = [pc.fill_null(pc.equal(column, what), False) for column in names.columns]  # noqa: FBT003 - Arrow's function
        found = names["input_id"].filter(functools.reduce(pc.or_, hits))
        input_id = found[0].as_py() if len(found) else None
    else:
        input_id = clip["input_id"]
    source = None if input_id is None else dataset.source(input_id)
    if source is None:
        raise DatasetError(
            f"Nothing in {dataset.store} has the id or name {what}.",
            fix=f"See the ids: animaray dataset list {dataset.store}",
            reason="unknown_clip",
        )
    return source, clip


def _without(row: Mapping[str, Any], *hidden: str) -> Facts:
    return {name: value for name, value in row.items() if name not in hidden}


def _verdicts(dataset: CurationDataset, clip_id: str) -> dict[str, Facts]:
    """Return what every applied policy says of a clip, by policy."""
    wanted = ("state", "keep", "reasons", "flags", "policy_fingerprint")
    found = {name: dataset.verdict(name, clip_id) for name in dataset.policies()}
    return {
        policy: {name: row[name] for name in wanted}
        for policy, row in found.items()
        if row is not None
    }


def _limits(clip: Mapping[str, Any], policies: Sequence[Policy]) -> list[Facts]:
    """Return every rule that judges the clip under each policy, in the order of the rules."""
    return [
        {
            "score": rule.score,
            "value": clip[rule.score],
            "threshold": rule.threshold,
            "is_minimum": rule.is_minimum,
            "policy": policy.name,
            "limit": limit,
            "passes": None if clip[rule.score] is None else rule.passes(clip[rule.score], limit),
            "only_flags": rule.only_flags(policy),
        }
        for rule in RULES
        for policy in policies
        if (limit := rule.limit(policy)) is not None and rule.judges(clip["pose_framing"])
    ]


def spell_why(facts: Mapping[str, Any]) -> list[str]:
    """Return what `show_why` found, for a terminal."""
    source, clip = facts["source"], facts["clip"]
    lines = [
        f"{facts['kind']} {facts['subject']}",
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
    if clip is not None:
        lines += [
            f"  span      {clip['start_s']:.3f} to {clip['end_s']:.3f} s, {clip['num_frames']} "
            f"frames of {clip['width']}x{clip['height']}",
            f"  media     {clip['media_file'] or 'not stored: every shipped policy dropped it'}",
        ]
    for family, scores in facts["scores"].items():
        note = f" {clip[f'{family}_note']}" if clip[f"{family}_note"] else ""
        by = f" by {clip[f'{family}_producer']}" if clip[f"{family}_producer"] else ""
        # Of datasets older than the family there is no state.
        lines.append(f"  {family:<9} {clip[f'{family}_state'] or 'not measured'}{note}{by}")
        for name, value in scores.items():
            limits = _spell_limits(row for row in facts["limits"] if row["score"] == name)
            lines.append(f"    {name:<28} {_spell_score(value):<10} {limits}".rstrip())
    for name, verdict in facts["verdicts"].items():
        spelled = spell_reasons(verdict)
        reasons = f": {'; '.join(spelled)}" if spelled else ""
        lines.append(f"  {name:<9} {verdict['state']}{reasons}")
    lines.append(f"  commits   {', '.join(str(version) for version in facts['commits'])}")
    return lines


def _spell_limits(limits: Iterable[Mapping[str, Any]]) -> str:
    """Return the limits of one score under every policy, those that it breaks marked."""
    found = []
    for row in limits:
        sign = ">=" if row["is_minimum"] else "<="
        mark = "" if row["passes"] is not False else " FLAGGED" if row["only_flags"] else " BROKEN"
        found.append(f"{row['policy']} {sign} {row['limit']:g}{mark}")
    return "; ".join(found)


def _spell_score(value: float | int | str | Sequence[float] | None) -> str:
    """Return a score in four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(_spell_score(part) for part in value)
    return "none" if value is None else str(value)
