"""A training starts from stock Stable Video Diffusion, as the release's does."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file

from animaray.cli.main import run
from animaray.models.interop.fresh import SEED
from animaray.models.interop.importing import ImportOptions, import_backbone
from animaray.models.interop.layout import BACKBONE_FOLDER
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.unet import AnimatorUNet
from animaray.platform.errors import WeightsError
from animaray.platform.weights.whole_files import WEIGHTS_FILE
from animaray.training.animator import load_initial_animator
from animaray.training.recipes import animator_8xa100

SMALL = ImportOptions(width_px=64, height_px=64)


@pytest.fixture(scope="module")
def start(published, tmp_path_factory):
    out = tmp_path_factory.mktemp("start") / "weights"
    import_backbone(published / BACKBONE_FOLDER, out, SMALL)
    return out


@pytest.fixture(scope="module")
def stock(published):
    return UNetSpatioTemporalConditionModel.from_pretrained(
        published / BACKBONE_FOLDER, subfolder="unet", variant="fp16", local_files_only=True
    ).float()


def test_fresh_networks_change_nothing(start):
    animator = Animator.from_pretrained(start)
    # published-model.md, sections 2 and 3: both end in a projection of zeros.
    assert animator.pose_net.scale.tolist() == [2.0]
    assert not animator.pose_net(torch.randn(2, 3, 64, 64)).any()
    tokens = animator.face_encoder(torch.randn(2, 512) * 22, torch.randn(2, 1, 64))
    assert tokens.shape == (2, 4, 64)
    assert not tokens.any()
    first = animator.pose_net.conv_layers[0].weight
    assert float(first.detach().std()) == pytest.approx((2 / 27) ** 0.5, rel=0.25)
    log = json.loads((start / "import.json").read_text())["files"]
    assert log["face_encoder"] == {"fresh": True, "seed": SEED}


def test_adapter_starts_as_a_copy_of_its_layers_keys_and_values(start):
    state = load_file(start / "unet" / WEIGHTS_FILE)
    adapter = [key for key in state if ".processor." in key]
    # Attending levels: 1 layer down, 1 in the middle, 2 up; two projections each.
    assert len(adapter) == 8
    for key in adapter:
        assert torch.equal(state[key], state[key.replace(".processor.id_to_", ".to_")])
    assert {value.dtype for value in state.values()} == {torch.float16}


def test_unet_is_stock_but_for_the_adapter(start, stock):
    ours = Animator.from_pretrained(start).unet
    state = ours.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in stock.state_dict().items())
    plain = AnimatorUNet(replace(ours.config, adapter_scale=0.0))
    plain.load_state_dict(state)
    sample, context = torch.randn(1, 2, 8, 8, 8), torch.randn(1, 5, 64)
    ids = torch.tensor([[6.0, 127.0, 0.02]])
    step = torch.tensor([0.3])
    with torch.no_grad():
        found = plain.eval()(sample, step, context, ids)
        expected = stock.eval()(sample, step, context[:, :1], ids).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_configuration_is_the_recipes_but_for_the_sizes(start):
    config = Animator.from_pretrained(start).config
    recipe = animator_8xa100()
    resized = replace(
        AnimatorConfig.published(),
        unet=config.unet,
        pose_net=config.pose_net,
        face_encoder=config.face_encoder,
        width_px=64,
        height_px=64,
    )
    assert config == resized
    assert config.face_encoder.identity_dim == recipe.animator.face_encoder.identity_dim
    training = replace(recipe, animator=resized, init_from=str(start))
    assert load_initial_animator(training).config == resized


def test_single_precision_and_a_folder_above_are_taken(published, tmp_path, start):
    source = tmp_path / "source" / BACKBONE_FOLDER
    for part in ("unet", "vae", "image_encoder"):
        for file in (published / BACKBONE_FOLDER / part).iterdir():
            target = source / part / file.name.replace(".fp16", "")
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors":
                state = {key: value.float() for key, value in load_file(file).items()}
                save_file(state, target)
            else:
                target.write_bytes(file.read_bytes())
    import_backbone(tmp_path / "source", tmp_path / "out", SMALL)
    ours, theirs = (
        Animator.from_pretrained(folder).state_dict() for folder in (tmp_path / "out", start)
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    stored = load_file(tmp_path / "out" / "unet" / WEIGHTS_FILE)
    assert {value.dtype for value in stored.values()} == {torch.float32}


def test_the_command_takes_a_backbone_alone(published, tmp_path, capsys):
    out = tmp_path / "start"
    arguments = ["weights", "import", "--backbone", str(published / BACKBONE_FOLDER)]
    assert run([*arguments, "--out", str(out), "--size", "64x64"]) == 0
    shown = capsys.readouterr().err
    assert "pose_net: fresh" in shown
    assert f"--set init_from={out}" in shown
    assert run(["weights", "import", "--backbone", str(tmp_path), "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert run(["weights", "import", "--backbone", str(tmp_path), "--out", str(out) + "2"]) == 4
    assert "unet/diffusion_pytorch_model.safetensors, vae/" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["start"]


def test_other_unets_are_refused(own_published, tmp_path):
    file = next((own_published / BACKBONE_FOLDER / "unet").glob("*.safetensors"))
    state = load_file(file)
    spoiled = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    del state[spoiled]
    save_file(state, file)
    with pytest.raises(WeightsError, match=r"2 missing: .*to_k\.weight.*id_to_k"):
        import_backbone(own_published / BACKBONE_FOLDER, tmp_path / "out", SMALL)
