"""What is copied in place, slowly, goes to no node half, and takes no node away."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import MAC, NODES, Serving, serving, tiny_site
from wwfast.paths import Paths

STALL = 0.08  # seconds between the halves: more than a file has to be left alone
OTHER = MAC[:-1] + "2"
LINES = "line {0}\n" * 40


def last_node(server: Serving) -> str:
    status, text, _ = server.get(f"/ipxe/{OTHER}")
    return "" if status == 200 and b"No node" not in text else f"{status} {text!r}"


def script(server: Serving) -> str:
    status, text, _ = server.get(f"/ipxe/{MAC}")
    return "" if status == 200 and whole(text) else f"{status} {text!r}"


def motd(server: Serving) -> str:
    status, data, _ = server.get(f"/runtime/{MAC}?format=tar")
    if status != 200:
        return f"{status} {data!r}"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        text = archive.extractfile("etc/motd").read()  # type: ignore[union-attr]
    return "" if whole(text) else f"{text!r}"


def whole(text: bytes) -> bool:
    lines = [line for line in text.splitlines() if line.startswith(b"line ")]
    return len(lines) == 40 and len(set(lines)) == 1


def nodes_conf(paths: Paths) -> tuple[Path, str]:
    entry = NODES.split("nodes:\n")[1]
    return paths.nodes_conf, NODES + entry.replace("n1:", "n2:").replace(MAC, OTHER).replace(".11", ".12") + "# {0}\n"


def ipxe(paths: Paths) -> tuple[Path, str]:
    return paths.etc / "ipxe/default.ipxe.j2", "#!ipxe\n" + LINES


def template(paths: Paths) -> tuple[Path, str]:
    return paths.site_overlays / "motd/rootfs/etc/motd.j2", LINES


def plain(paths: Paths) -> tuple[Path, str]:
    template(paths)[0].unlink()
    return paths.site_overlays / "motd/rootfs/etc/motd", LINES


def included(paths: Paths) -> tuple[Path, str]:
    template(paths)[0].write_text("{{ include('lines') }}\n{{ id }}\n")
    return paths.etc / "lines", LINES


@pytest.mark.parametrize(
    ("what", "wrong"),
    [(nodes_conf, last_node), (ipxe, script), (template, motd), (plain, motd), (included, motd)],
)
def test_http_what_is_copied_slowly_is_served_whole(
    paths: Paths, what: Callable[[Paths], tuple[Path, str]], wrong: Callable[[Serving], str]
) -> None:
    tiny_site(paths)
    file, text = what(paths)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text.replace("{0}", "0"))
    half = text.index("\n", len(text) // 2) + 1
    with serving(paths) as server:
        assert not wrong(server)
        found: list[str] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                found.append(wrong(server))
                time.sleep(0.005)

        asking = threading.Thread(target=ask)
        asking.start()
        for version in "123":
            new = text.replace("{0}", version)
            with file.open("w") as copy:
                time.sleep(STALL)
                copy.write(new[:half])
                copy.flush()
                time.sleep(STALL)
                copy.write(new[half:])
            time.sleep(STALL)
        done.set()
        asking.join()
        assert found
        assert not set(found) - {""}
