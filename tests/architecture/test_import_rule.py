"""Hold the import rule: who may import whom, and which third-party names are banned where."""

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli")

MAY_IMPORT = {
    "platform": {"platform"},
    "models": {"models", "platform"},
    "datasets": {"datasets", "platform"},
    "pipelines": {"pipelines", "platform", "datasets", "models"},
    "training": {"training", "platform", "datasets", "models"},
    "serving": {"serving", "platform", "models"},
    "evaluation": {"evaluation", "platform", "datasets", "models"},
    "cli": set(OURS),
}
MODELS_MAY_NAME_OF_PLATFORM = {
    "config", "disk", "errors", "json_text", "media.file_kind", "options", "removal", "storage",
    "terminal", "weights",
}  # fmt: skip
FLOORS: dict[str, tuple[str, ...]] = {
    "platform": (
        "errors json_text packages progress quantities removal terminal",
        "cards disk machine provenance ray_session sandbox setting_values",
        "config options storage",
        "media stores weights",
    ),
    "models": (
        "frames pose", "networks perception", "alignment diffusion", "face", "subjects", "parts",
        "animation", "interop",
    ),
    "models/perception": (
        "checkpoint_files face_alignment onnx_session protocols same_person",
        "decoding face_sampling files find_people", "generated paper permissive",
        "profiles provenance",
    ),
    "datasets": (
        "commit_entries", "commit_history", "commit_log frame_sampling schemas splits",
        "delta_log shard_cache shards table_files writers", "table_rows vacuum",
        "encoded_index reader", "compaction encoded_clips publication world", "windows",
    ),
    "pipelines": (
        "exchange policy stages", "acquire sets", "curation", "curate encode reports",
    ),
    "pipelines/acquire": (
        "addresses config states", "archives download ytdlp", "fetch inputs",
    ),
    "pipelines/curation": (
        "clip_samples config rows summary", "first_look workplace",
        "commit guard inputs shelf", "perception_worker workers",
    ),
    "pipelines/reports": (
        "show validation_media", "card validation",
    ),
    "pipelines/stages": (
        "background clips cut_clip duplicates foreground identify picture pose probe"
        " shot_detection text",
        "faces shots", "camera", "motion",
    ),
    "training": (
        "aligner_pairs batch_order checkpoints cluster_file ema prefetch",
        "animator_batches configs run_folder", "divergence engines", "train_loop", "launch",
        "aligner animator", "memory recipes",
    ),
    "serving": (
        "jobs", "config", "http work", "client serve", "application",
    ),
    "serving/jobs": (
        "limits files options records", "database", "leases", "store",
    ),
    "serving/http": (
        "documents problems tenants", "origins schemas uploads", "service", "events metrics", "app",
    ),
    "serving/work": (
        "heartbeat", "attempt", "worker",
    ),
    "evaluation": (
        "measured_memory metrics table", "evaluate",
    ),
    "cli": (
        "early_checks error_remedies figures options output",
        "animate cache cluster dataset doctor estimate evaluate explain keys"
        " run_curves weights",
        "curate demo jobs runs serve train", "main",
    ),
}  # fmt: skip
"""The rooms of each folder (files, or folders of files), lowest floor first: imports go down."""
BANNED = {
    "platform": {"torch", "deepspeed"},
    "models": {"ray", "pyarrow", "deepspeed", "fastapi"},
    "datasets": {"deepspeed", "fastapi"},
    "pipelines": {"deepspeed", "fastapi"},
    "training": {"fastapi"},
    "serving": {"deepspeed"},
    "evaluation": {"deepspeed", "fastapi"},
    "cli": set(),
}
ONE_OWNER = {
    "yt_dlp": 1,
    "insightface": 1,
    "cotracker": 1,
    "rapidocr": 1,
    "deepspeed": 3,
    "sqlalchemy": 3,
}


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _room(path: str) -> str:
    return path.split("/", maxsplit=1)[0].removesuffix(".py")


