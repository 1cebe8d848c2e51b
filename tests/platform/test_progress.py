"""Progress off a terminal: a line at the start and the end, and a failure is told."""

import io

import pytest

from animaray.platform import progress
from animaray.platform.progress import StageProgress


def test_plain_stream_gets_start_and_end_lines() -> None:
    stream = io.StringIO()
    with StageProgress("faces", 3, stream=stream) as row:
        row.advance(2, note="2 kept")
        row.advance()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "faces: started 0/3 after 0 s"
    assert lines[-1].startswith("faces: done 3/3 after 0 s")
    assert len(lines) == 2


def test_a_line_appears_when_the_interval_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    with StageProgress("pose", 2, stream=stream) as row:
        row.advance(note="a.mp4")
    assert "pose: running 1/2 after 0 s a.mp4" in stream.getvalue()


def test_rate_and_time_left_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    now_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    with StageProgress("look", 8, stream=stream) as row:
        now_s[0] += 30.0
        row.advance(2)
    assert "look: running 2/8 after 30 s, 4/min, 90 s left" in stream.getvalue()


def test_failure_is_told() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="boom"), StageProgress("x", None, stream=stream):
        raise ValueError("boom")
    assert "x: stopped 0 after 0 s" in stream.getvalue()
