"""Each target of tests/fuzz over all its seeds, and for some seconds over inputs made of them, the same every time."""

from __future__ import annotations

import pytest

from support import fuzzing

SECONDS = 5.0


@pytest.mark.parametrize("name", fuzzing.names())
def test_fuzz_seeds_hold(name: str) -> None:
    one = fuzzing.target(name).one
    for data in (b"", *fuzzing.seeds(name).values()):
        one(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzzing.names())
def test_fuzz_new_inputs_hold(name: str) -> None:
    one = fuzzing.target(name).one
    for data in fuzzing.inputs(name, SECONDS):
        try:
            one(data)
        except BaseException as error:
            error.add_note(f"by {data!r}; to be kept as a seed in {fuzzing.SEEDS / name}")
            raise
