"""The published model's whole way by the commands that a team with GPUs types, in small.

Files of the published names, formats and signatures (benchmarks/rehearsal) are imported; a clip is
curated and encoded under profile paper; the published recipe trains from stock Stable Video
Diffusion, is stopped and resumed; the result is exported and animates a picture. The published
files serve a job meanwhile.
Only sizes and devices differ from a machine with the real files.
"""

import json
import subprocess
import sys
import time
from collections.abc import ItemsView, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file

from animaray.cli.main import run
from animaray.datasets.encoded_clips import open_encoded_clips
from animaray.datasets.reader import CurationDataset
from animaray.datasets.world.clips import RenderedClip, render_clip, sample_clip_spec
from animaray.models.interop.layout import NETWORKS
from animaray.models.subjects.pose_files import read_pose_file
from animaray.platform.machine import find_free_port
from animaray.platform.media.video import decode_video, write_picture
from benchmarks.rehearsal.sizes import SMALL
from tests.provenance import read_provenance

SIZE = "64x96"
RECIPE = "animator_1gpu"
SMALLER = {
    **{
        f"animator.unet.{name}": getattr(SMALL.unet, name)
        for name in (
            "block_out_channels",
            "num_attention_heads",
            "has_attention",
            "layers_per_block",
            "cross_attention_dim",
            "addition_time_embed_dim",
            "num_frames",
            "sample_size",
        )
    },
    "animator.pose_net.out_channels": SMALL.pose_net.out_channels,
    "animator.face_encoder.image_embedding_dim": SMALL.face_encoder.image_embedding_dim,
    "animator.face_encoder.cross_attention_dim": SMALL.face_encoder.cross_attention_dim,
    "animator.width_px": 64,
    "animator.height_px": 96,
    "window.num_frames": 4,
    "scale.global_batch_size": 2,
    "scale.use_gpu": False,
    "scale.cpus_per_worker": 1,
    "scale.threads_per_worker": 1,
    "held_out_share": None,  # one clip
    "policy": "lax",
    "loop.log_every_steps": 1,
}
"""All that is set: sizes, the device, and what one clip of a drawn person needs."""
FEW = ["--steps", "1", "--face-optimization", "published"]
IN_ONE_SESSION = """
import json, sys
from animaray.cli.main import run
from animaray.platform.ray_session import ray_session
with ray_session():
    for command in json.load(sys.stdin):
        code = run(command)
        if code:
            sys.exit(code)
"""
"""Runs commands one after the other in one process, so that PyTorch is loaded once."""


def settings(values: dict[str, object]) -> list[str]:
    texts = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]
    return [word for text in texts for word in ("--set", text)]


def write_video_with_sound(path: Path, clip: RenderedClip, fps: int) -> None:
    """Write an mp4 whose sound is one tone."""
    rate = 16000
    with av.open(str(path), "w") as out:
        height, width = clip.frames_uint8.shape[1:3]
        picture = out.add_stream("libx264", rate=fps)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        sound = out.add_stream("aac", rate=rate)
        sound.layout = "mono"
        for frame in clip.frames_uint8:
            out.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(picture.encode())
        count = len(clip.frames_uint8) * rate // fps
        tone = np.sin(np.arange(count, dtype=np.float32) * 440 * 2 * np.pi / rate)
        samples = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts = rate, 0
        out.mux(sound.encode(samples))
        out.mux(sound.encode())


def sound_seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        return sum(frame.samples for frame in container.decode(stream)) / stream.rate


@contextmanager
def service(weights: Path, data: Path) -> Iterator[str]:
    """Run `animaray serve` and yield its address once it answers."""
    port = find_free_port()
    command = [sys.executable, "-m", "animaray.cli.main", "serve", "--weights", str(weights)]
    server = subprocess.Popen(  # noqa: S603 - our own command
        [*command, "--port", str(port), "--data", str(data)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=120)


def wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + 300
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(f"{address}/v1/animations", timeout=30).status_code == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_published_files_end_in_a_served_clip(
    tmp_path: Path, rehearsal_kit: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(rehearsal_kit))
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(rehearsal_kit / "packages"))
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.chdir(tmp_path)
    clip = render_clip(
        sample_clip_spec(4, num_frames=14, fps=12.0, size=(320, 320), framing="full",
                         camera_kind="static", motion_kind="idle")
    )  # fmt: skip
    Path("videos").mkdir()
    write_video_with_sound(Path("videos/dance.mp4"), clip, 12)
    write_picture(Path("me.png"), clip.frames_uint8[0])

    with ThreadPoolExecutor(1) as beside:
        served = beside.submit(serve, Path("published"), Path("serving"))
        run_commands(rehearsal_kit / "stable-video-diffusion-img2vid-xt")
        served.result()
    check_dataset(Path("dataset"))
    check_training(Path("start"), Path("run"))
    check_export(rehearsal_kit, Path("exported"))
    check_poses(Path("poses.npz"))
    for name, seconds in (("animated.mp4", 4 / 12), ("served.mp4", 14 / 12)):
        frames = decode_video(Path(name)).frames_uint8
        assert frames.shape[1:3] == (96, 64)
        assert frames.std() > 1
        assert sound_seconds(Path(name)) == pytest.approx(seconds, abs=0.2)


