"""Let the tests of the command line import what they share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for pseudo_terminal
