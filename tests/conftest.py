"""Shared fixtures: a state directory of the test's own, and a clean environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support import leaks, overlays, watchdog
from support.lab import Laboratory, Namespace, stocked
from wwfast.demo import debian as debian_tree
from wwfast.paths import Paths
from wwfast.system import libc

# The same examples every time, and nothing that depends on the speed of the machine; `make random` looks for others.
settings.register_profile(
    "fixed", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")


def pytest_configure() -> None:
    """Under nohup, or in the background of a script, these are ignored, and what we start would inherit that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(PermissionError):  # not root, or one that may not
        _mount_for_ourselves()


def _mount_for_ourselves() -> None:
    """What is mounted anywhere is news to who watches files: what the other half of the tests mounts is not to ours."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
    Path("/run/netns").mkdir(exist_ok=True)
    libc.mount("tmpfs", "/run/netns", "tmpfs", 0)


@pytest.fixture(scope="session", autouse=True)
def _watched(tmp_path_factory: pytest.TempPathFactory) -> None:
    watchdog.begin(tmp_path_factory.mktemp("loopwatch"))
    leaks.begin()


@pytest.fixture(autouse=True)
def _loops_are_never_kept() -> Iterator[None]:
    """A callback that used more than 50 ms of a loop's thread, here or in a started program, fails the test."""
    yield
    if entries := watchdog.taken():
        pytest.fail(watchdog.complaint(entries), pytrace=False)


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """A test that leaves more descriptors, or native objects of a debug build, than it found fails."""
    with leaks.of_a_test():
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("WWFAST_", "WAREWULF")) and name != "WWFAST_CACHE":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _services_closed(_nothing_left_open: None) -> Iterator[None]:
    yield
    while overlays.OPEN:
        overlays.OPEN.pop().close()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A complete relocated installation below tmp_path, with an empty etc/warewulf."""
    at = Paths.at(tmp_path)
    at.etc.mkdir(parents=True)
    return at


@pytest.fixture(scope="session")
def debian() -> debian_tree.Tree:
    """The Debian 12 tree, made once and cached (about 40 s, root); never write into it.

    The first test that asks for it needs `@pytest.mark.timeout(900)`.
    """
    return debian_tree.tree()


@pytest.fixture(scope="session")
def lab(debian: debian_tree.Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A serving wwfast in a namespace of its own, with one image for all; add nodes and profiles of your own names.

    The first test that asks for it needs `@pytest.mark.timeout(900)`.
    """
    with Namespace(label="test") as network:
        made = stocked(tmp_path_factory.mktemp("lab"), network, debian)
        made.serve()
        yield made
        made.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root") or item.get_closest_marker("vm"):
                item.add_marker(pytest.mark.skip(reason="needs root"))
