"""Write files of the published names, formats and signatures with random weights, to rehearse with.

    python -m benchmarks.rehearsal.kit KIT             small: 2 MB, seconds
    python -m benchmarks.rehearsal.kit KIT --full      published sizes: 12 GB on disk, 10 GB memory
    ANIMARAY_WEIGHTS=KIT PYTHONPATH=KIT/packages animaray weights list --profile paper

What the files are and are not: benchmarks/rehearsal/published_files.py.
"""

import argparse
import time
from pathlib import Path

from benchmarks.rehearsal.published_files import write_kit
from benchmarks.rehearsal.sizes import FULL, SMALL


def main() -> None:
    """Write a kit and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--full", action="store_true", help="published sizes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()

    def tell(part: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {part}", flush=True)

    write_kit(options.out, FULL if options.full else SMALL, seed=options.seed, on_part=tell)
    for file in sorted(path for path in options.out.rglob("*") if path.is_file()):
        print(f"{file.stat().st_size:>14,}  {file.relative_to(options.out)}")
    tell("done")


if __name__ == "__main__":
    main()
