"""Each target of tests/fuzz over all its seeds, and over so many inputs made of them, the same every time."""

from __future__ import annotations

import pytest

from support import fuzzing

COUNT = 20_000  # inputs, where the target names no other number: 3 s at most


@pytest.mark.parametrize("name", fuzzing.names())
def test_fuzz_seeds_hold(name: str) -> None:
    one = fuzzing.target(name).one
    for data in (b"", *fuzzing.seeds(name).values()):
        one(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzzing.names())
def test_fuzz_new_inputs_hold(name: str) -> None:
    target = fuzzing.target(name)
    one = target.one
    for data in fuzzing.inputs(name, getattr(target, "COUNT", COUNT)):
        try:
            one(data)
        except BaseException as error:
            error.add_note(f"by {data!r}; to be kept as a seed in {fuzzing.SEEDS / name}")
            raise
