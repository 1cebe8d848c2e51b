"""Evaluation of a real, untrained pipeline on a real, small dataset."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from animaray.datasets.reader import CurationDataset
from animaray.evaluation.evaluate import (
    STILL_PICTURE,
    EvaluateConfig,
    choose_clips,
    evaluate_pipeline,
)
from animaray.evaluation.table import EvaluationTable
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.platform.errors import ConfigError, DatasetError
from animaray.platform.media.video import decode_video


@pytest.fixture(scope="module")
def config(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateConfig:
    return EvaluateConfig(
        data_dir=str(dataset_root),
        weights_dir=dataset_root,  # not read: the pipeline is given
        out_dir=tmp_path_factory.mktemp("tables"),
        held_out_share=None,
        max_frames=3,
        num_inference_steps=1,
        guidance_scale=1.0,
        face_optimization=(False,),
    )


@pytest.fixture(scope="module")
def table(config: EvaluateConfig, pipeline: AnimationPipeline) -> EvaluationTable:
    return evaluate_pipeline(config, pipeline)


def test_every_clip_has_a_row_per_method(table: EvaluationTable) -> None:
    assert table.failed == ()
    assert [(row.source, row.method) for row in table.rows] == [
        ("anna.mp4", "without face optimization"),
        ("anna.mp4", STILL_PICTURE),
        ("bert.mp4", "without face optimization"),
        ("bert.mp4", STILL_PICTURE),
    ]
    assert {row.num_frames for row in table.rows} == {2}  # three frames, the reference left out


def test_still_picture_looks_like_its_own_person_and_noise_does_not(
    table: EvaluationTable,
) -> None:
    assert table.rank_of_own_identity(STILL_PICTURE) == [1, 1]
    assert table.mean(STILL_PICTURE, "csim") > 0.8
    # An untrained animator draws noise: it is further from the truth than the still picture.
    for metric in ("psnr_db", "ssim"):
        still = table.mean(STILL_PICTURE, metric)
        assert table.mean("without face optimization", metric) < still
    assert math.isfinite(table.mean(STILL_PICTURE, "psnr_db"))


def test_poses_of_the_clip_itself_are_reproduced(table: EvaluationTable) -> None:
    # Procrustes maps each frame's pose onto the first one's: only the motion is left as distance.
    assert 0 < table.mean("without face optimization", "dis") < 0.05
    assert math.isnan(table.mean(STILL_PICTURE, "dis"))


def test_tables_are_written(table: EvaluationTable, config: EvaluateConfig) -> None:
    document = json.loads((config.out_dir / "evaluation.json").read_text())
    assert document == json.loads(json.dumps(table.to_dict()))
    assert document["settings"]["max_frames"] == 3
    text = (config.out_dir / "evaluation.md").read_text()
    assert text.count("| anna.mp4 | clip_ann | ") == 2
    assert "Whom do the results look like?" in text
    comparison = decode_video(config.out_dir / "clip_anna.mp4").frames_uint8
    assert comparison.shape == (3, 192, 3 * 192, 3)  # still | truth | result
    assert table.one_line().startswith("2 clips without face optimization: L1 0.")


def test_misaligned_poses_are_aligned_again(
    config: EvaluateConfig, pipeline: AnimationPipeline, tmp_path: Path, table: EvaluationTable
) -> None:
    changed = replace(config, misalignment_seed=1, limit=1, out_dir=tmp_path)
    aligned = evaluate_pipeline(changed, pipeline).rows[0].dis
    left_alone = evaluate_pipeline(replace(changed, alignment="none"), pipeline).rows[0].dis
    assert aligned is not None
    assert left_alone is not None
    # The closed form undoes any similarity, so the distance is that of the aligned original.
    assert aligned == pytest.approx(table.rows[0].dis, abs=2e-3)
    assert left_alone > 3 * aligned


def test_clips_that_cannot_be_used_are_listed_and_do_not_stop_the_rest(
    config: EvaluateConfig,
    pipeline: AnimationPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline.perception.face_detector, "detect", lambda _frame: [])
    table = evaluate_pipeline(replace(config, out_dir=tmp_path), pipeline)
    assert table.rows == ()
    assert [(clip.source, clip.reason) for clip in table.failed] == [
        ("anna.mp4", "The reference picture shows no face."),
        ("bert.mp4", "The reference picture shows no face."),
    ]
    assert table.one_line() == "no clip could be evaluated, 2 failed"
    assert "- anna.mp4 (clip_anna): The reference picture shows no face." in table.to_markdown()


def test_held_out_clips_are_of_held_out_sources(config: EvaluateConfig) -> None:
    dataset = CurationDataset.open(config.data_dir)
    everything = choose_clips(dataset, config)
    assert everything == ["clip_anna", "clip_bert"]
    held_out = choose_clips(dataset, replace(config, held_out_share=0.2))
    assert len(held_out) == 1
    assert choose_clips(dataset, replace(config, limit=1)) == everything[:1]


def test_dataset_of_another_profile_is_refused(
    config: EvaluateConfig, pipeline: AnimationPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.perception.identity_embedder, "embedding_dim", 512)
    with pytest.raises(DatasetError, match="was curated with another profile"):
        evaluate_pipeline(config, pipeline)


def test_a_model_that_is_shown_hands_needs_a_dataset_with_hands(
    config: EvaluateConfig, pipeline: AnimationPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(pipeline.animator.config, pose_layout="whole_body_134")
    monkeypatch.setattr(pipeline.animator, "config", whole)
    table = evaluate_pipeline(config, pipeline)
    assert len(table.failed) == 2
    assert all("this clip was curated without" in clip.reason for clip in table.failed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out_share": 1.0}, "`held_out_share` must be in"),
        ({"max_frames": 1}, "leave nothing to do: 1"),
        ({"limit": 0}, "leave nothing to do: 3, 0"),
        ({"face_optimization": ()}, "must name at least one"),
    ],
)
def test_useless_settings_are_refused(
    config: EvaluateConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(config, **change)
