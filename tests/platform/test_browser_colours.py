"""A real browser shows our videos in the colours that were sent."""

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from animaray.platform.media.video import write_mp4

COLOURS = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 90), (90, 140, 60), (255, 200, 180),
    (40, 40, 40), (128, 128, 128),
)  # fmt: skip
SIZES = ((192, 192), (576, 1024))
PAGE = """<body><script>
async function colours(name) {
  const video = document.createElement('video');
  video.muted = true;
  video.src = name;
  await new Promise((done, failed) => {
    video.onloadeddata = done;
    video.onerror = () => failed(video.error.message);
  });
  await new Promise(done => { video.onseeked = done; video.currentTime = 0.25; });
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0);
  return [...Array(8).keys()].map(place => [...context.getImageData(
    Math.floor((2 * place + 1) * canvas.width / 16), canvas.height / 2, 1, 1).data].slice(0, 3));
}
(async () => {
  const found = {};
  for (const name of location.hash.slice(1).split(',')) {
    try { found[name] = await colours(name); } catch (error) { found[name] = String(error); }
  }
  await fetch('/found', {method: 'POST', body: JSON.stringify(found)});
})();
</script></body>"""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, threading.Event, dict[str, object]]]:
    """Serve a folder on loopback; yield its address and what the page sends back."""
    found: dict[str, object] = {}
    is_there = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def do_POST(self) -> None:
            found.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            is_there.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/page.html", is_there, found
        server.shutdown()


def test_a_browser_shows_the_colours_that_were_sent(tmp_path: Path) -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on PATH (apt-get install chromium)")
    for width, height in SIZES:
        columns = np.repeat(np.array(COLOURS, np.uint8), width // 8, axis=0)
        frame = np.broadcast_to(columns, (height, width, 3))
        write_mp4(tmp_path / f"{width}x{height}.mp4", np.stack([frame] * 10), 10.0)
    (tmp_path / "page.html").write_text(PAGE)
    with served(tmp_path) as (address, is_there, found):
        # SwiftShader computes as a graphics card does; without one, blue is clamped (libyuv).
        chromium = subprocess.Popen(  # noqa: S603 - our own page
            [
                browser, "--headless=new", "--no-sandbox", "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
                f"--user-data-dir={tmp_path / 'profile'}",
                f"{address}#{','.join(f'{width}x{height}.mp4' for width, height in SIZES)}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert is_there.wait(120), "the page did not answer"
        finally:
            chromium.terminate()
            chromium.wait(20)
    for width, height in SIZES:
        shown = found[f"{width}x{height}.mp4"]
        assert np.abs(np.array(shown) - COLOURS).max() <= 3, (width, height, shown)
