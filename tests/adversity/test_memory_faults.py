"""Memory that runs out in an extension: each of its allocations fails once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.faults import allocations


def test_every_allocation_of_an_extension_may_fail(tmp_path: Path) -> None:
    library = tmp_path / "allocations.so"
    words = ["gcc", "-shared", "-fPIC", "-O2", "-fno-builtin", "-Wall", "-Werror"]
    subprocess.run([*words, "-o", library, allocations.SOURCE, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "support.faults.allocations", tmp_path / "tree"],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed = {name: int(number) for name, number in map(str.split, done.stdout.splitlines())}
    assert set(failed) == {use.__name__ for use in allocations.USES}
    assert min(failed.values()) > 0, "a use that allocates nothing shows nothing"
