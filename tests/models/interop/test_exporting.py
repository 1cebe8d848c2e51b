import dataclasses
import filecmp

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from animaray.models.interop.exporting import export_published
from animaray.models.interop.importing import ImportOptions, import_published
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.errors import ConfigError, WeightsError

BACKBONE = "stable-video-diffusion-img2vid-xt"


@pytest.fixture(scope="module")
def exported(weights_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    assert export_published(weights_folder, out) == []
    return out


def test_authors_files_come_back_bit_by_bit(published, exported):
    for name in ("unet", "pose_net", "face_encoder", "glintr100_torch"):
        before, after = (
            torch.load(folder / "Animation" / f"{name}.pth", weights_only=True)
            for folder in (published, exported)
        )
        assert type(before) is type(after)
        assert set(before) == set(after)
        for key, value in before.items():
            assert value.dtype == after[key].dtype
            assert torch.equal(value, after[key]), key


def test_importing_the_export_gives_every_byte_again(weights_folder, exported, tmp_path):
    again = tmp_path / "again"
    import_published(exported, again, ImportOptions(width_px=64, height_px=64))
    files = sorted(
        str(file.relative_to(weights_folder))
        for file in weights_folder.rglob("*")
        if file.is_file() and file.name != "import.json"
    )
    assert len(files) == 16
    same, different, errors = filecmp.cmpfiles(weights_folder, again, files, shallow=False)
    assert (different, errors) == ([], [])
    assert len(same) == len(files)


def test_diffusers_and_transformers_load_the_folder(networks, exported):
    folder = exported / BACKBONE
    unet, report = UNetSpatioTemporalConditionModel.from_pretrained(
        folder, subfolder="unet", output_loading_info=True, local_files_only=True
    )
    assert (report["missing_keys"], report["unexpected_keys"]) == ([], [])
    vae, report = AutoencoderKLTemporalDecoder.from_pretrained(
        folder, subfolder="vae", output_loading_info=True, local_files_only=True
    )
    assert (report["missing_keys"], report["unexpected_keys"]) == ([], [])
    encoder, report = CLIPVisionModelWithProjection.from_pretrained(
        folder / "image_encoder", output_loading_info=True, local_files_only=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ours = networks.unet.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in unet.state_dict().items())
    for one, other in ((vae, networks.vae), (encoder, networks.image_encoder)):
        state = other.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


def test_diffusers_pipeline_loads_the_folder_and_animates(exported):
    pipeline = StableVideoDiffusionPipeline.from_pretrained(
        exported / BACKBONE, local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.scheduler, EulerDiscreteScheduler)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    frames = pipeline(
        Image.new("RGB", (64, 64), (200, 40, 90)),
        height=64,
        width=64,
        num_frames=2,
        num_inference_steps=1,
        output_type="np",
    ).frames
    assert frames.shape == (1, 2, 64, 64, 3)
    assert np.isfinite(frames).all()


def test_settings_files_are_copied(published, exported):
    for name in ("scheduler/scheduler_config.json", "feature_extractor/preprocessor_config.json"):
        assert filecmp.cmp(published / BACKBONE / name, exported / BACKBONE / name, shallow=False)


def test_models_of_another_form_are_refused(tmp_path):
    Animator(AnimatorConfig.tiny()).save_pretrained(tmp_path / "weights")
    with pytest.raises(ConfigError, match="no place for reference attention, identity scale 4"):
        export_published(tmp_path / "weights", tmp_path / "out")
    with pytest.raises(WeightsError, match="Expected a weights folder"):
        export_published(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_without_frozen_parts_say_what_is_absent(tmp_path):
    config = AnimatorConfig.tiny()
    config = dataclasses.replace(
        config,
        reference_attention=None,
        warped_reference=None,
        face_encoder=dataclasses.replace(config.face_encoder, identity_scale=1.0),
    )
    Animator(config).save_pretrained(tmp_path / "weights")
    absent = export_published(tmp_path / "weights", tmp_path / "out")
    assert absent == ["vae", "image_encoder"]
    scheduler = EulerDiscreteScheduler.from_pretrained(tmp_path / "out" / BACKBONE / "scheduler")
    scheduler.set_timesteps(25)
    # Karras et al. 2022, equation 5: from 700 down to 0.002, then 0.
    assert scheduler.sigmas[0] == pytest.approx(700)
    assert scheduler.sigmas[-2] == pytest.approx(0.002)
    stored = torch.load(tmp_path / "out" / "Animation" / "unet.pth", weights_only=True)
    assert any(".processor.id_to_k" in key for key in stored)
