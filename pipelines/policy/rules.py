"""The rules of curation: which score a threshold cuts, and what a policy says about clips.

All clips are judged at once, column by column, so that new thresholds on a large dataset take
seconds; one clip is a table of one row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64, Shaped

from animaray.datasets.schemas import FAMILIES
from animaray.pipelines.policy.policies import Policy

FRAMINGS = ("full", "half", "close")

Columns = Mapping[str, Shaped[np.ndarray, " clips"]]
"""Scores as float64 with NaN where a clip has none; states and framing as text, empty where a clip
has none."""
_WORD = "<U12"
"""Longer than any state or framing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One comparison of a score with a threshold."""

    code: str
    """Reason given when it fails, of a closed list."""
    score: str
    """Name of the score."""
    threshold: str
    """Name of the policy's threshold; min_ or max_ says which side fails."""
    framing: str | None = None
    """Only clips of this framing are judged; None for all."""
    is_evidence: bool = False
    """A failure means undetermined, not drop."""

    @property
    def family(self) -> str:
        """Group of scores that must have run."""
        return self.score.split("_", maxsplit=1)[0]

    @property
    def is_minimum(self) -> bool:
        """True when smaller scores fail, False when larger ones do."""
        return self.threshold.startswith("min_")

    def passes(self, value: float | int, limit: float | int) -> bool:
        """Return whether a score is on the good side of a limit, or on it."""
        return value >= limit if self.is_minimum else value <= limit

    def limit(self, policy: Policy) -> float | None:
        """Return the policy's threshold; None when the policy switches the rule off."""
        return getattr(policy, self.threshold)

    def only_flags(self, policy: Policy) -> bool:
        """Return whether clips that break the rule are flagged and not dropped."""
        return self.threshold in policy.only_flag

    def judges(self, framing: str | None) -> bool:
        """Return whether clips of a framing are judged; an unknown framing counts as close."""
        return self.framing is None or self.framing == (
            framing if framing in FRAMINGS else FRAMINGS[-1]
        )

    def judged_clips(self, columns: Columns) -> Bool[np.ndarray, " clips"]:
        """Return which clips are judged; see `judges`."""
        framing = columns["pose_framing"]
        if self.framing is None:
            return np.ones(len(framing), dtype=np.bool_)
        is_own: Bool[np.ndarray, " clips"] = framing == self.framing
        return is_own | ~np.isin(framing, FRAMINGS) if self.framing == FRAMINGS[-1] else is_own


def _rules(text: str) -> tuple[Rule, ...]:
    """Read lines of code, score and threshold; a fourth word is a framing, or says evidence."""
    return tuple(
        Rule(
            code=code,
            score=score,
            threshold=threshold,
            framing=next((word for word in more if word in FRAMINGS), None),
            is_evidence="evidence" in more,
        )
        for code, score, threshold, *more in (line.split() for line in text.strip().splitlines())
    )


RULES = _rules("""
    low_resolution           picture_short_side_px      min_short_side_px
    too_dark                 picture_luminance_p95      min_luminance_p95
    too_bright               picture_luminance_p5       max_luminance_p5
    out_of_focus             picture_sharpness          min_picture_sharpness
    picture_damaged          picture_damaged_share      max_damaged_share
    interlaced               picture_combed_share       max_combed_share
    low_frame_rate           picture_frame_rate_fps     min_frame_rate_fps
    no_face                  face_found_share           min_face_found
    face_too_small           face_size_px               min_face_px
    face_too_small_in_frame  face_size_share            min_face_height_full    full
    face_too_small_in_frame  face_size_share            min_face_height_half    half
    face_too_small_in_frame  face_size_share            min_face_height_close   close
    face_blurred             face_sharpness             min_face_sharpness
    face_turned_away         face_frontal_share         min_face_frontal
    several_faces            face_single_share          min_face_single
    face_cut_off             face_complete_share        min_face_complete
    identity_changes         face_identity_p25          min_identity
    keypoints_missing        pose_missing_share_literal max_pose_missing
    keypoints_missing_strict pose_missing_share_strict  max_pose_missing_strict
    several_people           pose_single_share          min_person_single
    camera_drifts            camera_drift               max_drift
    camera_jumps             camera_jump                max_jump
    camera_shakes            camera_jitter              max_jitter
    camera_zooms             camera_log_zoom            max_log_zoom
    camera_rolls             camera_roll_deg            max_roll_deg
    background_moves         camera_inlier_share        min_rigid
    background_changes       camera_look                max_look
    camera_unclear           camera_num_points          min_points              evidence
    camera_unclear           camera_evidence_share      min_evidence            evidence
    nothing_moves            motion_speed               min_speed
    moves_wildly             motion_speed               max_speed
    nothing_moves            motion_change              min_change
    burned_in_text           text_share                 max_text_share
""")

