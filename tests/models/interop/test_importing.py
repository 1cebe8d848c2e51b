import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from animaray.models.interop.importing import ImportOptions, import_published, write_state
from animaray.models.networks.animator import Animator
from animaray.models.perception.checkpoint_files import open_state
from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
from animaray.models.perception.profiles import load_codec, load_image_encoder
from animaray.platform.errors import ConfigError, UsageError, WeightsError
from animaray.platform.weights.whole_files import WEIGHTS_FILE
from benchmarks.rehearsal import onnx_iresnet

SMALL = ImportOptions(width_px=64, height_px=64)


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


def test_every_network_comes_through_unchanged(networks, weights_folder):
    animator = Animator.from_pretrained(weights_folder)
    for name in ("unet", "pose_net", "face_encoder"):
        assert same_state(getattr(animator, name), getattr(networks, name)), name
    codec = load_codec("paper", folder=weights_folder)
    assert same_state(codec.autoencoder, networks.vae)
    assert (codec.downscale, codec.scaling_factor, codec.decode_frames) == (8, 0.18215, 4)
    encoder = load_image_encoder("paper", folder=weights_folder)
    assert same_state(encoder.network, networks.image_encoder)
    embedder = ArcFaceEmbedder.load(weights_folder / "identity" / WEIGHTS_FILE)
    assert same_state(embedder.network, networks.arc_face)


def test_configuration_is_the_published_one_in_the_files_sizes(weights_folder):
    config = Animator.from_pretrained(weights_folder).config
    assert (config.profile, config.unconditional) == ("paper", "published")
    assert config.reference_latent_scale == pytest.approx(1 / 0.18215)
    assert (config.identity_input, config.image_embedding_of) == ("raw", "picture")
    assert (config.width_px, config.height_px, config.num_frames) == (64, 64, 16)
    assert config.face_encoder.depth == 2
    log = json.loads((weights_folder / "import.json").read_text())["files"]
    assert log["unet"]["file"] == "unet.pth"
    assert log["vae"]["file"] == "diffusion_pytorch_model.fp16.safetensors"


