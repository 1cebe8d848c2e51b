"""Train every generated perception network from nothing, in order; the bundled files came so.

    python -m benchmarks.bundled_weights.render_cache --out CACHE
    python -m benchmarks.bundled_weights.train_all --cache CACHE --out generated

About 50 minutes on two CPU cores (docs/lab_log.md, 2026-11-21).
"""

import argparse
import subprocess
import sys
from pathlib import Path

STEPS = {"codec": 4000, "identity": 1000, "image_encoder": 700, "people": 5300}
"""Optimizer steps of the bundled networks."""


def main() -> None:
    """Read the command line and run one training after the other, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of render_cache")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, steps in STEPS.items():
        module = f"benchmarks.bundled_weights.{name}"
        arguments = [
            "--cache",
            str(options.cache),
            "--out",
            str(options.out),
            "--steps",
            str(steps),
        ]
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603


if __name__ == "__main__":
    main()
