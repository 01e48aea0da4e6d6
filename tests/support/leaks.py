"""What a test leaves open: descriptors of this process and, in a debug build, native objects.

A descriptor is named by what it leads to, so one that was closed and opened again is none. Garbage is collected only
where the numbers differ: that takes longer than most tests. Exempt are

- the pipe of libuv for signals, which all loops share, by opening it before (`begin`);
- the connection to the process that template workers are forked from, one for each process (`Helper`);
- what a server of a whole module opens while one of its tests runs: all that it left is counted when it has ended.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import pkgutil
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvloop

from wwfast import _ext
from wwfast.overlays.making.crew import Helper

SETTLE = 2.0  # seconds: the other side of a connection is closed by another thread
_testing = False
_servers = 0  # of whole modules
_MODULES = [importlib.import_module(f"wwfast._ext.{each.name}") for each in pkgutil.iter_modules(_ext.__path__)]


def descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    helper = -1 if Helper.there is None else Helper.there[2].fileno()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - for each test
        if int(number) == helper:
            continue
        try:
            leads_to = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except FileNotFoundError:  # the one that the list itself was read with
            continue
        found[leads_to] += 1
    return found


def natives() -> Counter[str]:
    """Live objects by type; empty in a release build."""
    return Counter({name: count for module in _MODULES for name, count in getattr(module, "live", dict)().items()})


def held() -> Counter[str]:
    return descriptors() + natives()


def left(before: Counter[str]) -> list[str]:
    """What is there now and was not before."""
    if not held() - before:
        return []
    gc.collect()
    until = time.monotonic() + SETTLE
    while (more := held() - before) and time.monotonic() < until:
        time.sleep(0.01)
    return sorted(more.elements())


def begin() -> None:
    """Open what libuv opens once for all loops: the pipe of its signals."""
    uvloop.run(asyncio.sleep(0))


@contextmanager
def forbidden() -> Iterator[None]:
    """Fails where what was done meanwhile left anything open."""
    before = held()
    yield
    if more := left(before):
        pytest.fail(f"left open: {', '.join(more)}", pytrace=False)


@contextmanager
def of_a_test() -> Iterator[None]:
    global _testing
    if _servers:
        yield
        return
    _testing = True
    try:
        with forbidden():
            yield
    finally:
        _testing = False


@contextmanager
def of_a_server() -> Iterator[None]:
    """Around one in this process, which may be a test's or outlive it."""
    global _servers
    if _testing:
        yield
        return
    _servers += 1
    try:
        with forbidden():
            yield
    finally:
        _servers -= 1


@contextmanager
def descriptors_at_most(more: int) -> Iterator[None]:
    """So many can be opened besides those that are open."""
    probe = os.dup(0)
    os.close(probe)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