_TEXT = ("pose_framing", *(f"{family}_state" for family in FAMILIES))
_EXEMPTION = ("camera_still_change", "camera_background_share")
READS = tuple(dict.fromkeys([*_TEXT, *(rule.score for rule in RULES), *_EXEMPTION]))
"""Columns of the clips table that judging needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a policy says about one clip."""

    state: str
    """keep, drop, undetermined (a person must look) or failed (a filter could not run)."""
    reasons: tuple[str, ...]
    """Code, value and threshold of each failed rule, as text."""
    codes: tuple[str, ...]
    """The codes alone, without repetition."""
    flags: tuple[str, ...] = ()
    """What rules that only flag found, in the same form; says nothing against the clip."""
    flag_codes: tuple[str, ...] = ()
    """Their codes alone."""

    @property
    def keep(self) -> bool:
        """True when the clip belongs to the dataset."""
        return self.state == "keep"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a policy says about many clips."""

    states: Shaped[np.ndarray, " clips"]
    """keep, drop, undetermined or failed."""
    failures: tuple[tuple[Rule, float, Bool[np.ndarray, " clips"]], ...]
    """Each active rule, its limit, and the clips that break it."""
    missing: tuple[tuple[str, str, Bool[np.ndarray, " clips"]], ...]
    """State (failed or not_run), family, and the clips where it is so."""
    unseen: tuple[tuple[str, Bool[np.ndarray, " clips"]], ...]
    """Families of rules that only flag, and the clips where they did not run."""
    only_flag: tuple[str, ...]
    """Thresholds of the rules that only flag."""
    columns: Columns
    """The scores that were judged."""

    def verdicts(self) -> list[Verdict]:
        """Return state and reasons of each clip, in order."""
        found = self.spelled()
        return [
            Verdict(
                state=row["state"],
                reasons=tuple(row["reasons"]),
                codes=tuple(row["reason_codes"]),
                flags=tuple(row["flags"]),
                flag_codes=tuple(row["flag_codes"]),
            )
            for row in found.to_pylist()
        ]

    def spelled(self) -> pa.Table:
        """Return the columns of the verdicts table that tell state, reasons and flags."""
        reasons, flags = _Findings(len(self.states)), _Findings(len(self.states))
        is_dropped = self.states == "drop"
        is_failed = self.states == "failed"
        is_undetermined = self.states == "undetermined"
        # A dropped clip is told what dropped it, a failed one what failed and then what did not
        # run, an undetermined one what did not run and then the doubts.
        for state, told in (("failed", is_failed), ("not_run", is_failed | is_undetermined)):
            for name, family, is_missing in self.missing:
                if name == state:
                    reasons.add_word(is_missing & told, f"{family}_{state}")
        for rule, limit, fails in self.failures:
            if rule.threshold in self.only_flag:
                flags.add_rule(fails, rule, limit, self.columns)
            else:
                told = is_undetermined if rule.is_evidence else is_dropped
                reasons.add_rule(fails & told, rule, limit, self.columns)
        for family, is_missing in self.unseen:
            # A clip that is dropped anyhow was often spared the look.
            flags.add_word(is_missing & ~is_dropped, f"{family}_not_run")
        (texts, codes), (flag_texts, flag_codes) = reasons.columns(), flags.columns()
        return pa.table(
            {
                "state": pa.array(self.states.tolist(), type=pa.string()),
                "reasons": texts,
                "reason_codes": codes,
                "flags": flag_texts,
                "flag_codes": flag_codes,
            }
        )


class _Findings:
    """Texts and codes about many clips; those of one clip stay in the order of adding."""

    def __init__(self, num_clips: int) -> None:
        self._num_clips = num_clips
        self._rows: list[Int64[np.ndarray, " found"]] = []
        self._texts: list[str] = []
        self._codes: list[str] = []

    def add_word(self, clips: Bool[np.ndarray, " clips"], code: str) -> None:
        """Say one code of some clips."""
        self._add(clips, code, lambda rows: [code] * len(rows))

    def add_rule(
        self, clips: Bool[np.ndarray, " clips"], rule: Rule, limit: float, columns: Columns
    ) -> None:
        """Say of some clips that they break a rule, with value and limit."""
        sign = "<" if rule.is_minimum else ">"

        def spell(rows: Int64[np.ndarray, " found"]) -> list[str]:
            values = columns[rule.score][rows].tolist()
            return [f"{rule.code} {_shown(value, limit)} {sign} {limit:.3g}" for value in values]

        self._add(clips, rule.code, spell)

    def _add(
        self,
        clips: Bool[np.ndarray, " clips"],
        code: str,
        spell: Callable[[Int64[np.ndarray, " found"]], list[str]],
    ) -> None:
        rows = np.flatnonzero(clips)
        if len(rows):
            self._rows.append(rows)
            self._texts += spell(rows)
            self._codes.append(code)

    def columns(self) -> tuple[pa.ListArray, pa.ListArray]:
        """Return the texts of each clip, and the codes of each clip, each code once."""
        names = list(dict.fromkeys(self._codes))
        lengths = [len(rows) for rows in self._rows]
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *self._rows])
        numbers = [names.index(code) for code in self._codes]
        codes = np.repeat(np.array(numbers, dtype=np.int64), lengths)
        order = np.argsort(rows, kind="stable")
        rows, codes = rows[order], codes[order]
        texts = pa.array(self._texts, type=pa.string()).take(pa.array(order))
        first = np.sort(np.unique(rows * (len(names) + 1) + codes, return_index=True)[1])
        known = pa.array(names, type=pa.string()).take(pa.array(codes[first]))
        return self._lists(rows, texts), self._lists(rows[first], known)

    def _lists(self, rows: Int64[np.ndarray, " found"], values: pa.Array) -> pa.ListArray:
        ends = np.cumsum(np.bincount(rows, minlength=self._num_clips))
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)


def spell_reasons(verdict: Mapping[str, Any]) -> list[str]:
    """Return why a clip is judged so, of a row of the verdicts table, flags after the reasons."""
    # Datasets of schema version 4 know no flags.
    return [*verdict["reasons"], *(f"flag: {text}" for text in verdict["flags"] or ())]


def _shown(value: float, limit: float) -> str:
    """Return a value in as few digits as tell it from the limit."""
    texts = (f"{value:.{digits}g}" for digits in (3, 5, 8, 17))
    return next((text for text in texts if float(text) != float(f"{limit:.3g}")), f"{value:.17g}")


def columns_of_table(clips: pa.Table) -> Columns:
    """Return the columns that judging needs of a clips table."""
    columns: dict[str, Shaped[np.ndarray, " clips"]] = {}
    for name in READS:
        values = clips.column(name)
        if name in _TEXT:
            words = values.combine_chunks().dictionary_encode()
            known = np.array([*words.dictionary.to_pylist(), ""], dtype=_WORD)
            places = words.indices.fill_null(len(known) - 1)
            columns[name] = known[places.to_numpy(zero_copy_only=False)]
        else:
            columns[name] = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return columns


def columns_of_rows(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the columns that judging needs of clips as mappings; what is absent is unknown."""
    columns: dict[str, Shaped[np.ndarray, " clips"]] = {}
    for name in READS:
        values = [row.get(name) for row in rows]
        if name in _TEXT:
            columns[name] = np.array([value or "" for value in values], dtype=_WORD)
        else:
            numbers = [np.nan if value is None else float(value) for value in values]
            columns[name] = np.array(numbers, dtype=np.float64)
    return columns


