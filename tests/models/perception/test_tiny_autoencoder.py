import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from animaray.models.perception.permissive.tiny_autoencoder import (
    TinyAutoencoderCodec,
    make_decoder,
    make_encoder,
)
from animaray.models.perception.protocols import LatentCodec
from animaray.platform.errors import UsageError, WeightsError
from animaray.platform.media.picture import read_picture
from animaray.platform.media.video import decode_video


def frames_of(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def session_of(path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_sizes_and_channels():
    codec: LatentCodec = TinyAutoencoderCodec()
    with torch.no_grad():
        latents = codec.encode(torch.zeros(2, 3, 32, 48))
        assert latents.shape == (2, 32, 4, 6)
        assert codec.decode(latents).shape == (2, 3, 32, 48)
    assert (codec.latent_channels, codec.downscale) == (32, 8)


def test_odd_sizes_are_refused():
    with pytest.raises(UsageError, match="multiples of 8 px; got 50x32"):
        TinyAutoencoderCodec().encode(torch.zeros(1, 3, 32, 50))


def test_gradients_flow_to_the_latents():
    latents = torch.randn(1, 32, 4, 4, requires_grad=True)
    TinyAutoencoderCodec().requires_grad_(False).decode(latents).sum().backward()
    assert latents.grad.abs().sum() > 0


def test_files_of_another_kind_are_refused(tmp_path):
    file = tmp_path / "vae.pth"
    torch.save({"0.weight": torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match=r"vae.pth does not hold the weights of TAEF2"):
        TinyAutoencoderCodec.load(file, file)
    torch.save({"0.weight": "text"}, file)
    with pytest.raises(WeightsError, match="does not hold the weights of TAEF2"):
        TinyAutoencoderCodec.load(file, file)


@pytest.mark.real
def test_networks_equal_their_onnx_conversions(real_weights):
    codec = TinyAutoencoderCodec.load()
    pictures = torch.rand(1, 3, 64, 48)
    expected = session_of(real_weights / "vae_enc.onnx").run(None, {"image": pictures.numpy()})[0]
    np.testing.assert_allclose(codec.encoder(pictures).numpy(), expected, atol=1e-4)
    latents = torch.randn(1, 32, 8, 6)
    expected = session_of(real_weights / "vae_dec.onnx").run(None, {"latent": latents.numpy()})[0]
    np.testing.assert_allclose(codec.decoder(latents).numpy(), expected, atol=1e-4)
    assert len(make_encoder()) == 15
    assert len(make_decoder()) == 20


@pytest.mark.real
def test_portraits_survive_the_round_trip(real_data, real_weights):
    codec = TinyAutoencoderCodec.load()
    decibels = []
    for name in ("p07_1.jpg", "p09_1.jpg", "n13.jpg"):
        picture = read_picture(real_data / f"images/{name}")
        picture = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)
        frames = frames_of([picture])
        with torch.inference_mode():
            restored = codec.decode(codec.encode(frames)).clamp(-1, 1)
        error = float(((restored - frames) / 2).square().mean())
        decibels.append(-10 * np.log10(error))
    # Measured 29.5, 39.1 and 32.7 dB.
    assert min(decibels) > 28
    assert np.mean(decibels) > 32


@pytest.mark.real
def test_latents_have_about_zero_mean_and_unit_variance(real_data, real_weights):
    codec = TinyAutoencoderCodec.load()
    rows = []
    for name in ("v01", "v06", "v08", "v27"):
        frame = decode_video(
            real_data / f"videos/{name}.mp4", short_side_px=192, max_frames=1
        ).frames_uint8[0]
        height, width = (side // 8 * 8 for side in frame.shape[:2])
        with torch.inference_mode():
            rows.append(codec.encode(frames_of([frame[:height, :width]])).flatten(2)[0])
    latents = torch.cat(rows, dim=1)
    assert latents.mean().abs() < 0.15
    assert 0.8 < latents.std() < 1.2
    assert latents.std(dim=1).min() > 0.5
    assert latents.std(dim=1).max() < 1.6
