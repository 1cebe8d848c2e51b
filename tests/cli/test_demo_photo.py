"""The demo on real videos without weights: pull, curate, move a photo, show it."""

import json
import shutil

import pytest

from animaray.cli.demo.parts import run_photo_demo
from animaray.cli.demo.run import DemoRun, DemoSettings
from animaray.platform.media.video import probe_in_child
from tests.provenance import read_provenance


@pytest.mark.usefixtures("local_ray", "permissive_weights")
def test_a_folder_of_videos_gives_a_page_with_a_photo_that_moves(real_data, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(real_data / "videos" / "v18.mp4", videos)  # a dark hall: nobody to follow
    shutil.copy(real_data / "videos" / "v04.mp4", videos)  # a woman who does squats
    settings = DemoSettings(out=tmp_path / "demo", videos=videos, profile="permissive")
    run = DemoRun(settings)
    page = run_photo_demo(run).read_text()
    result = settings.media_dir / "result.mp4"
    info = probe_in_child(result)
    assert max(info.width, info.height) == 768
    facts = read_provenance(result.read_bytes())
    assert facts is not None
    assert facts["engine"] == "parts"
    assert facts["mode"] == "body"
    assert "no generative network" in page
    assert "media/result.mp4" in page
    assert "v04.mp4" in page
    report = json.loads((settings.media_dir / "report" / "report.json").read_text())
    assert report["plan"]["result"]["num_frames"] == 65
