"""All golden vectors through our modules; folders that are wrong must fail and say why."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from animaray.cli.main import run
from animaray.platform.errors import DatasetError, UsageError
from benchmarks.golden.__main__ import app
from benchmarks.golden.pipeline import compare_frames
from benchmarks.golden.vectors import GoldenVector
from benchmarks.golden.verify import (
    KINDS,
    kind_of,
    verify,
    verify_key_table,
    verify_vector,
)

KEY_TABLES = ("unet", "pose_net", "face_encoder", "face_extractor_r100", "vae", "image_encoder")


def checks_of(folder: Path):
    report = verify_vector(folder)
    assert report.errors == []
    return report.checks


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_our_modules_give_what_the_authors_gave(golden_data, kind):
    assert kind_of(golden_data / kind.name) is kind
    checks = checks_of(golden_data / kind.name)
    assert [check for check in checks if not check.passed] == []
    # Nothing that the vector stores escapes comparison, but for what the settings call inputs.
    listed = json.loads((golden_data / kind.name / "config.json").read_text()).get("tensors", {})
    outputs = {name for name in listed if "output" in name and name != "model_output"}
    assert outputs - {check.name for check in checks} <= {
        name for name in listed if name.endswith("_model_output") and name.startswith("step")
    }


@pytest.mark.parametrize("network", KEY_TABLES)
def test_keys_and_shapes_are_the_published_ones(golden_data, network):
    checks = verify_key_table(golden_data / f"keys_{network}.json")
    assert len(checks) == 3
    assert all(check.passed for check in checks)


@pytest.fixture
def copy_of(golden_data, tmp_path):
    """Return a function that copies a vector, so that it can be spoilt."""

    def copy(name, to=None):
        return Path(shutil.copytree(golden_data / name, tmp_path / "vectors" / (to or name)))

    return copy


def change(folder: Path, file: str, name: str, by: float) -> None:
    """Add a number to the first entry of a stored tensor."""
    tensors = load_file(folder / file)
    flat = tensors[name].flatten()
    flat[0] += by
    tensors[name] = flat.view(tensors[name].shape)
    save_file(tensors, folder / file)


def edit(folder: Path, change_of) -> None:
    """Change config.json by a function."""
    config = json.loads((folder / "config.json").read_text())
    change_of(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_command_fails_for_one_changed_number(copy_of, tmp_path, capsys):
    folder = copy_of("self_attn")
    copy_of("sigma_sampling")
    assert run([str(tmp_path / "vectors"), "--json"], app) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"]
    assert {row["vector"] for row in document["checks"]} == {"self_attn", "sigma_sampling"}
    change(folder, "io.safetensors", "output", 1e-3)
    assert run([str(tmp_path / "vectors"), "--json"], app) == 1
    document = json.loads(capsys.readouterr().out)
    (failed,) = [row for row in document["checks"] if not row["passed"]]
    assert (failed["vector"], failed["tensor"]) == ("self_attn", "output")
    assert failed["deviation"] == pytest.approx(1e-3, rel=0.01)
    assert failed["used_share"] > 10


def test_command_fails_for_one_changed_weight(copy_of, capsys):
    folder = copy_of("self_attn")
    change(folder, "state_dict.safetensors", "to_q.weight", 0.5)
    assert run([str(folder)], app) == 1
    shown = capsys.readouterr()
    assert "FAIL" in shown.out
    assert "1 of 1 comparisons fail: self_attn/output" in shown.err


def test_nothing_passes_that_is_not_a_number(copy_of):
    folder = copy_of("self_attn")
    change(folder, "io.safetensors", "output", float("nan"))
    assert not verify(folder).passed


def test_changed_drawing_fails(copy_of):
    folder = copy_of("pose_align_draw")
    picture = cv2.imread(str(folder / "drawn_aligned0.png"))
    picture[100:104, 100:104] = 255 - picture[100:104, 100:104]
    cv2.imwrite(str(folder / "drawn_aligned0.png"), picture)
    failed = [check.name for check in checks_of(folder) if not check.passed]
    assert failed == ["drawn_aligned0.png", "drawn_aligned0.png: mean"] or failed == [
        "drawn_aligned0.png"
    ]


def test_changed_expectations_without_tensors_fail(copy_of):
    tiles, frames = copy_of("tile_blend"), copy_of("dataset_sampling")
    edit(tiles, lambda config: config["cases"][1]["indices"][1].reverse())
    edit(frames, lambda config: config["cases"][0].update(reference_index=11))
    for folder in (tiles, frames):
        assert len([check for check in checks_of(folder) if not check.passed]) == 1


def test_changed_key_table_fails(golden_data, tmp_path):
    table = json.loads((golden_data / "keys_pose_net.json").read_text())
    table["keys"]["scale"] = [2]
    table["keys"]["extra"] = table["keys"].pop("final_proj.bias")
    (tmp_path / "keys_pose_net.json").write_text(json.dumps(table))
    (failed,) = [check for check in verify(tmp_path).checks if not check.passed]
    assert failed.note.startswith("1 missing: extra ...; 1 not expected: final_proj.bias ...;")
    assert "1 of another shape: scale" in failed.note


def test_tensor_that_nothing_is_compared_with_fails(copy_of):
    folder = copy_of("self_attn")
    tensors = load_file(folder / "io.safetensors")
    save_file(tensors | {"surprise": tensors["output"].clone()}, folder / "io.safetensors")
    (failed,) = [check for check in checks_of(folder) if not check.passed]
    assert failed.name == "surprise"


def test_one_folder_that_cannot_run_fails_beside_others_that_hold(copy_of, tmp_path, capsys):
    copy_of("self_attn")
    copy_of("face_mask", to="face_mask_of_the_moon")
    edit(tmp_path / "vectors" / "face_mask_of_the_moon", lambda config: config.pop("config"))
    assert run([str(tmp_path / "vectors")], app) == 1
    shown = capsys.readouterr()
    assert "self_attn" in shown.out
    assert "setting `config.image_hw` is missing" in shown.err
    assert "AR-DAT-01" in shown.err
    assert "1 vectors could not be run to the end" in shown.err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: edit(f, lambda c: c.pop("tol")), "setting `tol.atol` is missing"),
        (lambda f: edit(f, lambda c: c["tol"].update(rtol="wide")), "`rtol` must be a number"),
        (
            lambda f: edit(f, lambda c: c["tensors"].update(more=["float32", [1]])),
            "`more` is listed",
        ),
        (lambda f: edit(f, lambda c: c["tensors"].update(output=["float32", [1]])), "should be"),
        (lambda f: (f / "config.json").write_text("{"), "Expected a JSON object"),
        (lambda f: (f / "io.safetensors").write_bytes(b"x" * 40), "Expected tensors"),
        (lambda f: (f / "state_dict.safetensors").unlink(), "Expected tensors"),
        (lambda f: edit(f, lambda c: c["config"].update(hidden_size=128)), "weights do not fit"),
        (lambda f: edit(f, lambda c: c["config"].update(heads=0)), "ends in ZeroDivisionError"),
    ],
)
def test_broken_folder_says_what_is_wrong(copy_of, spoil, message):
    folder = copy_of("self_attn")
    spoil(folder)
    (error,) = verify_vector(folder).errors
    assert isinstance(error, DatasetError)
    assert message in str(error)


def test_missing_tensor_is_named(copy_of):
    folder = copy_of("self_attn")
    tensors = load_file(folder / "io.safetensors")
    del tensors["hidden_states"]
    save_file(tensors, folder / "io.safetensors")
    edit(folder, lambda config: config["tensors"].pop("hidden_states"))
    (error,) = verify_vector(folder).errors
    assert "tensor `hidden_states` is missing" in str(error)


def test_kind_is_known_by_name_or_module(copy_of, tmp_path):
    assert kind_of(copy_of("pose_net", to="large_poses")).name == "pose_net"
    renamed = copy_of("pose_net", to="pose_net_2")
    edit(renamed, lambda config: config.update(module="something"))
    assert kind_of(renamed).name == "pose_net"
    unknown = copy_of("pose_net", to="moon")
    edit(unknown, lambda config: config.update(module="something"))
    with pytest.raises(DatasetError, match=r"its kind is unknown .*Known kinds: pose_net"):
        kind_of(unknown)


def test_single_folder_that_cannot_run_is_an_error_of_its_own(copy_of, capsys):
    folder = copy_of("face_mask", to="moon")
    edit(folder, lambda config: config.update(module="something"))
    assert run([str(folder)], app) == 5
    assert "its kind is unknown" in capsys.readouterr().err


def test_folder_without_vectors_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no golden vector"):
        verify(tmp_path)
    with pytest.raises(UsageError, match="There is no folder"):
        verify(tmp_path / "moon")


def test_stored_float16_stands_for_all_that_rounds_to_it(copy_of):
    folder = copy_of("hjb_step")
    frames = load_file(folder / "io.safetensors")["step0_frames_before"]
    assert str(frames.dtype) == "torch.float16"
    # Neighbouring float16 numbers near 1 lie 1e-3 apart: more than the tolerance of 1e-4.
    assert float(np.spacing(np.float16(0.9))) > 2 * 1e-4
    change(folder, "io.safetensors", "step0_frames_before", 2e-3)
    failed = [check.name for check in checks_of(folder) if not check.passed]
    assert failed == ["step0_frames_before"]


def drop(folder: Path, file: str, is_dropped) -> None:
    """Remove tensors of a file by their names, and from config.json's list."""
    tensors = load_file(folder / file)
    save_file(
        {name: value for name, value in tensors.items() if not is_dropped(name)}, folder / file
    )
    edit(
        folder,
        lambda config: config.update(
            tensors={name: row for name, row in config["tensors"].items() if not is_dropped(name)}
        ),
    )


