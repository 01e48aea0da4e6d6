"""Import, copy, exec and build killed at any moment: no mount, no lock, no half image; the next one cleans up."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from support.oci import Layout, facts, small_tree, tar_of
from wwfast.images import publish, work
from wwfast.images.contain import Room, run_inside
from wwfast.images.importing import import_image
from wwfast.images.options import Options
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.run import start

ENOUGH = 100  # kills
PATIENCE = 45.0  # seconds for all of them

PROGRAM = """
import sys
from pathlib import Path
from wwfast.images import contain, importing, manage, publish, work
from wwfast.images.options import Options
from wwfast.paths import Paths
paths, what, source = Paths.at(sys.argv[1]), sys.argv[2], sys.argv[3]
print("ready", flush=True)
for n in range(1000):
    if what == "import":
        importing.import_image(paths, source, "old", Options(), force=True)
    elif what == "update":
        importing.import_image(paths, source, "old", Options(), update=True)
    elif what == "copy":
        manage.copy(paths, "old", f"{source}.{n}")
        manage.delete(paths, f"{source}.{n}")
    elif what == "build":
        publish.build(paths, "old", publish.How(force=True))
    else:
        rootfs = paths.chroots / "old/rootfs"
        with work.locked(paths.run / "images", "old", "image exec"):
            contain.run_inside(contain.Room("old", rootfs), ["/bin/sh", "-c", "sleep 7777"])
"""


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_image_work_killed_a_hundred_times_leaves_nothing(paths: Paths, tmp_path: Path) -> None:
    import sys

    tree = small_tree(tmp_path / "tree")
    (tree / "usr/bin/sh").unlink()
    (tree / "usr/bin/sh").write_text("#!/nothing\n")
    layout = Layout(tmp_path / "layout")
    layout.tag("v1", layout.image([tar_of(tree)]))
    sources = {"import": f"oci:{layout.directory}:v1", "update": str(tree)}
    import_image(paths, str(tree), "old", Options())
    publish.build(paths, "old")
    wanted = facts(ImageStore(paths).get("old").rootfs)
    chance = random.Random(7)
    begun = time.monotonic()
    kills = 0
    while kills < ENOUGH and time.monotonic() - begun < PATIENCE:
        what = ("import", "update", "copy", "exec", "build")[kills % 5]
        words = [sys.executable, "-c", PROGRAM, str(paths.root), what, sources.get(what, f"copy{kills}")]
        with (tmp_path / "said").open("w+b") as said:
            process = start(words, stdout=said, stderr=said, tied=True)
            while b"ready" not in (tmp_path / "said").read_bytes():
                assert process.poll() is None, (tmp_path / "said").read_text()
                time.sleep(0.01)
            time.sleep(chance.random() * 0.12)
            process.send_signal(signal.SIGKILL)
            process.wait()
        kills += 1
        images = ImageStore(paths)
        assert "old" in images.names()
        for name in images.names():
            if what == "copy" or name == "old":
                assert facts(images.get(name).rootfs).keys() == wanted.keys(), f"{name} is half"
        if what in ("import", "build", "exec"):
            assert facts(ImageStore(paths).get("old").rootfs) == wanted
        assert ImageStore(paths).get("old").artefact("zst") is not None
    assert kills >= 10, "the machine is too slow to say anything"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    # Locks are free at once, and the next import and build remove what was left behind.
    with work.locked(paths.run / "images", "old", "test"):
        pass
    import_image(paths, str(tree), "old", Options(), force=True)
    publish.build(paths, "old", publish.How(force=True))
    for place in (paths.chroots, paths.images / "old"):
        assert not [entry for entry in place.iterdir() if entry.name.startswith(work.PREFIX)]
    assert [entry.name for entry in paths.chroots.iterdir() if not entry.name.startswith("copy")] == ["old"]


@pytest.mark.root
def test_image_exec_killed_takes_its_processes_along(paths: Paths, tmp_path: Path) -> None:
    import sys

    root = tmp_path / "box"
    for name in ("bin", "dev", "proc", "sys", "run"):
        (root / name).mkdir(parents=True)
    # The interpreter that runs us, with all the server has bound read-only, is a command that surely works.
    script = (
        "import sys; from pathlib import Path; from wwfast.images.contain import *; "
        "run_inside(Room('box', Path(sys.argv[1]), [Bind(Path(p), p, True) for p in ('/usr', '/lib', '/lib64')]), "
        "['/usr/bin/sleep', '77777'])"
    )
    for name in ("lib", "lib64", "usr"):
        (root / name).mkdir(exist_ok=True)
    process = start([sys.executable, "-c", script, str(root)], tied=True)

    def sleepers() -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if entry.read_bytes() == b"/usr/bin/sleep\x0077777\0":
                    found.append(entry.parent.name)
            except OSError:
                continue
        return found

    deadline = time.monotonic() + 30
    while not sleepers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sleepers()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while sleepers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not sleepers()
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    assert run_inside(Room("box", root), ["/bin/nothing"]) == 127
