"""Verify that our modules give what the authors' gave: every golden vector of a folder.

report = verify(Path("tests/golden"))
report.passed, report.checks, report.errors
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from animaray.platform.errors import AnimarayError, DatasetError, UsageError
from benchmarks.golden.face_optimization import run_hjb_step
from benchmarks.golden.key_tables import check_key_table, is_key_table
from benchmarks.golden.networks import (
    run_face_encoder,
    run_identity_adapter,
    run_pose_net,
    run_residual_block,
    run_self_attention,
    run_unet,
)
from benchmarks.golden.pipeline import run_pipeline
from benchmarks.golden.preprocessing import (
    run_clip_preprocess,
    run_dwpose_post,
    run_pose_align_draw,
)
from benchmarks.golden.sampling import run_euler_step, run_tile_blend
from benchmarks.golden.training import (
    run_dataset_sampling,
    run_face_mask,
    run_sigma_sampling,
    run_train_loss,
)
from benchmarks.golden.vectors import CONFIG_FILE, Check, GoldenVector, read_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of golden vector."""

    name: str
    """Usual name of the folder."""
    module: str
    """Pattern of the setting `module`, which says what the authors ran."""
    run: Callable[[GoldenVector], None]
    """Compares everything in a folder."""


KINDS = (
    Kind(name="pose_net", module=r"PoseNet", run=run_pose_net),
    Kind(name="face_encoder", module=r"FusionFaceId", run=run_face_encoder),
    Kind(name="id_adapter", module=r".*AnimationIDAttn.*", run=run_identity_adapter),
    Kind(name="self_attn", module=r".*AnimationAttnProcessor.*", run=run_self_attention),
    Kind(name="unet", module=r"UNetSpatioTemporal.*", run=run_unet),
    Kind(name="train_loss", module=r"one training step.*", run=run_train_loss),
    Kind(name="sigma_sampling", module=r"rand_cosine_interpolated", run=run_sigma_sampling),
    Kind(name="hjb_step", module=r"Euler.*refine_face.*", run=run_hjb_step),
    Kind(name="euler_step", module=r"EulerDiscreteSchedulerPro.*", run=run_euler_step),
    Kind(name="pipeline", module=r"InferenceAnimationPipeline.*", run=run_pipeline),
    Kind(name="tile_blend", module=r"tile index.*", run=run_tile_blend),
    Kind(name="pose_align_draw", module=r"get_video_pose.*", run=run_pose_align_draw),
    Kind(name="dwpose_post", module=r"DWPose.*", run=run_dwpose_post),
    Kind(
        name="dataset_sampling",
        module=r"LargeScaleAnimationVideos.*",
        run=run_dataset_sampling,
    ),
    Kind(name="face_mask", module=r"face_mask_extraction.*", run=run_face_mask),
    Kind(
        name="iresnet_block",
        module=r".*IResNet residual block.*|IBasicBlock.*",
        run=run_residual_block,
    ),
    Kind(name="clip_preprocess", module=r".*resize.*CLIP normalisation.*", run=run_clip_preprocess),
)
"""All kinds; the first whose folder name or module fits runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenReport:
    """What `verify` found."""

    checks: Sequence[Check]
    """Every comparison, folder by folder; of a folder that ends early, those until then."""
    errors: Sequence[AnimarayError]
    """Folders that could not be run to their end: unknown, broken or incomplete."""
    unreached: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Tensors of such folders that nothing was compared with yet, by folder."""

    @property
    def passed(self) -> bool:
        """Whether everything ran and every comparison holds."""
        return not self.errors and all(check.passed for check in self.checks)


def verify(folder: Path, on_vector: Callable[[str], None] | None = None) -> GoldenReport:
    """Run every golden vector and key table of a folder, or the one vector that it is.

    A folder that cannot be run becomes one of the report's errors, and the others still run.

    Args:
        folder: Holds folders of vectors and `keys_*.json`, or is a vector itself.
        on_vector: Called with the name of each before it runs.

    Raises:
        UsageError: There is no such folder, or it holds no vector.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", fix="Give a folder of golden vectors.")
    if (folder / CONFIG_FILE).exists():
        parts = [folder]
    else:
        parts = [part for part in sorted(folder.iterdir()) if _is_part(part)]
    if not parts:
        raise UsageError(
            f"{folder} holds no golden vector.",
            fix=f"Give a folder whose folders hold {CONFIG_FILE}, or one of these.",
        )
    reports = []
    for part in parts:
        if on_vector is not None:
            on_vector(part.name)
        reports.append(_verify_table(part) if part.is_file() else verify_vector(part))
    return GoldenReport(
        checks=[check for report in reports for check in report.checks],
        errors=[error for report in reports for error in report.errors],
        unreached={name: rows for report in reports for name, rows in report.unreached.items()},
    )


def verify_vector(folder: Path) -> GoldenReport:
    """Run one folder.

    An unknown kind, a missing or broken file, and settings that our modules cannot be built from
    become the report's error; what was compared until then is kept.
    """
    try:
        kind = kind_of(folder)
        vector = GoldenVector(folder)
    except AnimarayError as error:
        return GoldenReport(checks=[], errors=[error])
    try:
        _run(kind, vector)
    except AnimarayError as error:
        unreached = {vector.name: vector.unused()} if vector.checks else {}
        return GoldenReport(checks=vector.checks, errors=[error], unreached=unreached)
    return GoldenReport(checks=vector.checks, errors=[])


def _run(kind: Kind, vector: GoldenVector) -> None:
    """Compare everything in a folder; what settings do not fit ends in DatasetError."""
    try:
        # The seeds are only for networks whose weights the vector fills in anyway.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(0)
            kind.run(vector)
    except _FOREIGN_ERRORS as error:
        said = " ".join(str(error).split())[:300]
        raise vector.broken(f"running it ends in {type(error).__name__}: {said}") from error
    vector.close_books()
    if not vector.checks:
        raise vector.broken("there is nothing to compare in it")


_FOREIGN_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    OSError,
    StopIteration,
)
"""What settings that do not fit each other end in."""


def _verify_table(path: Path) -> GoldenReport:
    try:
        return GoldenReport(checks=verify_key_table(path), errors=[])
    except AnimarayError as error:
        return GoldenReport(checks=[], errors=[error])


def verify_key_table(path: Path) -> list[Check]:
    """Compare a `keys_*.json` with our full-size module's keys and shapes.

    Raises:
        DatasetError: The file is broken.
    """
    return check_key_table(path, read_json(path))


def kind_of(folder: Path) -> Kind:
    """Return the kind of a folder, by its name (`unet`, `unet_2`) or else by its `module`.

    Raises:
        DatasetError: It is none that we know.
    """
    module = str(read_json(folder / CONFIG_FILE).get("module", ""))
    for kind in KINDS:
        if folder.name == kind.name or re.fullmatch(kind.module, module, re.DOTALL):
            return kind
    for kind in sorted(KINDS, key=lambda kind: -len(kind.name)):
        if re.fullmatch(rf"{kind.name}[^a-z].*", folder.name):
            return kind
    raise DatasetError(
        f"Golden vector {folder}: its kind is unknown (`module` is {module!r}).",
        fix=f"Known kinds: {', '.join(kind.name for kind in KINDS)}.",
        reason="golden_vector",
    )


def _is_part(path: Path) -> bool:
    return is_key_table(path) or (path.is_dir() and not path.name.startswith("."))
