"""Policies: named thresholds on raw scores, as small files with a hash.

Scores never depend on a policy, so new thresholds mean new verdicts without running a model. The
shipped files are in files/; docs/decisions/0003-standard-policy.md says where the thresholds of
"standard" come from.
"""

import functools
import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from animaray.platform.config import (
    config_from_dict,
    config_to_dict,
    fingerprint_of_dict,
    read_settings_file,
)
from animaray.platform.errors import ConfigError
from animaray.platform.storage import write_bytes_atomic

POLICY_FILES_DIR = Path(__file__).parent / "files"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_WORDS = ("name", "description", "base", "only_flag")
_YOUNG: dict[str, object] = {
    "max_combed_share": None, "min_frame_rate_fps": None, "max_text_share": None, "only_flag": [],
}  # fmt: skip
"""Settings that policies of older versions know nothing of, and what stands for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Thresholds of one policy; None switches a rule off.

    Lengths of the camera are in units of the picture's short side.
    """

    name: str
    """Also the folder of its verdicts."""
    description: str = ""
    """What it is for; not part of the fingerprint."""
    min_short_side_px: float | None
    """Smallest picture, pixels."""
    min_luminance_p95: float | None
    """The brightest 5 % of a frame are at least this bright, 0 to 255."""
    max_luminance_p5: float | None
    """The darkest 5 % of a frame are at most this bright, 0 to 255."""
    min_picture_sharpness: float | None
    """Least Laplacian variance of the whole picture at 360 px."""
    max_damaged_share: float | None
    """Share of frames that the decoder may have marked as damaged."""
    max_combed_share: float | None
    """Share of moving pixels that may show the combs of interlacing."""
    min_frame_rate_fps: float | None
    """Fewest frames a second: below it motion is a row of stills."""
    min_face_found: float | None
    """Share of sampled frames with a face."""
    min_face_px: float | None
    """Median short side of the face's box in the clip, pixels."""
    min_face_height_full: float | None
    """And as a share of the frame's height when the whole body shows (48 of 1024 px)."""
    min_face_height_half: float | None
    """When the body shows down to the hips (96 of 1024 px)."""
    min_face_height_close: float | None
    """When it shows head and shoulders (160 of 1024 px)."""
    min_face_sharpness: float | None
    """Laplacian variance of the aligned face, 25th percentile, 0 to a few thousand."""
    min_face_frontal: float | None
    """Share of faces within 60 degrees of yaw and 40 of pitch."""
    min_face_single: float | None
    """Share of frames with exactly one dominant face."""
    min_face_complete: float | None
    """Share of faces with all five landmarks inside the frame."""
    min_identity: float | None
    """25th percentile of the cosine of frontal faces to the most typical of them."""
    max_pose_missing: float | None
    """Share of frames with more than 70 % of the keypoints missing (literal reading)."""
    max_pose_missing_strict: float | None
    """Share of frames with fewer than 70 % of the keypoints visible (strict reading)."""
    min_person_single: float | None
    """Share of frames without a second person of half the main person's height."""
    max_drift: float | None
    """Farthest way of a corner from the clip's start."""
    max_jump: float | None
    """Largest corner step between two samples."""
    max_jitter: float | None
    """99th percentile of the corners' second difference."""
    max_log_zoom: float | None
    """Largest change of scale, natural logarithm."""
    max_roll_deg: float | None
    """Largest turn, degrees."""
    min_rigid: float | None
    """Median share of background points that move as one."""
    max_look: float | None
    """95th percentile of the background's change of luminance, of 1."""
    min_points: float | None
    """Background points that are usable in 95 % of the samples; with fewer the camera is
    undetermined, which is never kept."""
    min_evidence: float | None
    """Share of samples in which the background could be followed; else as above."""
    max_still_change: float | None
    """A background without points to follow stands still when its luminance, as it is, changes by
    at most this much (of 1)."""
    min_background_share: float | None
    """And when it is at least this share of the picture."""
    min_speed: float | None
    """Least median speed of the keypoints, body heights per second."""
    max_speed: float | None
    """Largest."""
    min_change: float | None
    """Least change of luminance inside the person's box over half a second, of 1."""
    max_text_share: float | None
    """Share of the picture that burned-in text may cover: captions, watermarks."""
    only_flag: tuple[str, ...] = ()
    """Names of thresholds whose rules mark a clip, for a person or a filter, and never drop it."""

    def __post_init__(self) -> None:
        """Check name and thresholds.

        Raises:
            ConfigError: The name cannot be a folder's name, or a threshold is not finite.
        """
        for name in THRESHOLDS:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ConfigError(
                    f"Threshold `{name}` of policy {self.name} is {value}.",
                    fix="Give a number, or null to switch the rule off.",
                )
        if unknown := sorted(set(self.only_flag) - set(THRESHOLDS)):
            raise ConfigError(
                f"only_flag of policy {self.name} names `{unknown[0]}`, which is no threshold.",
                fix=f"Known: {', '.join(THRESHOLDS)}.",
            )
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"Expected a policy name of a-z, 0-9, - and _, got `{self.name}`.",
                fix="It names the folder of the verdicts.",
            )


