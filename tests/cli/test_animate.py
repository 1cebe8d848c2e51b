"""`animaray animate` from end to end on generated people, and one clear line for wrong inputs."""

import json
import math
import shutil
import signal
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from animaray.cli import main
from animaray.cli.animate import plan as animate_plan
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.animation.options import AnimationOptions
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.subjects.pose_files import write_pose_file
from animaray.platform.media.video import add_sound_in_child, encode_mp4, probe_in_child
from animaray.platform.weights.store import resolve_weights
from tests.provenance import read_provenance

TALKER = Path(__file__).parents[1] / "data" / "real" / "videos" / "v21.mp4"
FAST = ["--steps", "1", "--face-optimization", "off"]


def run(arguments: list[str]) -> int:
    """Run the command on people of the generated world, which the bundled animator knows."""
    command, *rest = arguments
    return main.run([command, "--profile", "generated", *rest])


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one person, two people and nobody, as pictures and videos."""
    folder = tmp_path_factory.mktemp("media")
    people = {"one": (5,), "two": (11, 12), "nobody": (), "faceless": (5,)}
    for seed, (name, seeds) in enumerate(people.items()):
        spec = sample_clip_spec(
            seed, num_frames=3, camera_kind="static", motion_kind="idle", person_seeds=seeds,
            framing="full", size=(256, 256),
            yaw_offset_rad=math.pi if name == "faceless" else 0.0,
        )  # fmt: skip
        frames = render_clip(spec).frames_uint8
        (folder / f"{name}.mp4").write_bytes(encode_mp4(frames, 12.5))
        Image.fromarray(frames[0]).save(folder / f"{name}.png")
    (folder / "text.png").write_text("no picture")
    (folder / "text.mp4").write_text("no video")
    (folder / "bad.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def pipeline() -> AnimationPipeline:
    return AnimationPipeline.from_pretrained(resolve_weights("generated/animator"))


@pytest.fixture(autouse=True)
def _in_the_media_folder(
    media: Path, pipeline: AnimationPipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Work in a fresh folder beside the media, with the networks loaded once."""
    for path in media.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        animate_plan.AnimationPipeline, "from_pretrained", lambda folder: _checked(folder, pipeline)
    )


def test_weights_without_an_aligner_use_the_bundled_one(pipeline: AnimationPipeline) -> None:
    assert not (resolve_weights("generated/animator") / "aligner").exists()
    assert pipeline.aligner is not None
    assert pipeline.alignment_method(AnimationOptions()) == "learned"


_from_pretrained = AnimationPipeline.from_pretrained


def _checked(folder: Path, pipeline: AnimationPipeline) -> AnimationPipeline:
    return pipeline if Path(folder).name == "animator" else _from_pretrained(folder)


def _frames(path: Path | str) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames), rate


