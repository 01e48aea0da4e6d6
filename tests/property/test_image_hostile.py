"""Whatever an archive holds, nothing outside its tree changes: random entries, links and whiteouts beside a canary."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from support.oci import facts
from wwfast.archive.stream import opened
from wwfast.errors import WwfastError
from wwfast.images.sources.unpack import Unpacker

PARTS = st.sampled_from(
    ["a", "b", "c", "..", ".", "", "canary", "file", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh...", "/"]
)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
TARGETS = st.one_of(PATHS, st.just("@/canary"), st.just("@/canary/file"), st.just("../../../../../../../../@/canary"))
ENTRIES = st.lists(st.tuples(KINDS, PATHS, TARGETS, st.booleans()), min_size=1, max_size=14)


def layer(entries: list[tuple[bytes, str, str, bool]], around: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for kind, name, target, setid in entries:
            info = tarfile.TarInfo(name or ".")
            info.type, info.mode, info.mtime = kind, 0o4777 if setid else 0o000, 1
            info.uid, info.gid = os.geteuid(), os.getegid()
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = target.replace("@", str(around))
            data = b"hostile" if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_image_archive_never_reaches_outside_its_tree(
    layers: list[list[tuple[bytes, str, str, bool]]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        around = Path(name)
        (around / "canary").mkdir()
        (around / "canary/file").write_text("untouched")
        root = around / "root"
        root.mkdir()
        (around / "archive").touch()
        before = {path: fact for path, fact in facts(around).items() if path.startswith("canary")}
        try:
            with Unpacker(root) as unpacker:
                for entries in layers:
                    (around / "archive").write_bytes(layer(entries, around))
                    with opened(around / "archive") as stream:
                        unpacker.apply(stream, layer=True)
                unpacker.finish()
        except WwfastError:
            pass
        assert {path: fact for path, fact in facts(around).items() if path.startswith("canary")} == before
        assert sorted(entry.name for entry in around.iterdir()) == ["archive", "canary", "root"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 4000), st.integers(0, 255))
def test_image_archive_of_garbage_is_refused_or_unpacked_never_a_crash(noise: bytes, at: int, value: int) -> None:
    whole = bytearray(layer([(tarfile.REGTYPE, "a/b", "", False), (tarfile.SYMTYPE, "c", "a", False)] * 2, Path("/")))
    whole[at % len(whole)] = value
    with tempfile.TemporaryDirectory() as name:
        for number, data in enumerate((noise, bytes(whole), bytes(whole[:1024]) + noise)):
            file, root = Path(name, "archive"), Path(name, str(number))
            file.write_bytes(data)
            root.mkdir()
            try:
                with opened(file) as stream, Unpacker(root) as unpacker:
                    unpacker.apply(stream)
                    unpacker.finish()
            except WwfastError:
                pass