def test_nothing_pickled_is_in_the_folder(weights_folder):
    suffixes = {file.suffix for file in weights_folder.rglob("*") if file.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_precision_of_the_files_is_kept(networks, own_published, tmp_path):
    from safetensors.torch import load_file

    file = own_published / "Animation" / "unet.pth"
    state = {key: value.half() for key, value in networks.unet.state_dict().items()}
    torch.save(state, file)
    import_published(own_published, tmp_path / "out", SMALL)
    stored = load_file(tmp_path / "out" / "unet" / WEIGHTS_FILE)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert all(torch.equal(stored[key], state[key]) for key in state)


def test_recogniser_may_come_as_insightfaces_file(networks, own_published, tmp_path):
    (own_published / "Animation" / "glintr100_torch.pth").unlink()
    shutil.rmtree(own_published / "antelopev2")
    onnx_iresnet.write_onnx(
        networks.arc_face, own_published / "models" / "antelopev2" / "glintr100.onnx"
    )
    import_published(own_published, tmp_path / "out", SMALL)
    embedder = ArcFaceEmbedder.load(tmp_path / "out" / "identity" / WEIGHTS_FILE)
    crops = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(
            embedder.network(crops), networks.arc_face(crops), atol=2e-4, rtol=1e-4
        )


def test_other_layouts_are_found(networks, own_published, tmp_path):
    backbone = own_published / "stable-video-diffusion-img2vid-xt"
    elsewhere = backbone.rename(tmp_path / "elsewhere")
    flat = (own_published / "Animation").rename(tmp_path / "flat")
    import_published(flat, tmp_path / "out", SMALL, backbone=elsewhere)
    assert same_state(Animator.from_pretrained(tmp_path / "out").pose_net, networks.pose_net)


def edit(file: Path, change):
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "unet",
            lambda state: state.pop("conv_in.bias"),
            r"unet\.pth and unet do not fit: 1 missing: conv_in\.bias",
        ),
        (
            "unet",
            lambda state: state.update({"lora.weight": torch.zeros(1)}),
            r"1 unexpected: lora\.weight",
        ),
        (
            "unet",
            lambda state: state.update({"conv_in.bias": torch.zeros(3)}),
            r"1 of another shape: conv_in\.bias \(3 instead of 32\)",
        ),
        (
            "pose_net",
            lambda state: state.pop("scale"),
            r"pose_net\.pth and pose_net do not fit: 1 missing: scale",
        ),
        (
            "pose_net",
            lambda state: state.pop("final_proj.weight"),
            r"Expected the state dict of PoseNet",
        ),
        (
            "face_encoder",
            lambda state: state.pop("proj.0.weight"),
            r"Expected the state dict of the Face Encoder",
        ),
        (
            "glintr100_torch",
            lambda state: state.pop("fc.weight"),
            r"Expected the state dict of an IResNet",
        ),
    ],
)
def test_keys_that_do_not_fit_are_named_and_nothing_is_left(
    own_published, tmp_path, name, change, message
):
    edit(own_published / "Animation" / f"{name}.pth", change)
    with pytest.raises(WeightsError, match=message):
        import_published(own_published, tmp_path / "out", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_code_in_a_file_is_refused_and_not_run(own_published, tmp_path):
    canary = tmp_path / "canary"
    edit(own_published / "Animation" / "unet.pth", lambda state: state.update(x=Bomb(canary)))
    with pytest.raises(WeightsError, match=r"unet\.pth is refused: it holds code"):
        import_published(own_published, tmp_path / "out", SMALL)
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vae", {"auto_map": {"x": "evil.Class"}}, "settings that animaray does not know: auto_"),
        ("image_encoder", {"hidden_size": 64}, "image_encoder do not fit"),
        ("vae", {"latent_channels": 8}, "latent channels is 8 in the diffusers folder and 4"),
        ("unet", {"down_block_types": ["X", "Y"]}, "another U-Net than Stable Video Diffusion's"),
        ("unet", {"cross_attention_dim": [64, 32]}, "does not describe a spatio-temporal U-Net"),
        ("unet", {"block_out_channels": [64, 64]}, "models of different sizes"),
    ],
)
def test_foreign_configs_are_refused(own_published, tmp_path, part, change, message):
    file = own_published / "stable-video-diffusion-img2vid-xt" / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(WeightsError, match=message):
        import_published(own_published, tmp_path / "out", SMALL)


def test_other_scheduler_is_refused(own_published, tmp_path):
    folder = own_published / "stable-video-diffusion-img2vid-xt" / "scheduler"
    file = folder / "scheduler_config.json"
    settings = json.loads(file.read_text()) | {"prediction_type": "epsilon"}
    file.write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="prediction_type = 'epsilon', the published sampler"):
        import_published(own_published, tmp_path / "out", SMALL)


def test_every_missing_file_is_named(own_published, tmp_path):
    (own_published / "Animation" / "pose_net.pth").unlink()
    vae = own_published / "stable-video-diffusion-img2vid-xt" / "vae"
    (vae / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"pose_net\.pth, vae/diffusion_pytorch_model"):
        import_published(own_published, tmp_path / "out", SMALL)
    with pytest.raises(WeightsError, match="There is no folder"):
        import_published(tmp_path / "absent", tmp_path / "out", SMALL)


def test_sizes_and_places_that_cannot_be_are_refused(published, tmp_path):
    with pytest.raises(ConfigError, match="`width_px` must be a multiple of 8, got 60"):
        import_published(published, tmp_path / "out", ImportOptions(width_px=60))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="exists and is not empty"):
        import_published(published, tmp_path / "full", SMALL)
    (tmp_path / "empty").mkdir()
    import_published(published, tmp_path / "empty", SMALL)
    assert (tmp_path / "empty" / "model_index.json").is_file()


def anonymous_bytes():
    """Return how much memory this process holds that is not a mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_files_are_copied_without_being_held(tmp_path):
    size = 64 * 1024**2
    torch.save({f"w{i}": torch.ones(size // 16) for i in range(4)}, tmp_path / "net.pth")
    before = anonymous_bytes()
    state = open_state(tmp_path / "net.pth")
    write_state(tmp_path / "net.safetensors", state)
    assert anonymous_bytes() - before < size / 4
    assert (tmp_path / "net.safetensors").stat().st_size > size