def test_dry_run_shows_the_plan_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    arguments = ["animate", "one.png", "one.mp4", "--report", "report", "--save-poses", "p.json"]
    assert run([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr()
    subjects = [line.split()[0] for line in printed.out.splitlines() if not line.startswith(" ")]
    assert subjects == [
        "picture", "driving", "poses", "alignment", "sampling", "faces", "memory", "weights",
        "result", "note", "note",
    ]  # fmt: skip
    assert "pixels high, so the result may look like somebody else" in printed.out
    assert "3 frames at 12.5 fps" in printed.out
    assert "other methods: none good" in printed.out
    assert "nothing was written" in printed.err
    assert run([*arguments, "-n", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["result"] == {
        "width_px": 192, "height_px": 192, "num_frames": 3, "fps": 12.5, "has_sound": False,
    }  # fmt: skip
    assert plan["num_people_seen"] == {"picture": 1, "driving": 1}
    assert plan["memory"]["needed_bytes"] > 0
    assert plan["face_optimization"] == "fast"
    assert sorted(tmp_path.iterdir()) == before


def test_result_report_previews_and_poses_are_written_and_repeat(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = [
        "animate", "--image", "one.png", "--driving", "one.mp4", *FAST, "--seed", "4",
    ]  # fmt: skip
    extras = ["--report", "report", "--preview", "1", "--save-poses", "poses.npz", "--json"]
    assert run([*arguments, "--out", "a.mp4", *extras]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["num_frames"] == 3
    frames, rate = _frames("a.mp4")
    assert frames.shape == (3, 192, 192, 3)
    assert rate == pytest.approx(12.5)  # the source's
    report = json.loads(Path("report/report.json").read_text())
    assert report["plan"]["alignment"][0]["verdict"] in {"good", "usable"}
    assert len(report["result"]["identity_similarity_by_frame"][0]) == 3
    written = sorted(str(path.relative_to("report")) for path in Path("report").rglob("*.*"))
    assert written == [
        "alignment.png", "contact_sheet.png", "previews/step_001.png", "report.json",
    ]  # fmt: skip
    # The same seed gives the same frames, from the video and from the poses it was reduced to.
    for driving, out in (("one.mp4", "b.mp4"), ("poses.npz", "c.mp4")):
        assert run(["animate", "one.png", driving, *FAST, "--seed", "4", "--out", out]) == 0
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()
    assert np.array_equal(_frames("a.mp4")[0], _frames("c.mp4")[0])
    made_by = read_provenance(Path("a.mp4").read_bytes())
    assert made_by is not None
    assert (made_by["engine"], made_by["sampling"]["seed"]) == ("diffusion", 4)
    assert not list(tmp_path.glob(".*tmp"))


def test_everybody_is_animated_with_an_identity_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["animate", "two.png", "two.mp4", *FAST, "--json", "--max-frames", "2"]
    assert run([*arguments, "--person", "all", "--identity", "one.png"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["plan"]["num_people"] == 2
    assert len(document["companions"]) == 1
    assert "The network is told person 1's identity only" in printed.err
    chosen = ["--person", "left", "--reference-person", "2"]
    assert run([*arguments, *chosen, "-n"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["num_people"] == 1


def test_several_people_are_shown_with_their_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    for image, driving, picture in (
        ("two.png", "one.mp4", "people-picture.png"),
        ("one.png", "two.mp4", "people-driving.png"),
    ):
        assert run(["animate", image, driving, "--report", "report"]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("animaray: 2 people are visible in the ")
        assert f"See report/{picture}." in message
        with Image.open(f"report/{picture}") as shown:
            assert shown.size[0] > 100
        Path(f"report/{picture}").unlink()


def test_a_character_without_a_face_speaks_with_the_videos_sound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = probe_in_child(TALKER)
    add_sound_in_child(Path("one.mp4"), TALKER, Path("loud.mp4"), info=info, duration_s=0.24)
    arguments = ["animate", "faceless.png", "loud.mp4", "--steps", "1", "--max-frames", "2"]
    assert run([*arguments, "--out", "a.mp4"]) == 5
    assert "--no-face" in capsys.readouterr().err
    assert run([*arguments, "--no-face", "--out", "a.mp4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["identity_similarity"] is None
    assert document["plan"]["face_optimization"] == "off"
    made_by = read_provenance(Path("a.mp4").read_bytes())
    assert made_by is not None
    assert made_by["no_face"] is True
    with av.open("a.mp4") as container:
        (sound,) = container.streams.audio
        packets = [packet for packet in container.demux(sound) if packet.pts is not None]
    assert (
        0.1 < max(float(packet.pts * sound.time_base) for packet in packets) < 0.16
    )  # two frames at 12.5 fps
    assert run([*arguments, "--no-face", "--no-audio", "-n", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["result"]["has_sound"] is False


WRONG = [
    (["none.png", "one.mp4"], 2, "There is no file none.png"),
    (["one.png", "none.mp4"], 2, "There is no file none.mp4"),
    (["one.png"], 2, "--driving is missing"),
    (["one.png", "one.mp4", "--image", "two.png"], 2, "--image is given twice"),
    (["text.png", "one.mp4"], 5, "text.png is a text file, not a picture"),
    (["one.png", "text.mp4"], 5, "text.mp4"),
    (["nobody.png", "one.mp4"], 5, "shows no person"),
    (["faceless.png", "one.mp4"], 5, "shows no face"),
    (["one.png", "one.mp4", "--no-face", "--identity", "two.png"], 2, "exclude each other"),
    (["one.png", "nobody.mp4"], 5, "3 of 3 frames of the driving video show nobody"),
    (["two.png", "one.mp4"], 2, "--reference-person left, right"),
    (["one.png", "two.mp4"], 2, "--person left, right"),
    (["one.png", "two.mp4", "--person", "3"], 2, "no person 3 in the driving video"),
    (["one.png", "two.mp4", "--person", "middle"], 2, "got `middle`"),
    (["one.png", "one.mp4", "--person", "1", "--person", "2"], 2, "would move 1 of the picture"),
    (["two.png", "one.mp4", "--person", "all"], 2, "shows 2 people and the driving video 1"),
    (["one.png", "one.mp4", "--identity", "nobody.png"], 5, "nobody.png: The identity picture"),
    (["one.png", "bad.json"], 5, "bad.json is not a pose file"),
    (["one.png", "one.mp4", "--alignment", "magic"], 2, "'magic' is not one of 'none', 'fit'"),
    (["one.png", "one.mp4", "--out", "no-folder/a.mp4"], 2, "There is no folder"),
    (["one.png", "one.mp4", "--out", "a.avi"], 2, "must end in .mp4"),
    (["one.png", "one.mp4", "--save-poses", "a.txt"], 2, "ends in .json or .npz"),
    (["one.png", "one.mp4", "--fps", "fast"], 2, "--fps takes"),
    (["one.png", "one.mp4", "--fps", "1"], 5, "at least 2 are needed"),
    (["one.png", "one.mp4", "--driving-size", "big"], 2, "WIDTHxHEIGHT"),
    (["one.png", "one.mp4", "--guidance-min", "2"], 2, "belong together"),
    (["one.png", "one.mp4", "--window-frames", "4", "--window-overlap", "4"], 2, "window_overlap"),
    (["one.png", "one.mp4", "--weights", "."], 4, "weights folder"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG)
def test_wrong_inputs_give_one_line_and_write_nothing(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    before = sorted(tmp_path.iterdir())
    assert run(["animate", *arguments, *FAST]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("animaray: ")]
    assert message in (lines[0] if lines else " ".join(error.split()))
    assert len(lines) <= 1
    assert sorted(tmp_path.iterdir()) == before


def test_too_little_memory_is_refused_before_the_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(animate_plan, "available_memory_bytes", lambda: -(10**12))
    arguments = ["animate", "one.png", "one.mp4", "--out", "a.mp4"]
    for extra in ([], ["--dry-run"]):
        assert run([*arguments, *extra]) == 5
        message = capsys.readouterr().err
        assert "GiB are free; nothing was started" in message
        assert "--max-frames" in message
    assert not Path("a.mp4").exists()
    assert run([*arguments, "--force", "--dry-run"]) == 0


def test_what_would_fit_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["animate", "one.png", "one.mp4", "-n", "--json"]) == 0
    fast = json.loads(capsys.readouterr().out)["plan"]["memory"]["needed_bytes"]
    arguments = ["animate", "one.png", "one.mp4", "-n", "--face-optimization", "literal", "--json"]
    assert run(arguments) == 0
    memory = json.loads(capsys.readouterr().out)["plan"]["memory"]
    assert memory["needed_bytes"] > fast
    # Between the two: the free bytes are those beyond the loaded networks.
    held = memory["available_bytes"] - animate_plan.available_memory_bytes()
    free = (fast + memory["needed_bytes"]) // 2 - held
    monkeypatch.setattr(animate_plan, "available_memory_bytes", lambda: free)
    assert run(arguments) == 5
    message = capsys.readouterr().err
    assert "the peak is face optimization" in message
    assert "It would fit with --face-optimization fast (about" in message


def test_a_pose_that_does_not_fit_is_refused_unless_forced(
    capsys: pytest.CaptureFixture[str], pipeline: AnimationPipeline
) -> None:
    frames, fps = _frames("one.mp4")
    write_pose_file(Path("p.json"), pipeline.follow_people(frames).motions(), fps)
    document = json.loads(Path("p.json").read_text())
    document["people"][0]["keypoints"] = [
        [[x - 230, y] for x, y in frame] for frame in document["people"][0]["keypoints"]
    ]
    Path("p.json").write_text(json.dumps(document))
    arguments = ["animate", "one.png", "p.json", *FAST, "--alignment", "none", "--out", "a.mp4"]
    assert run([*arguments, "--report", "report"]) == 5
    message = capsys.readouterr().err.splitlines()[-1]
    assert "The driving body does not fit the picture" in message
    assert "--alignment fit fits better" in message or "--alignment procrustes fits" in message
    assert Path("report/alignment.png").exists()
    assert not Path("a.mp4").exists()
    assert run([*arguments, "--force", "--dry-run"]) == 0


def test_ctrl_c_leaves_no_half_file(
    capsys: pytest.CaptureFixture[str],
    pipeline: AnimationPipeline,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    decode = type(pipeline.codec).decode

    def interrupted(codec: object, latents: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return decode(codec, latents)

    monkeypatch.setattr(type(pipeline.codec), "decode", interrupted)
    before = sorted(tmp_path.iterdir())
    # Whoever starts the tests from a background shell hands down that SIGINT is ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(["animate", "one.png", "one.mp4", *FAST, "--out", "a.mp4"]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert "a.mp4 was not written." in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_an_old_result_survives_a_refusal() -> None:
    Path("a.mp4").write_bytes(b"old")
    assert run(["animate", "nobody.png", "one.mp4", "--out", "a.mp4"]) == 5
    assert Path("a.mp4").read_bytes() == b"old"


def test_frame_rates_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    rates = {}
    for fps in ("model", "source", "25"):
        assert run(["animate", "one.png", "one.mp4", "--fps", fps, "-n", "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)["plan"]["result"]
        rates[fps] = plan["fps"], plan["num_frames"]
    # The frames lie at 0, 0.08 and 0.16 s.
    assert rates == {"model": (8.0, 2), "source": (12.5, 3), "25": (25.0, 5)}
