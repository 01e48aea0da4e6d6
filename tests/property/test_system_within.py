"""Paths of a tree lead where the kernel says, which is asked with openat2(2) and RESOLVE_IN_ROOT."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from wwfast.system import libc
from wwfast.system.within import is_file, resolve, trail

NAMES = st.sampled_from(["a", "b", "c", ".", "..", ""])
PATHS = st.tuples(st.sampled_from(["", "/"]), st.lists(NAMES, min_size=1, max_size=5)).map(
    lambda given: given[0] + "/".join(given[1])
)
TREES = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
    st.one_of(st.just("directory"), st.just("file"), PATHS.map(lambda path: f"> {path}")),
    max_size=8,
)


def make(root: Path, tree: dict[str, str]) -> None:
    for name, kind in sorted(tree.items()):
        place = root / name
        above = place.parent
        if above != root and (not above.is_dir() or above.resolve() != above):
            continue
        if kind == "directory":
            place.mkdir()
        elif kind == "file":
            place.touch()
        elif kind != "> ":
            place.symlink_to(kind.removeprefix("> "))


def asked_of_the_kernel(root: Path, path: str) -> str | None:
    top = os.open(root, os.O_PATH)
    try:
        found = libc.openat2(top, path, os.O_PATH, libc.IN_ROOT)
    except OSError:
        return None
    finally:
        os.close(top)
    try:
        return str(Path(f"/proc/self/fd/{found}").readlink())
    finally:
        os.close(found)


@given(TREES, PATHS)
def test_within_a_tree_a_path_leads_where_the_kernel_says(tree: dict[str, str], path: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        make(root, tree)
        expected = asked_of_the_kernel(root, path or ".")
        # The kernel takes a trailing slash, and what is empty, for more than we do: only a directory has one.
        found = resolve(root, path)
        if not path.endswith(("/", "/.")):
            assert (str(found) if found else None) == expected
        assert is_file(root, path) == (found is not None and found.is_file())
        looked = trail(root, path)
        assert all(place == str(root) or place.startswith(f"{root}/") for place in looked)
        if found is not None and found != root:
            assert str(found.parent) in looked
