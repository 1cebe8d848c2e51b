"""`runs/whole_flow.sh`: seven commands from videos to an mp4, with nothing written in Python."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from animaray.platform.media.video import decode_video, read_picture

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "runs" / "whole_flow.sh"


def test_script_uses_the_seven_commands_in_order() -> None:
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    called = [line.split('"$ANIMARAY" ')[1] for line in lines if line.startswith('"$ANIMARAY"')]
    doors = ("curate", "dataset encode", "train aligner", "train animator", "evaluate", "serve",
             "jobs submit")  # fmt: skip
    assert len(called) == len(doors)
    assert all(call.startswith(door) for call, door in zip(called, doors, strict=True))
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whole_flow_ends_with_curves_weights_and_a_video(tmp_path: Path, local_ray: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        # As on a cluster, all commands join one session: five private ones would start for nothing.
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "OUT": str(tmp_path / "flow #1"),
        "NUM_VIDEOS": "5",
        "POLICY": "lax",
        "PORT": str(port),
        "ALIGNER_SET": "loop.num_steps=4 loop.log_every_steps=2 scale.num_workers=1",
        "ANIMATOR_SET": "loop.num_steps=2 loop.log_every_steps=1 scale.global_batch_size=2 "
        "scale.micro_batch_size=1 window.num_frames=4",
        "EVALUATE_SET": "max_frames=2 num_inference_steps=1 face_optimization=[false]",
        "JOB_OPTIONS": "--steps 1 --face-optimization off",
        "ANIMARAY": str(Path(sys.executable).parent / "animaray"),
    }
    done = subprocess.run(  # noqa: S603 - our own script
        [str(SCRIPT)], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = Path(settings["OUT"])
    for run in ("aligner", "animator"):
        assert read_picture(out / "runs" / run / "curves.png").shape[0] > 400
    weights = out / "runs" / "animator" / "weights"
    assert (weights / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    assert (weights / "aligner").is_dir()
    assert (out / "evaluation" / "evaluation.md").is_file()
    frames = decode_video(out / "result.mp4").frames_uint8
    assert frames.shape[1:3] == (192, 192)
    assert len(frames) > 4
