"""Measurements of wwfast, `python -m benchmarks`; they share namespaces and simulated nodes with tests/support."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
