"""Import, copy, exec and build killed at any moment: no mount, no lock, no half image; the next one cleans up."""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from support.oci import Layout, facts, small_tree, tar_of
from support.patience import until
from wwfast.errors import WwfastError
from wwfast.images import building, manage
from wwfast.images.inside.contain import Room, run_inside
from wwfast.images.sources.importing import import_image
from wwfast.images.sources.options import Options
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.system import locks, work
from wwfast.system.run import start

ENOUGH = 100  # kills
PATIENCE = 45.0  # seconds for all of them

PROGRAM = """
import sys
from pathlib import Path
from wwfast.images import building, manage
from wwfast.images.inside import contain
from wwfast.images.sources import importing
from wwfast.images.sources.options import Options
from wwfast.paths import Paths
from wwfast.system import locks
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
        building.build(paths, "old", building.How(force=True))
    else:
        rootfs = paths.chroots / "old/rootfs"
        with locks.locked(paths.run / "images", "old", "image exec"):
            contain.run_inside(contain.Room("old", rootfs), ["/bin/sh", "-c", "sleep 7777"])
"""


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_image_work_killed_a_hundred_times_leaves_nothing(paths: Paths, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    (tree / "usr/bin/sh").unlink()
    (tree / "usr/bin/sh").write_text("#!/nothing\n")
    layout = Layout(tmp_path / "layout")
    layout.tag("v1", layout.image([tar_of(tree)]))
    sources = {"import": f"oci:{layout.directory}:v1", "update": str(tree)}
    import_image(paths, str(tree), "old", Options())
    building.build(paths, "old")
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
    with locks.locked(paths.run / "images", "old", "test"):
        pass
    import_image(paths, str(tree), "old", Options(), force=True)
    building.build(paths, "old", building.How(force=True))
    for place in (paths.chroots, paths.images / "old"):
        assert not [entry for entry in place.iterdir() if entry.name.startswith(work.PREFIX)]
    assert [entry.name for entry in paths.chroots.iterdir() if not entry.name.startswith("copy")] == ["old"]


@pytest.mark.root
def test_image_exec_killed_takes_its_processes_along(paths: Paths, tmp_path: Path) -> None:
    root = tmp_path / "box"
    for name in ("bin", "dev", "proc", "sys", "run"):
        (root / name).mkdir(parents=True)
    # The interpreter that runs us, with all the server has bound read-only, is a command that surely works.
    script = (
        "import sys; from pathlib import Path; from wwfast.images.inside.contain import *; "
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

    until(sleepers, 30.0)
    process.kill()
    process.wait()
    until(lambda: not sleepers(), 30.0)
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    assert run_inside(Room("box", root), ["/bin/nothing"]) == 127


@pytest.mark.root
def test_image_exec_killed_leaves_no_mount_point_for_the_nodes(paths: Paths, tmp_path: Path) -> None:
    import_image(paths, str(small_tree(tmp_path / "tree")), "old", Options())
    rootfs = ImageStore(paths).get("old").rootfs
    wanted = facts(rootfs)
    source = tmp_path / "bound"
    source.write_text("of the server")
    # It kills itself when all is in place: nothing after that line runs.
    script = (
        "import os, sys; from pathlib import Path; from wwfast.images.inside import contain; "
        "contain.keep = lambda *a: os.kill(os.getppid(), 9) or 0; "
        "b = [contain.Bind(Path(sys.argv[2]), d, copy=c) for d, c in (('/srv/bound', False), ('/srv/copied', True))]; "
        "b.append(contain.Bind(Path(sys.argv[3]), '/srv/directory')); "
        "contain.run_inside(contain.Room('old', Path(sys.argv[1]), b), ['/bin/sh'])"
    )
    words = [sys.executable, "-c", script, str(rootfs), str(source), str(tmp_path)]
    assert start(words, tied=True).wait() == -signal.SIGKILL
    assert {"srv/bound", "srv/copied", "srv/directory"} <= facts(rootfs).keys()
    building.build(paths, "old")
    assert facts(rootfs).keys() == wanted.keys()


@pytest.mark.root
@pytest.mark.parametrize("moment", [1, 2, 3])
def test_image_rename_killed_half_way_is_finished_by_asking_again(paths: Paths, tmp_path: Path, moment: int) -> None:
    import_image(paths, str(small_tree(tmp_path / "tree")), "old", Options())
    built, _ = building.build(paths, "old")
    script = (
        "import os, sys; from pathlib import Path; from wwfast.images import manage; from wwfast.paths import Paths\n"
        "left, real = int(sys.argv[2]), Path.rename\n"
        "def rename(self, target):\n"
        "    global left\n"
        "    left -= 1\n"
        "    return real(self, target) if left else os.kill(os.getpid(), 9)\n"
        "Path.rename = rename\n"
        "manage.rename(Paths.at(sys.argv[1]), 'old', 'new')\n"
    )
    done = start([sys.executable, "-c", script, str(paths.root), str(moment)], tied=True).wait()
    assert done == (0 if moment == 3 else -signal.SIGKILL)
    assert ImageStore(paths).names() == (["old"] if moment == 1 else ["new"])
    image = manage.rename(paths, "old", "new")
    manage.renamed(paths, "new")
    assert image.build is not None
    assert image.build.id == built.id
    assert image.artefact("zst") is not None
    assert ImageStore(paths).names() == ["new"]
    with pytest.raises(WwfastError):
        manage.rename(paths, "old", "new")
