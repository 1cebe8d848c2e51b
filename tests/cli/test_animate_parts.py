"""`animaray animate` on real footage by parts, with the files of the package index."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from animaray.cli.main import run
from animaray.platform.media.video import decode_in_child, read_picture
from tests.provenance import read_provenance

pytestmark = pytest.mark.usefixtures("permissive_weights")
REAL = Path(__file__).parents[1] / "data" / "real"
PHOTO, TALKER, SQUATS = (
    str(REAL / name) for name in ("images/p07_1.jpg", "videos/v21.mp4", "videos/v04.mp4")
)
SMALL = ["--long-side", "512", "--max-frames", "6"]


def test_a_photo_talks_with_its_own_pixels_and_the_videos_sound(tmp_path: Path) -> None:
    out, report = tmp_path / "me.mp4", tmp_path / "report"
    assert run(["animate", PHOTO, TALKER, *SMALL, "--out", str(out), "--report", str(report)]) == 0
    facts = read_provenance(out.read_bytes())
    assert facts is not None
    assert (facts["engine"], facts["is_generated"], facts["mode"]) == ("parts", True, "head")
    assert facts["made_by"] == "moved by parts, no generative network"
    with av.open(str(out)) as container:
        (sound,) = container.streams.audio
        packets = [packet for packet in container.demux(sound) if packet.pts is not None]
        assert 0.15 <= float(packets[-1].pts * sound.time_base) < 0.2  # six frames at 30 fps
    result = decode_in_child(out)
    assert result.frames_uint8.shape == (6, 512, 410, 3)
    plan = json.loads((report / "report.json").read_text())["plan"]
    assert plan["result"]["fps"] == 30.0
    assert read_picture(report / "contact_sheet.png").shape[0] > 300
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    assert run(["animate", PHOTO, SQUATS, *SMALL, "--out", str(out), "-n", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["engine"], plan["mode"]) == ("parts", "head")
    assert any("knees" in note for note in plan["notes"])
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([PHOTO, SQUATS, "--steps", "3"], 2, "--steps: of the engine `diffusion`"),
        ([PHOTO, "poses.json"], 2, "needs a driving video"),
        ([PHOTO, SQUATS, "--long-side", "300"], 2, "512"),
        ([PHOTO, SQUATS, "--mode", "body"], 5, "cannot be moved as a whole body: the knees"),
        ([PHOTO, SQUATS, "--profile", "generated", "--engine", "parts"], 2, "works with the prof"),
        ([PHOTO, SQUATS, "--engine", "parts", "--weights", "w"], 2, "weights belong to"),
        ([PHOTO, SQUATS, "--engine", "diffusion", "--mode", "head"], 2, "belong to the engine"),
        ([PHOTO, SQUATS, "--person", "all"], 2, "moves one person"),
        ([str(REAL / "images/n16.jpg"), SQUATS], 5, "shows no person"),
    ],
)
def test_wrong_calls_get_one_line(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("poses.json").write_text("{}")
    Path("w").mkdir()
    engine = [] if "--engine" in arguments else ["--engine", "parts"]
    monkeypatch.setattr("animaray.cli.animate.command.check_weights", lambda _: None)
    assert run(["animate", *arguments, *engine, "--max-frames", "3"]) == code
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error


def test_a_whole_body_is_streamed_as_it_is_made_whole(tmp_path: Path) -> None:
    from animaray.models.animation.engines import DrivingFrames, load_engine

    frames = decode_in_child(SQUATS, short_side_px=288, max_frames=4).frames_uint8
    engine = load_engine("parts")
    results = []
    for driving in (frames, iter(frames)):
        made = engine.animate_frames(frames[0], DrivingFrames(frames_uint8=driving, fps=5.0))
        assert (made.engine, made.facts["mode"]) == ("parts", "body")
        results.append(np.stack(list(made.frames)))
    assert (results[0] == results[1]).all()
    assert results[0].shape == (4, 512, 288, 3)
    # the first frame drives itself: nearly nothing moves
    assert np.abs(results[0][0].astype(int) - frames[0]).mean() < 4
