"""What users import: every name is there, typed and lazy, and the example of the guide runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import animaray
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.platform.errors import AnimarayError
from animaray.platform.media.video import decode_video, write_mp4, write_picture

ROOT = Path(__file__).resolve().parents[2]
SOURCE = (ROOT / "animaray/__init__.py").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.DOTALL
)
PROMISED = {"curate", "encode", "train_aligner", "train_animator", "AnimationPipeline", "Client"}


def typed_names() -> set[str]:
    """Return the names that a type checker sees."""
    [block] = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_import_is_light() -> None:
    code = (
        "import sys, animaray; assert animaray.errors.PoseError; assert 'curate' in dir(animaray);"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert not {"torch", "ray", "numpy", "cv2", "pyarrow", "httpx"} & set(done.stdout.split())


def test_every_promised_name_is_public_and_typed() -> None:
    names = set(animaray.__all__) - {"__version__"}
    assert names >= PROMISED
    assert names == set(animaray._HOMES) == typed_names()


@pytest.mark.parametrize("name", animaray.__all__)
def test_every_public_name_is_what_its_module_has(name: str) -> None:
    found = getattr(animaray, name)
    assert found is getattr(animaray, name)
    module, colon, attribute = animaray._HOMES.get(name, "").partition(":")
    if module:
        home = sys.modules[f"animaray.{module}"]
        assert found is (home if colon and not attribute else getattr(home, attribute or name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'animate_everything'"):
        animaray.animate_everything  # noqa: B018


def test_one_base_catches_every_error() -> None:
    assert animaray.AnimarayError is AnimarayError is animaray.errors.AnimarayError
    assert issubclass(animaray.errors.MediaError, animaray.AnimarayError)


def test_the_first_example_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = render_clip(sample_clip_spec(3, framing="full", num_frames=4, size=(192, 192)))
    write_mp4(tmp_path / "dance.mp4", clip.frames_uint8, 8.0)
    write_picture(tmp_path / "me.png", clip.frames_uint8[0])
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[0], "docs/python.md", "exec"), {})  # noqa: S102 - our own guide
    result = decode_video(tmp_path / "me-dancing.mp4")
    assert result.frames_uint8.shape == (4, 192, 192, 3)
    assert "4 frames" in capsys.readouterr().out


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_uses_public_names_only(number: int) -> None:
    used = set(re.findall(r"\banimaray\.(\w+)", EXAMPLES[number]))
    assert used
    assert used <= set(animaray.__all__)
