"""A dataset in an object store is encoded, trained on and evaluated as one in a folder."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import EncodedClip, EncodedClips, open_encoded_clips
from animaray.datasets.encoded_index import EncodedCommits, Shelved
from animaray.datasets.reader import CurationDataset
from animaray.evaluation.evaluate import EvaluateConfig, evaluate_pipeline
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.pipelines.curation.guard import MAX_WORKER_DEATHS
from animaray.pipelines.curation.workplace import Marks
from animaray.pipelines.encode.config import EncodeConfig
from animaray.pipelines.encode.encode import encode_dataset, make_encoder_id, missing_clips
from animaray.pipelines.encode.encode_worker import EncodeTask, EncodeWorker
from animaray.platform.progress import StageProgress
from animaray.platform.stores import LocalStore, open_store
from animaray.training.animator import AnimatorTask, open_table, train_animator
from animaray.training.configs import AnimatorTrainingConfig
from animaray.training.recipes import animator_tiny_cpu
from tests.faults.s3_server import S3Server

CLIPS = ["clip_anna", "clip_bert"]


def upload(folder: Path, address: str) -> str:
    """Copy a dataset folder into an object store."""
    store = open_store(address)
    for file in LocalStore(folder).files():
        store.write(file.path, (folder / file.path).read_bytes())
    return address


def _settings(address: str) -> EncodeConfig:
    return EncodeConfig(
        data_dir=address,
        profile="generated",
        width_px=64,
        height_px=64,
        num_workers=1,
        clips_per_shard=1,
    )


def _encode_here(root: Path) -> EncodedClips:
    """Encode in this process, as a worker does."""
    config = _settings(str(root))
    dataset = CurationDataset.open(root)
    encoder_id = make_encoder_id(config)
    task = EncodeTask(config=config, encoder_id=encoder_id, token="")
    missing = missing_clips(dataset, encoder_id, CLIPS)
    shelved = EncodeWorker(task)(missing)
    commits = EncodedCommits(CommitLog(root), encoder_id)
    commits.commit(Shelved.from_table(shelved, encoder_id))
    return open_encoded_clips(root)


@pytest.fixture(scope="module")
def local(
    dataset_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EncodedClips]:
    """Return a folder with the dataset, encoded."""
    root = tmp_path_factory.mktemp("local") / "dataset"
    for file in LocalStore(dataset_root).files():
        LocalStore(root).write(file.path, (dataset_root / file.path).read_bytes())
    return root, _encode_here(root)


def _training(address: str, run_dir: Path) -> AnimatorTrainingConfig:
    tiny, recipe = AnimatorConfig.tiny(), animator_tiny_cpu()
    animator = replace(
        tiny,
        unet=replace(tiny.unet, cross_attention_dim=256),
        face_encoder=replace(
            tiny.face_encoder, identity_dim=128, image_embedding_dim=256, cross_attention_dim=256
        ),
        width_px=64,
        height_px=64,
    )
    return replace(
        recipe,
        data_dir=address,
        run_dir=str(run_dir),
        shard_cache_dir=str(run_dir.parent / "shards"),
        animator=animator,
        held_out_share=None,
        window=replace(recipe.window, num_frames=3, mirror_probability=0.0),
        loop=replace(recipe.loop, num_steps=2),
        scale=replace(recipe.scale, num_workers=1, strategy="ddp"),
    )


def _assert_same(ours: EncodedClip, theirs: EncodedClip) -> None:
    for name in EncodedClip.__slots__:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


class _RestartsTheServer(StageProgress):
    """Kills the server when the first clip is acknowledged, and starts it again a little later."""

    def __init__(self, server: S3Server, address: str) -> None:
        super().__init__("encode", None)
        self._server, self._address = server, address
        self.acknowledged: list[str] = []

    def advance(self, count: int = 1, note: str | None = None) -> None:
        super().advance(count, note)
        if not self.acknowledged:
            self.acknowledged = open_encoded_clips(self._address).clip_ids
            self._server.kill()
            threading.Timer(3.0, self._server.start).start()


def test_a_clip_that_killed_three_workers_is_given_up(local: tuple[Path, EncodedClips]) -> None:
    root, _ = local
    marks = Marks()
    for _ in range(MAX_WORKER_DEATHS):
        marks.begin("clip_anna.fit")
    task = EncodeTask(config=_settings(str(root)), encoder_id="other", token="", marks=marks)
    clips = missing_clips(CurationDataset.open(root), "other", CLIPS)
    shelved = Shelved.from_table(EncodeWorker(task)(clips), "other")
    why = "It was given up: the worker died or stood still 3 times on this clip."
    assert shelved.skipped() == {"clip_anna": why}
    assert shelved.rows["path"].to_pylist().count(None) == 1
    assert [file.rows for file in shelved.files] == [1]


@pytest.mark.ray
def test_a_dataset_in_a_store_is_used_as_one_in_a_folder(
    local: tuple[Path, EncodedClips],
    s3_server: S3Server,
    s3_folder: str,
    dataset_root: Path,
    pipeline: AnimationPipeline,
    tmp_path: Path,
    local_ray: None,
) -> None:
    address = upload(dataset_root, s3_folder)

    # Encoded while the store is killed and comes back: what was acknowledged is there, once.
    row = _RestartsTheServer(s3_server, address)
    summary = encode_dataset(_settings(address), row)
    assert (summary.num_encoded, summary.skipped) == (2, {})
    assert len(row.acknowledged) == 1
    entries = [entry for entry in CommitLog(address).commits() if entry.kind == "conditions"]
    assert sorted(name for entry in entries for name in entry.inputs) == CLIPS
    assert CommitLog(address).verify() == []
    assert encode_dataset(_settings(address)).num_found == 2
    root, ours = local
    theirs = open_encoded_clips(address)
    for clip_id in CLIPS:
        _assert_same(theirs.load(clip_id), ours.load(clip_id))

    # Trained on, through copies on this machine's disk: the same batches.
    config = _training(address, tmp_path / "run")
    batches = [
        AnimatorTask(c, open_table(c)).make_batch(range(3))
        for c in (config, _training(str(root), tmp_path / "other"))
    ]
    assert torch.equal(batches[0].latents, batches[1].latents)
    result = train_animator(config)
    assert result.step == 2
    assert "data_wait_share" in result.metrics[-1]
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == 2

    # Evaluated, clip by clip: the same figures.
    tables = [
        evaluate_pipeline(
            EvaluateConfig(
                data_dir=where, weights_dir=tmp_path, out_dir=tmp_path / name, held_out_share=None,
                limit=1, max_frames=3, num_inference_steps=1, guidance_scale=1.0,
                face_optimization=(False,),
            ),
            pipeline,
        )
        for name, where in (("far", address), ("near", str(root)))
    ]  # fmt: skip
    far, near = ([replace(row, seconds=0.0) for row in table.rows] for table in tables)
    assert far == near
