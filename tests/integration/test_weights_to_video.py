"""From a weights folder to a video over HTTP: real Ray Serve, real networks, untrained weights."""

import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.alignment.aligner import AlignerConfig, PoseAligner
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.profiles import load_codec, load_image_encoder, load_perception
from animaray.platform.errors import PortError, ServiceError
from animaray.platform.machine import find_free_port
from animaray.platform.media.video import write_mp4
from animaray.serving.client import AnimarayClient, JobHandle
from animaray.serving.config import ServeConfig
from animaray.serving.jobs.store import JobStore
from animaray.serving.serve import ServerHandle, start_server
from tests.provenance import read_provenance

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

FAST = {"num_inference_steps": 2, "guidance_scale": 1.0, "face_optimization": False}
ENDLESS = {"num_inference_steps": 100, "guidance_scale": 1.0, "face_optimization": False}


@dataclass
class Served:
    """A running service, a client of it, and files to send."""

    server: ServerHandle
    client: AnimarayClient
    config: ServeConfig
    picture: Path
    video: Path


@pytest.fixture(scope="module")
def served(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    AnimationPipeline(
        Animator(AnimatorConfig.generated()),
        PoseAligner(AlignerConfig()),
        load_codec("generated"),
        load_image_encoder("generated"),
        load_perception("generated"),
    ).save_pretrained(folder / "weights")
    clip = render_clip(sample_clip_spec(1, num_frames=10, framing="half", camera_kind="static"))
    write_mp4(folder / "driving.mp4", clip.frames_uint8, 16.0)
    person = render_clip(sample_clip_spec(0, num_frames=1, framing="half", camera_kind="static"))
    Image.fromarray(person.frames_uint8[0]).save(folder / "picture.png")
    config = ServeConfig(
        weights_dir=folder / "weights",
        port=find_free_port(),
        data_dir=folder / "data",
        lease_s=15.0,
        worker_timeout_s=15.0,
        ready_timeout_s=900.0,
    )
    with start_server(config) as server, AnimarayClient(server.url) as client:
        yield Served(server, client, config, folder / "picture.png", folder / "driving.mp4")


def worker_pids(config: ServeConfig) -> list[int]:
    with contextlib.closing(JobStore(config.store_url)) as store:
        return [worker.pid for worker in store.leases.workers(config.worker_timeout_s)]


def eventually(happens: Callable[[], bool], timeout_s: float = 600.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(job: JobHandle) -> bool:
    status = job.status()
    assert status.state in ("queued", "preparing", "running"), status
    return status.state == "running"


def test_picture_and_video_become_a_playable_video(served: Served, tmp_path: Path) -> None:
    job = served.client.animate(
        served.picture, served.video, seed=3, timeout_s=900.0, alignment="learned", **FAST
    )
    kinds = [event.kind for event in job.events()]
    assert kinds[:3] == ["queued", "preparing", "running"]
    assert kinds[-1] == "succeeded"
    assert kinds.count("progress") == 4  # two denoising steps, decoding, measuring
    path = job.save(tmp_path / "result.mp4")
    with av.open(io.BytesIO(path.read_bytes())) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # 10 frames at 16 fps are 0.625 s: 5 frames at the model's 8 fps.
    assert [frame.shape for frame in frames] == [(192, 192, 3)] * 5
    facts = read_provenance(path.read_bytes())
    assert facts is not None
    assert facts["options"]["seed"] == 3
    assert facts["job_id"] == job.id


def test_equal_seeds_give_equal_videos(served: Served) -> None:
    def frames_of(seed: int) -> np.ndarray:
        job = served.client.animate(
            served.picture, served.video, seed=seed, timeout_s=900.0, **FAST
        )
        with av.open(io.BytesIO(job.content())) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames).astype(np.float64)

    first = frames_of(1)
    # The frames before encoding are equal; the video codec may differ by a few steps of 255.
    assert np.abs(frames_of(1) - first).mean() < 0.5
    assert np.abs(frames_of(2) - first).mean() > 2.0


def test_cancel_stops_a_running_job_and_frees_the_worker(served: Served) -> None:
    job = served.client.submit(served.picture, served.video, **ENDLESS)
    eventually(lambda: is_running(job))
    assert job.cancel().cancel_requested
    eventually(lambda: job.status().state == "cancelled", timeout_s=300.0)
    assert job.status().step < 100
    with pytest.raises(ServiceError, match="Job has no result"):
        job.content()
    served.client.animate(served.picture, served.video, timeout_s=900.0, **FAST)


def test_job_survives_the_death_of_its_replica(served: Served) -> None:
    steps = {**FAST, "num_inference_steps": 40}
    job = served.client.submit(served.picture, served.video, seed=9, **steps)
    eventually(lambda: is_running(job) and job.status().step > 0)
    (pid,) = worker_pids(served.config)
    os.kill(pid, signal.SIGKILL)
    status = job.wait(900.0)
    assert status.attempt == 2
    assert status.options["seed"] == 9
    assert "retry" in [event.kind for event in job.events()]
    assert worker_pids(served.config) != [pid]


def test_picture_without_a_person_fails_with_a_remedy(served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 120, 90)).save(tmp_path / "meadow.png")
    job = served.client.submit(tmp_path / "meadow.png", served.video, **FAST)
    with pytest.raises(ServiceError, match=r"shows no person|shows no face") as caught:
        job.wait(900.0)
    assert caught.value.reason in ("AR-POS-01", "AR-FAC-01")
    assert caught.value.fix


def test_service_tells_its_state(served: Served) -> None:
    assert served.client.is_ready()
    page = httpx.get(f"{served.server.url}/metrics").text
    assert 'animaray_stage_duration_seconds_count{stage="denoise"}' in page
    assert 'animaray_workers{state="ready"} 1.0' in page
    with pytest.raises(PortError, match=f"Port {served.config.port} of 127.0.0.1 is taken"):
        start_server(served.config)


def test_stopped_service_goes_on_with_its_jobs_when_started_again(served: Served) -> None:
    job = served.client.submit(served.picture, served.video, seed=5, **ENDLESS)
    eventually(lambda: is_running(job))
    served.server.stop()
    store = JobStore(served.config.store_url)
    (waiting,) = [found for found in store.list_jobs("public") if found.job_id == job.id]
    assert (waiting.state, waiting.attempt) == ("queued", 0)
    with start_server(served.config):
        eventually(lambda: is_running(job))
        job.cancel()
        eventually(lambda: job.status().state == "cancelled", timeout_s=300.0)
    store.close()