def run_commands(backbone: Path) -> None:
    """Import, curate, encode, train, export and animate.

    The second call of `train` finds the first one's checkpoint; the trained weights animate.
    """
    train = ["train", "animator", "--recipe", RECIPE, "--data", "dataset", "--out", "run"]
    train += settings({**SMALLER, "init_from": "start"})
    paper = ["--profile", "paper", "--policy", "lax"]
    commands = [
        ["weights", "import", "--out", "published", "--size", SIZE],
        ["weights", "import", "--backbone", str(backbone), "--out", "start", "--size", SIZE],
        ["curate", "videos", "--out", "dataset", *paper],
        ["dataset", "encode", "dataset", *paper, "--size", SIZE, "--workers", "1", "--gpus", "0"],
        [*train, "--set", "loop.num_steps=1"],
        [*train, "--set", "loop.num_steps=2"],
        ["weights", "export", "run/weights", "--out", "exported"],
        ["animate", "me.png", "videos/dance.mp4", "--weights", "run/weights", "--max-frames", "4",
         "--out", "animated.mp4", "--save-poses", "poses.npz", *FEW],
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-c", IN_ONE_SESSION],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "run: continues at step 1 of 2" in done.stderr
    assert "pose_net: fresh" in done.stderr


def serve(weights: Path, data: Path) -> None:
    """Serve the published weights as soon as they are imported, and send one job."""
    deadline = time.monotonic() + 300
    while not weights.is_dir():  # it appears when it is complete
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with service(weights, data) as address:
        wait_until_it_answers(address)
        submit = ["jobs", "submit", "me.png", "videos/dance.mp4", "--server", address]
        assert run([*submit, "--out", "served.mp4", *FEW]) == 0
    facts = read_provenance(Path("served.mp4").read_bytes())
    assert facts is not None
    assert facts["options"]["face_optimization"] == "published"


def check_export(kit: Path, exported: Path) -> None:
    """The trained U-Net leaves under the keys with which the published one came."""
    came, left = (
        set(torch.load(folder / "Animation" / "unet.pth", weights_only=True))
        for folder in (kit, exported)
    )
    assert came == left


def check_dataset(folder: Path) -> None:
    """The clip was kept under profile paper, and its encoding holds what training needs."""
    dataset = CurationDataset.open(folder)
    (clip_id,) = dataset.clip_ids("lax")
    assert set(dataset.profiles().values()) == {"paper"}
    clip = open_encoded_clips(folder).load(clip_id)
    assert clip.latents.shape[1:] == (4, 12, 8)
    assert clip.further_points is not None
    assert clip.raw_identity is not None
    assert np.linalg.norm(clip.raw_identity) > 5  # as the recogniser gives it, not of unit length


def check_training(start: Path, run_dir: Path) -> None:
    """What the release trains has moved, what it freezes has not."""
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 2)
    config = json.loads((run_dir / "config.json").read_text())["config"]
    assert config["trainable"] == "published"
    before, after = (
        {f"{name}.{key}": value.float() for name in NETWORKS for key, value in state(folder, name)}
        for folder in (start, run_dir / "weights")
    )
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert any(".processor.id_to_k" in key for key in moved)
    assert any(key.startswith("pose_net.final_proj") for key in moved)
    assert any(key.startswith("face_encoder.fusion_model.proj_out") for key in moved)
    assert not any(key.startswith("unet.") and "attentions" not in key for key in moved)


def state(folder: Path, name: str) -> ItemsView[str, torch.Tensor]:
    return load_file(folder / name / "diffusion_pytorch_model.safetensors").items()


def check_poses(file: Path) -> None:
    """Hands and face were seen and go into the pose pictures."""
    (motion,) = read_pose_file(file).motions
    assert motion.further_points is not None
    face, hands = motion.further_points[:, 6:74, 2], motion.further_points[:, 74:, 2]
    assert face.mean() > 0.5
    assert hands.mean() > 0.5