@cache  # the tests ask again for every folder and package
def _imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", OURS)
def test_folder_imports_only_what_the_table_allows(folder: str) -> None:
    files = _files(folder)
    assert files, f"{folder}/ has no code"
    for path in files:
        for name in _imported_modules(path):
            parts = name.split(".")
            if parts[0] == "animaray" and len(parts) > 1 and parts[1] in OURS:
                assert parts[1] in MAY_IMPORT[folder], f"{path} imports {name}"
                if (
                    folder == "models"
                    and parts[1] == "platform"
                    and parts[2:] not in ([], ["media"])
                ):
                    named = {parts[2], ".".join(parts[2:4])}
                    assert named & MODELS_MAY_NAME_OF_PLATFORM, f"{path} imports {name}"
            assert parts[0] not in BANNED[folder], f"{path} names {parts[0]}"


def test_no_pair_of_folders_imports_each_other() -> None:
    edges = {
        (folder, name.split(".")[1])
        for folder in OURS
        for path in _files(folder)
        for name in _imported_modules(path)
        if name.startswith("animaray.") and name.split(".")[1] in OURS
    }
    two_way = {(a, b) for a, b in edges if a != b and (b, a) in edges}
    assert not two_way


@pytest.mark.parametrize("folder", FLOORS)
def test_imports_between_rooms_go_down(folder: str) -> None:
    floor_of = {room: floor for floor, row in enumerate(FLOORS[folder]) for room in row.split()}
    prefix = f"animaray/{folder}/"
    arrows = {
        (_room(path.relative_to(ROOT / folder).as_posix()), _room(rest.removeprefix(prefix)))
        for path in _files(folder)
        for name in _imported_modules(path)
        if (rest := name.replace(".", "/")).startswith(prefix)
    }
    rooms = {_room(path.relative_to(ROOT / folder).as_posix()) for path in _files(folder)}
    assert rooms == set(floor_of)
    wrong = {
        (above, below)
        for above, below in arrows
        if below in floor_of and above != below and floor_of[below] >= floor_of[above]
    }
    assert not wrong


@pytest.mark.parametrize("folder", OURS)
def test_no_files_import_each_other_in_a_circle(folder: str) -> None:
    modules = {
        "animaray." + ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in _files(folder)
    }
    graph = {
        module: _imported_modules(path) & set(modules) - {module}
        for module, path in modules.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize(("package", "limit"), ONE_OWNER.items())
def test_third_party_package_has_few_owners(package: str, limit: int) -> None:
    owners = [
        path
        for folder in OURS
        for path in _files(folder)
        if any(name.split(".")[0] == package for name in _imported_modules(path))
    ]
    assert len(owners) <= limit, owners


def test_no_code_folder_is_a_regular_package() -> None:
    found = [path for folder in OURS for path in (ROOT / folder).rglob("__init__.py")]
    assert not found, "an __init__.py here would shadow the standard library's platform"


def test_the_command_line_opens_without_heavy_packages() -> None:
    # Every command pays for what cli/main.py imports: torch alone takes seconds.
    loaded = loaded_by("animaray.cli.main")
    assert not {"torch", "ray", "pyarrow", "cv2", "onnxruntime", "numpy"} & loaded
    assert not {"httpx", "starlette", "fastapi", "sqlalchemy"} & loaded


def test_workers_that_read_videos_load_no_torch() -> None:
    assert "torch" not in loaded_by("animaray.pipelines.curate")


LOAD_SMALL_MODEL = (
    "animaray.models.animation.pipeline as p, animaray.platform.weights.store as s;"
    " p.AnimationPipeline.from_pretrained(s.resolve_weights('generated/animator'))"
)


@pytest.mark.parametrize(
    "module",
    [
        LOAD_SMALL_MODEL,
        "animaray.training.animator, animaray.training.recipes, animaray.training.aligner",
        "animaray.pipelines.encode.encode",
        "animaray.evaluation.evaluate",
        "animaray.serving.work.worker",
        "animaray.serving.serve",
    ],
)
def test_nobody_waits_for_diffusers_and_what_it_brings(module: str) -> None:
    # 1.7 CPU s and 1,900 modules to the small model; with diffusers 4.8 s and 3,600.
    loaded = loaded_by(module)
    assert not {"diffusers", "transformers", "deepspeed", "torch._dynamo", "sympy"} & loaded
    assert len(loaded) < MOST_MODULES


MOST_MODULES = 2600


def loaded_by(module: str) -> set[str]:
    """Return which modules importing ours (one or several, with commas) brings along."""
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return set(done.stdout.split())


def test_standard_library_platform_stays_intact() -> None:
    import platform

    assert platform.system()
    assert Path(platform.__file__).parent != ROOT / "platform"
