"""What the tests ran of src, by folder: `make coverage`. Reads the data that `coverage combine` left.

Child processes count: daemons, template workers, commands. One that is killed by a signal takes what it knew along.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import coverage

SOURCE = Path(__file__).parents[1] / "src/wwfast"


def main() -> None:
    measured = coverage.Coverage()
    measured.load()
    lines, missing = defaultdict(int), defaultdict(int)
    for file in sorted(SOURCE.rglob("*.py")):
        _, statements, _, missed, _ = measured.analysis2(str(file))
        for folder in (str(file.parent.relative_to(SOURCE.parent)), "all"):
            lines[folder] += len(statements)
            missing[folder] += len(missed)
    for folder in sorted(filter(lines.get, lines), key=lambda name: (name == "all", name)):
        print(f"{folder:32} {lines[folder]:6} lines {100 * (1 - missing[folder] / lines[folder]):6.1f} %")


if __name__ == "__main__":
    main()