def is_decoder(name):
    return name.startswith("vae.decoder.")


def test_pipeline_without_decoder_and_frames_decodes_nothing(copy_of):
    folder = copy_of("pipeline")
    drop(folder, "state_dict.safetensors", lambda name: name.startswith("vae.decoder."))
    with pytest.raises(DatasetError, match=r"no weights begin with `vae\.decoder\.`"):
        compare_frames(GoldenVector(folder), torch.zeros(11, 4, 12, 8))
    drop(folder, "io.safetensors", lambda name: name == "frames_u8")
    edit(folder, lambda config: config["tol"].pop("frames_u8_max_abs"))
    vector = GoldenVector(folder)
    compare_frames(vector, torch.zeros(11, 4, 12, 8))
    assert vector.checks == []
    assert "frames_u8" not in vector.unused()


def test_vector_that_ends_late_reports_what_was_compared(copy_of, capsys):
    folder = copy_of("euler_step")
    drop(folder, "io.safetensors", lambda name: name == "model_output")
    change(folder, "io.safetensors", "sigmas_10", 1.0)
    assert run([str(folder), "--json"], app) == 1
    document = json.loads(capsys.readouterr().out)
    assert len(document["checks"]) == 7
    assert [row["tensor"] for row in document["checks"] if not row["passed"]] == ["sigmas_10"]
    assert "tensor `model_output` is missing" in document["errors"][0]["message"]
    assert {"sample", "churn_prev"} <= set(document["unreached"]["euler_step"])
    assert run([str(folder)], app) == 1
    shown = capsys.readouterr()
    assert "timesteps_25" in shown.out
    assert "euler_step: 7 comparisons were made before that; 8 tensors were not rea" in shown.err
    assert "1 vectors could not be run to the end" in shown.err