THRESHOLDS = tuple(field.name for field in fields(Policy) if field.name not in _WORDS)
"""Names of all thresholds, in the order of the files."""


def read_policy(file: Path | str) -> Policy:
    """Read a policy file: YAML or JSON with `name` and thresholds.

    A threshold of null switches its rule off. A file may name a shipped policy as its `base` and
    then hold only what differs; without a base every threshold must be there.

    Raises:
        ConfigError: The file cannot be read, a threshold is unknown, missing or no number, or the
            name is that of a shipped policy with other thresholds.
    """
    file = Path(file)
    policy = _policy_of(read_settings_file(file), str(file))
    shipped = POLICIES.get(policy.name)
    if shipped is not None and policy_fingerprint(shipped) != policy_fingerprint(policy):
        raise ConfigError(
            f"{file} changes thresholds but calls itself `{policy.name}`, which is shipped.",
            fix="Give it a name of its own.",
        )
    return policy


def write_policy(file: Path | str, policy: Policy) -> None:
    """Write a policy with all its thresholds as YAML, atomically."""
    note = "# A threshold of null switches its rule off. See: animaray curate tune\n"
    data = config_to_dict(policy)
    if not policy.description:
        data.pop("description")
    text = note + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=95)
    write_bytes_atomic(Path(file), text.encode())


def find_policy(policy: str | Path | Policy) -> Policy:
    """Return a policy by name or file, or the policy itself.

    Raises:
        ConfigError: There is no such name, or the file is wrong.
    """
    if isinstance(policy, Policy):
        return policy
    text = str(policy)
    if text in POLICIES:
        return POLICIES[text]
    if Path(text).suffix in {".yaml", ".yml", ".json"}:
        return read_policy(text)
    raise ConfigError(
        f"Unknown policy `{text}`; known are {', '.join(POLICIES)}.",
        fix="Or give a policy file of your own, ending in .yaml or .json.",
    )


def policies_of_run(policy: str | Path | Policy) -> tuple[Policy, ...]:
    """Return the policies that a run judges clips by: its own first, then the other shipped ones.

    See `find_policy`.
    """
    own = find_policy(policy)
    return (own, *(shipped for shipped in POLICIES.values() if shipped.name != own.name))


@functools.lru_cache(maxsize=256)  # once per clip and policy otherwise: half of a commit's time
def policy_fingerprint(policy: Policy) -> str:
    """Return 16 hexadecimal digits that change with any threshold, but not with the name.

    A younger rule that is switched off changes nothing: verdicts of an older version stay true.
    """
    data = config_to_dict(replace(policy, name="any", description=""))
    known = {name: v for name, v in data.items() if name not in _YOUNG or v != _YOUNG[name]}
    return fingerprint_of_dict(known)


def policy_from_dict(data: dict[str, Any], origin: str) -> Policy:
    """Return the policy that `config_to_dict` turned into plain data, of an older version, too.

    Raises:
        ConfigError: A threshold is unknown, missing or no number.
    """
    return _policy_of({**_YOUNG, **data}, origin)


def _policy_of(data: dict[str, Any], origin: str) -> Policy:
    data = dict(data)
    base = data.pop("base", None)
    if base is not None:
        if base not in POLICIES:
            raise ConfigError(
                f"{origin} builds on `{base}`, which is none of {', '.join(POLICIES)}."
            )
        data = {**config_to_dict(POLICIES[base]), "name": None, "description": "", **data}
    if not data.get("name"):
        raise ConfigError(f"{origin} gives the policy no `name`.")
    missing = [name for name in THRESHOLDS if name not in data]
    known = set(data) <= {*THRESHOLDS, *_WORDS}
    if missing and known:
        raise ConfigError(
            f"{origin} lacks {len(missing)} of {len(THRESHOLDS)} thresholds, first `{missing[0]}`.",
            fix="Add `base: standard` to hold only what differs, or null to switch a rule off.",
        )
    return config_from_dict(Policy, data, origin)


def _shipped() -> dict[str, Policy]:
    names = ("strict", "standard", "lax", "literal-paper")
    files = {name: POLICY_FILES_DIR / f"{name}.yaml" for name in names}
    return {name: _policy_of(read_settings_file(file), str(file)) for name, file in files.items()}


POLICIES = _shipped()
STRICT, STANDARD, LAX = (POLICIES[name] for name in ("strict", "standard", "lax"))
