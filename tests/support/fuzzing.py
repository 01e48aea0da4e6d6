"""Fuzz targets, the modules of tests/fuzz: their seeds replayed, new inputs from a seed of chance, atheris by hand.

    python -m support.fuzzing TARGET SECONDS      guided by coverage; what it finds is left in .cache/fuzz/TARGET

A target has `one(data)`, which returns or, by an exception, has found something, and TOKENS that its format is made
of; COUNT says how many new ones a test makes. What was found once stays as a seed in tests/data/fuzz/TARGET.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
SEEDS = TESTS / "data/fuzz"
LONGEST = 8192  # bytes of an input
ODD = (0, 1, 0x7F, 0x80, 0xFF)


def names() -> list[str]:
    return sorted(file.stem for file in (TESTS / "fuzz").glob("*.py"))


def target(name: str) -> Any:
    return importlib.import_module(f"fuzz.{name}")


def seeds(name: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((SEEDS / name).iterdir())}


def mutated(data: bytes, others: Sequence[bytes], tokens: Sequence[bytes], chance: random.Random) -> bytes:
    """A few changes of the kinds that libFuzzer makes."""
    out = bytearray(data)
    for _ in range(1 << chance.randrange(4)):
        at = chance.randrange(len(out) + 1)
        size = 1 << chance.randrange(8)
        match chance.randrange(7):
            case 0:
                out[at : at + 1] = bytes((chance.choice(ODD),))
            case 1:
                out[at : at + 1] = bytes((chance.randrange(256),))
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size]
            case 4:
                out[at:at] = chance.choice(tokens)
            case 5:
                token = chance.choice(tokens)
                out[at : at + len(token)] = token
            case 6:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                out[at : at + size] = other[start : start + size]
    return bytes(out[:LONGEST])


def inputs(name: str, count: int) -> Iterator[bytes]:
    """So many, the same ones in the same order every time."""
    chance = random.Random(name)
    pool, tokens = list(seeds(name).values()), target(name).TOKENS
    for _ in range(count):
        yield mutated(chance.choice(pool), pool, tokens, chance)


def main(name: str, seconds: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["wwfast"]):
        module = target(name)
    corpus = TESTS.parent / ".cache/fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    words = corpus.with_suffix(".dict")
    escaped = ("".join(map(r"\x{:02x}".format, token)) for token in module.TOKENS)
    words.write_text("".join(f'"{token}"\n' for token in escaped))
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=2048"]
    options += ["-print_final_stats=1", f"-dict={words}", f"-artifact_prefix={corpus}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus), str(SEEDS / name)], module.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