def judge(scores: Mapping[str, Any], policy: Policy) -> Verdict:
    """Apply a policy to the raw scores and family states of one clip.

    Args:
        scores: Columns of the clips table: scores, `<family>_state`.
    """
    return judge_columns(columns_of_rows([scores]), policy).verdicts()[0]


def judge_columns(columns: Columns, policy: Policy) -> Judgement:
    """Apply a policy to the raw scores and family states of many clips.

    A score that has no meaning for a clip (the size of a face that is not there) is not judged.
    Drop outweighs failed, failed outweighs undetermined. A family that did not run matters only
    where the policy has a rule on it, and where that rule only flags, it is a flag, too: what was
    not measured is never taken for good.
    """
    states = {family: columns[f"{family}_state"] for family in FAMILIES}
    failed = {family: state == "failed" for family, state in states.items()}
    has_run = {
        family: (state == "ok") | (state == "undetermined") for family, state in states.items()
    }

    # Each rule over all clips at once; rules judge what was measured, and the camera only where the
    # background moved.
    still = _has_still_background(columns, policy)
    failures = []
    for rule in RULES:
        limit = rule.limit(policy)
        if limit is None:
            continue
        values = columns[rule.score]
        fails = (values < limit) if rule.is_minimum else (values > limit)
        fails &= has_run[rule.family]
        if rule.framing is not None:
            fails &= rule.judged_clips(columns)
        if rule.family == "camera":
            fails &= ~still
        failures.append((rule, limit, fails))

    # What a rule would have judged and nobody measured.
    judged = {rule.family for rule, _, _ in failures if not rule.only_flags(policy)}
    flagged = {rule.family for rule, _, _ in failures} - judged
    missing = [("failed", family, failed[family]) for family in FAMILIES]
    missing += [
        ("not_run", family, ~has_run[family] & ~failed[family])
        for family in FAMILIES
        if family in judged
    ]

    # A drop outweighs a failure, a failure a doubt.
    count = len(still)
    telling = [(rule, fails) for rule, _, fails in failures if not rule.only_flags(policy)]
    drops = _any((fails for rule, fails in telling if not rule.is_evidence), count)
    doubts = _any((fails for rule, fails in telling if rule.is_evidence), count)
    doubts |= _any((is_missing for state, _, is_missing in missing if state == "not_run"), count)
    broken = _any(failed.values(), count)
    verdicts = np.full(count, "keep", dtype=_WORD)
    verdicts[doubts] = "undetermined"
    verdicts[broken] = "failed"
    verdicts[drops] = "drop"
    return Judgement(
        states=verdicts,
        failures=tuple(failures),
        missing=tuple(missing),
        unseen=tuple(
            (family, ~has_run[family] & ~failed[family]) for family in FAMILIES if family in flagged
        ),
        only_flag=policy.only_flag,
        columns=columns,
    )


def _any(masks: Iterable[Bool[np.ndarray, " clips"]], count: int) -> Bool[np.ndarray, " clips"]:
    found = np.zeros(count, dtype=np.bool_)
    for mask in masks:
        found |= mask
    return found


def _has_still_background(columns: Columns, policy: Policy) -> Bool[np.ndarray, " clips"]:
    """Return where too little can be followed because a wall stays as it is."""
    points, evidence = columns["camera_num_points"], columns["camera_evidence_share"]
    nothing: Float64[np.ndarray, " clips"] = np.full(len(points), np.nan)
    few = points < policy.min_points if policy.min_points is not None else nothing > 0
    few |= evidence < policy.min_evidence if policy.min_evidence is not None else nothing > 0
    few &= ~np.isnan(points) & ~np.isnan(evidence)
    if policy.max_still_change is None or policy.min_background_share is None:
        return nothing > 0
    return (
        few
        & (columns["camera_still_change"] <= policy.max_still_change)
        & (columns["camera_background_share"] >= policy.min_background_share)
    )
