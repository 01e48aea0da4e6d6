"""Where stage-1 fetches its image: from the caches of its rack, from the server where these fail, lie or are silent."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stage1 import BODY, Server, listed, run, serving
from wwfast.boot.standing import PREFIX

SIZE = 300_000
NAME = PREFIX + hashlib.sha256(BODY).hexdigest()
RANGES = [f"bytes={at}-{min(at + SIZE, len(BODY)) - 1}" for at in range(0, len(BODY), SIZE)]
ORDERED = sorted(RANGES)  # two are asked for at a time
#: A cache is silent for twenty seconds; with this for one.
HASTY = "QUIET=1"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as made:
        yield made


@pytest.fixture
def near() -> Iterator[Server]:
    with serving(Server()) as made:
        yield made


@pytest.fixture
def other() -> Iterator[Server]:
    with serving(Server()) as made:
        yield made


def boot(place: Path, server: Server, *caches: str) -> subprocess.CompletedProcess[str]:
    """The image must be right, whoever it comes from."""
    words = f"blob={NAME} caches=$(words '{','.join(caches)}') {HASTY}"
    done = run(place, server, f"{words}; fetch_image {listed(place, SIZE)} {place}/root; tell_origins")
    assert done.returncode == 0, done
    assert (place / "root").read_bytes() == BODY
    return done


def test_stage1_image_comes_from_the_first_cache_alone(
    tmp_path: Path, server: Server, near: Server, other: Server
) -> None:
    boot(tmp_path, server, near.base, other.base)
    assert (sorted(near.asked), other.asked, server.asked) == (ORDERED, [], [])
    assert near.paths == [f"/blob/{NAME}"] * len(RANGES), "neither who asks nor its asset key"
    assert server.told == [f"of the image came 1 MiB from {near.base}"]
    assert server.carried == [f"{near.base}*{len(BODY)}"]


def test_stage1_without_caches_tells_of_none(tmp_path: Path, server: Server) -> None:
    done = run(tmp_path, server, f"fetch_image {listed(tmp_path, SIZE)} {tmp_path}/root; tell_origins")
    assert (done.returncode, sorted(server.asked), server.told) == (0, ORDERED, [])


@pytest.mark.parametrize("fault", ["404", "500", "503", "flipped", "held"])
def test_stage1_cache_that_fails_once_is_asked_no_more(
    tmp_path: Path, server: Server, near: Server, other: Server, fault: str
) -> None:
    near.faults = ["", fault]
    boot(tmp_path, server, near.base, other.base)
    assert 2 <= len(near.asked) <= 3, "two are fetched at a time"
    assert {*near.asked, *other.asked} == {*RANGES}
    assert (len(other.asked) >= 2, server.asked) == (True, [])
    lost, came = server.told
    assert lost.startswith(f"the cache {near.base} is not asked again: ")
    assert came == f"of the image came 0 MiB from {near.base}, 0 MiB from {other.base}"


@pytest.mark.parametrize("fault", ["flipped", "404", "held", "cut", "whole"])
def test_stage1_caches_that_all_fail_leave_the_server(
    tmp_path: Path, server: Server, near: Server, other: Server, fault: str
) -> None:
    near.always = other.always = fault
    boot(tmp_path, server, near.base, other.base)
    assert len([told for told in server.told if "is not asked again" in told]) == 2
    assert len(near.asked) <= 4
    assert len(other.asked) <= 4
    assert server.asked, "what is left"


def test_stage1_cache_that_was_started_anew_is_asked_again(tmp_path: Path, server: Server, near: Server) -> None:
    near.faults = ["", "cut"]
    boot(tmp_path, server, near.base)
    assert (len(near.asked), server.asked) == (len(RANGES) + 1, [])
    assert len(server.told) == 1, "it is no trouble"


def test_stage1_caches_of_which_nobody_is_there_cost_two_tries(tmp_path: Path, server: Server) -> None:
    with serving(Server()) as gone:
        pass
    boot(tmp_path, server, gone.base)
    assert sorted(server.asked) == ORDERED
    assert server.told[0].startswith(f"the cache {gone.base} is not asked again: curl: (7)")
    assert len((tmp_path / "pauses").read_text().split()) <= 2, "one for each of two that are fetched at a time"


def test_stage1_server_is_asked_again_for_what_a_cache_and_it_gave_wrong(
    tmp_path: Path, server: Server, near: Server
) -> None:
    near.faults, server.faults = ["flipped"], ["flipped"]
    boot(tmp_path, server, near.base)
    lost, wrong, came = sorted(server.told[:2]) + server.told[2:]
    assert lost.startswith(f"the cache {near.base} is not asked again: its piece of the image at byte ")
    assert wrong.endswith(" is not what was built (1)")
    assert came.startswith("of the image came ")
