"""The demo's chain, one function per step; each finds what an earlier start finished."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from animaray.cli.demo.choice import ClipFacts, Pair, choose_pair, clip_facts, find_photo, group_identities
from animaray.cli.demo.run import DemoRun
from animaray.datasets.reader import CurationDataset
from animaray.datasets.world.library import write_world
from animaray.evaluation.evaluate import EvaluateConfig, EvaluationTable, evaluate
from animaray.evaluation.metrics import embed_largest_faces, identity_similarity
from animaray.models.perception.profiles import load_perception
from animaray.pipelines.curate import CurationSummary
from animaray.pipelines.encode.encode import encode_dataset
from animaray.pipelines.encode.config import encode_recipe
from animaray.pipelines.stages.camera import CameraConfig
from animaray.pipelines.stages.text import TextConfig
from animaray.platform.errors import UsageError
from animaray.platform.machine import find_free_port
from animaray.platform.media.picture import read_picture, write_png
from animaray.platform.removal import remove_own
from animaray.platform.storage import sha256_file
from animaray.platform.media.video import decode_video, write_mp4
from animaray.serving.client import AnimarayClient
from animaray.serving.http.documents import AnimationDocument
from animaray.serving.config import ServeConfig
from animaray.serving.serve import start_server
from animaray.training.aligner import train_aligner
from animaray.training.animator import train_animator
from animaray.training.launch import TrainResult
from animaray.training.recipes import (
    aligner_demo_cpu,
    animator_demo_cpu,
    animator_permissive_cpu,
)

DRIVING_FPS = 8.0
_RENDERED = re.compile(r"clip_\d{4}\.(mp4|truth\.json)|\.clip_\d{4}\..+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainResult:
    """What the page shows."""

    summary: CurationSummary
    aligner: TrainResult
    animator: TrainResult
    pair: Pair
    reference: Path
    driving: Path
    result: Path
    result_without: Path
    identities: dict[str, list[float]]
    """Per person: CSIM of the result with and without face optimization."""
    right_person: str
    evaluation: EvaluationTable
    transcript: list[str]


def run_chain(run: DemoRun) -> ChainResult:
    """Run every step in order."""
    settings = run.settings
    _videos(run)
    # Drawn people have large heads and drawn walls few corners: half the cell, four times the
    # points on what is left of the background.
    camera = CameraConfig(cell_px=8) if settings.profile == "generated" else CameraConfig()
    summary = run.curate(camera=camera, text=TextConfig(look="always"))
    _encode(run)
    aligner = _train_aligner(run)
    animator = _train_animator(run, aligner)
    dataset = CurationDataset.open(settings.dataset_dir)
    clip_ids = dataset.clip_ids(policy="standard", keep=True)
    facts = [fact for clip_id in clip_ids if (fact := clip_facts(dataset, clip_id)) is not None]
    pair = choose_pair(facts)
    reference, driving = _job_inputs(run, dataset, pair)
    results, transcript = _jobs(run, animator.weights_dir, reference, driving)
    identities, right = _identities(run, facts, pair, reference, results)
    return ChainResult(
        summary=summary,
        aligner=aligner,
        animator=animator,
        pair=pair,
        reference=reference,
        driving=driving,
        result=results[0],
        result_without=results[1],
        identities=identities,
        right_person=right,
        evaluation=_evaluate(run, animator.weights_dir),
        transcript=transcript,
    )


def _videos(run: DemoRun) -> None:
    settings = run.settings
    with run.step("videos", "source videos") as record:
        if settings.videos is not None:
            count = sum(path.is_file() for path in settings.videos.iterdir())
            record["note"] = f"{count} files in {settings.videos}"
            return
        marker = settings.videos_dir / ".complete"
        if marker.is_file():
            record["found"] = True
        else:
            _clear_videos(settings.videos_dir)
            write_world(settings.videos_dir, num_videos=settings.num_videos, seed=settings.seed)
            marker.touch()
        count = len(list(settings.videos_dir.glob("*.mp4")))
        record["note"] = f"{count} rendered videos of generated people in {settings.videos_dir}"


def _clear_videos(folder: Path) -> None:
    """Remove what a stopped start rendered; other files are not ours to remove or to curate.

    Raises:
        UsageError: There are other files.
    """
    remove_own(folder, _RENDERED, "a stopped start of the demo rendered it")
    if folder.is_dir() and (others := sorted(path.name for path in folder.iterdir())):
        raise UsageError(
            f"{folder} holds what the demo did not make: {', '.join(others[:3])}.",
            fix=f"Show it your videos with --videos {folder}, or name another --out.",
        )


def _encode(run: DemoRun) -> None:
    settings = run.settings
    with run.step("encode", "encode clips for training") as record:
        recipe = encode_recipe(settings.profile)
        encoded = encode_dataset(replace(recipe, data_dir=str(settings.dataset_dir)))
        record |= {"note": encoded.one_line(), "found": encoded.num_encoded == 0}


def _train_aligner(run: DemoRun) -> TrainResult:
    config = replace(
        aligner_demo_cpu(),
        data_dir=str(run.settings.dataset_dir),
        run_dir=str(run.settings.aligner_dir),
    )
    with run.step("aligner", "train the pose aligner with Ray Train") as record:
        return _noted(record, train_aligner(config))


def _train_animator(run: DemoRun, aligner: TrainResult) -> TrainResult:
    settings = run.settings
    is_drawn = settings.profile == "generated"
    recipe = animator_demo_cpu() if is_drawn else animator_permissive_cpu()
    config = replace(
        recipe,
        data_dir=str(settings.dataset_dir),
        run_dir=str(settings.animator_dir),
        aligner_weights=str(aligner.weights_dir),
        loop=replace(recipe.loop, max_minutes=settings.train_minutes),
    )
    with run.step("animator", "train the animator with Ray Train and DeepSpeed") as record:
        return _noted(record, train_animator(config))


def _noted(record: dict[str, Any], result: TrainResult) -> TrainResult:
    record |= {"note": result.found, "found": "finished before" in result.found}
    return result


def _job_inputs(run: DemoRun, dataset: CurationDataset, pair: Pair) -> tuple[Path, Path]:
    settings = run.settings
    settings.media_dir.mkdir(parents=True, exist_ok=True)
    driving = settings.media_dir / "driving.mp4"
    decoded = dataset.decode_clip(
        pair.driving.clip_id, fps=DRIVING_FPS, max_frames=settings.max_frames
    )
    write_mp4(driving, decoded.frames_uint8, fps=DRIVING_FPS)
    reference = settings.media_dir / "reference.png"
    photo = settings.image
    if photo is None and settings.videos is not None:
        photo = find_photo(settings.videos, settings.profile)
    if photo is not None:
        write_png(reference, read_picture(photo))
    else:
        frames = dataset.decode_clip(pair.reference.clip_id).frames_uint8
        write_png(reference, frames[min(pair.reference.best_frame, len(frames) - 1)])
    return reference, driving


def _jobs(
    run: DemoRun, weights: Path, reference: Path, driving: Path
) -> tuple[list[Path], list[str]]:
    settings = run.settings
    paths = [settings.media_dir / "result.mp4", settings.media_dir / "result_without.mp4"]
    key = "-".join(sha256_file(path)[:12] for path in (reference, driving))
    key += f"-{sha256_file(weights / 'unet' / 'diffusion_pytorch_model.safetensors')[:12]}"
    with run.step("jobs", "serve with Ray Serve, one HTTP job with and one without") as record:
        server = start_server(
            ServeConfig(weights_dir=weights, port=find_free_port(), data_dir=settings.serving_dir)
        )
        transcript = []
        try:
            with AnimarayClient(server.url) as client:
                for path, optimize in zip(paths, (True, False), strict=True):
                    job = client.submit(
                        reference,
                        driving,
                        idempotency_key=f"{key}-{optimize}",
                        seed=settings.seed,
                        face_optimization=optimize,
                    )
                    transcript.append(f"POST {server.url}/v1/animations -> 202, job {job.id}")
                    status = job.wait()
                    transcript.append(f"GET  /v1/animations/{job.id} -> {_state(status)}")
                    job.save(path)
                    transcript.append(f"GET  /v1/animations/{job.id}/content -> {path.name}")
        finally:
            server.stop()
        record["note"] = f"{len(paths)} jobs succeeded"
    return paths, transcript


def _state(status: AnimationDocument) -> str:
    seconds = (status.finished_s or 0.0) - (status.started_s or 0.0)
    return f"{status.state} after {seconds:.0f} s"


def _identities(
    run: DemoRun, facts: list[ClipFacts], pair: Pair, reference: Path, results: list[Path]
) -> tuple[dict[str, list[float]], str]:
    perception = load_perception(run.settings.profile)
    groups = group_identities(facts)
    means = {
        name: np.mean([fact.identity for fact in members], axis=0)
        for name, members in groups.items()
    }
    picture = read_picture(reference)
    faces = perception.face_detector.detect(picture)
    own = perception.identity_embedder.embed(picture, faces[0].landmarks)
    right = next(
        (name for name, members in groups.items() if pair.reference in members), "reference"
    )
    if run.settings.videos is not None:
        right = "reference"
    means[right] = own
    table: dict[str, list[float]] = {}
    for path in results:
        embeddings = embed_largest_faces(decode_video(path).frames_uint8, perception)
        for name, mean in means.items():
            similarity = identity_similarity(embeddings, mean.astype(np.float32))
            table.setdefault(name, []).append(similarity.mean)
    run.facts["csim"] = {name: values[0] for name, values in table.items()}
    run.facts["csim_without_face_optimization"] = {n: values[1] for n, values in table.items()}
    run.facts["right_person"] = right
    return table, right


def _evaluate(run: DemoRun, weights: Path) -> EvaluationTable:
    settings = run.settings
    with run.step("evaluate", "evaluate on held-out clips") as record:
        table = evaluate(
            EvaluateConfig(
                data_dir=str(settings.dataset_dir),
                weights_dir=weights,
                out_dir=settings.evaluation_dir,
                limit=2,
                max_frames=8,
                num_inference_steps=12,
            )
        )
        record["note"] = table.one_line()
    return table
