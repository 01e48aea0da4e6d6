"""Changes are noticed by inotify, and by looking again where inotify says nothing."""

from __future__ import annotations

import time
from pathlib import Path

from wwfast.watch import POLL, Watch


def test_watch_says_at_once_what_happened_on_a_local_disk(tmp_path: Path) -> None:
    watch = Watch()
    watch.add([tmp_path])
    assert not watch.changed()
    (tmp_path / "new").touch()
    assert watch.changed()
    assert not watch.changed()
    watch.close()


def test_watch_looks_again_and_again_where_the_kernel_tells_nothing() -> None:
    watch = Watch()
    watch.add(["/proc/self"])  # no local file system: others may change it
    for _ in range(3):
        began = time.monotonic()
        while not watch.changed():
            assert time.monotonic() < began + 20 * POLL
            time.sleep(POLL / 50)
        assert not watch.changed()
    watch.close()
