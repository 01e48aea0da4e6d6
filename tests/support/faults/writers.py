"""Every writer of wwfast: what it finds, what it does, and how to see that all is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from support import warewulf
from support.daemon import write_conf
from support.faults.trial import Fault, GarbageError, Writer
from support.oci import facts, small_tree, tar_of
from support.overlays import body
from wwfast.cli.main import main
from wwfast.config.settings import load
from wwfast.daemon.state import database as phase_database
from wwfast.daemon.state.database import PhaseStore
from wwfast.errors import WwfastError
from wwfast.images.kernels.store import KernelStore
from wwfast.images.store import Build, ImageStore
from wwfast.net.dhcp import journal as leases_journal
from wwfast.net.dhcp.journal import Journal
from wwfast.nodes.edit.store import Store, Version
from wwfast.nodes.registry import Registry
from wwfast.nodes.text.source import Source
from wwfast.overlays.files import model
from wwfast.overlays.making.service import CONTEXTS, OverlayService
from wwfast.paths import Paths

NODES = """\
# kept as written
nodeprofiles:
  all: {image name: tiny, system overlay: [base], runtime overlay: [live]}
nodes:
  n1: {profiles: [all], network devices: {default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.11}}}
  n2: {profiles: [all], network devices: {default: {hwaddr: "52:54:00:00:00:02", ipaddr: 10.0.0.12}}}
  n3: {profiles: [all], network devices: {default: {hwaddr: "52:54:00:00:00:03", ipaddr: 10.0.0.13}}}
"""


def command(root: Path, *words: str | Path) -> None:
    """As an admin gives it; SystemExit with its status unless that is 0."""
    try:
        main(["--root", str(root), *map(str, words)])
    except SystemExit as error:
        if error.code:
            raise


def ordered(*words: str) -> Callable[[Path, Fault], None]:
    """The command; ROOT in its words is where the installation is."""

    def run(root: Path, fault: Fault) -> None:
        with fault:
            command(root, *(word.replace("ROOT", str(root)) for word in words))

    return run


def then(*words: str) -> Callable[[Path], None]:
    return lambda root: command(root, *(word.replace("ROOT", str(root)) for word in words))


def after(*lines: str) -> Callable[[Path], None]:
    """Several commands, one after the other."""

    def run(root: Path) -> None:
        for line in lines:
            then(*line.split())(root)

    return run


# -- the registry ----------------------------------------------------------------------------------------------------


def installation(root: Path) -> None:
    paths = Paths.at(root)
    paths.etc.mkdir(parents=True)
    write_conf(paths)
    paths.nodes_conf.write_text(NODES)
    for name, text in (("base", "{{ id }}\n"), ("live", "{{ comment }}\n")):
        place = paths.site_overlays / name / "rootfs/etc"
        place.mkdir(parents=True)
        (place / f"{name}.j2").write_text(text)
        (place / "static").write_text(name)
    small_tree(paths.chroots / "tiny/rootfs")
    for text in ("first", "second"):
        command(root, "node", "set", "--yes", "--comment", text, "n1")


def registry(root: Path) -> Any:
    """nodes.conf as it is read, and every version that can be gone back to."""
    store = Store(Paths.at(root))
    snapshot = Registry(store.paths).snapshot()
    for path in store.versions():
        Version.read(path)
    last = store.recall()
    assert last.becomes == Source.digest_of(store.paths.nodes_conf.read_bytes()), f"'{last.why}' cannot be taken back"
    return store.paths.nodes_conf.read_bytes(), sorted(snapshot.nodes)


def edits() -> list[Writer]:
    again = then("node", "set", "--yes", "--comment", "next", "n2")
    words = {
        "node add": ("node", "add", "--yes", "--profile", "all", "n9"),
        "node set": ("node", "set", "--yes", "--comment", "changed", "n[1-3]"),
        "node delete": ("node", "delete", "--yes", "n3"),
        "profile set": ("profile", "set", "--yes", "--comment", "changed", "all"),
        "undo": ("undo", "--yes"),
    }
    return [Writer(name, installation, ordered(*line), registry, again) for name, line in words.items()]


# -- overlays --------------------------------------------------------------------------------------------------------


def overlays(root: Path) -> Any:
    """What every overlay holds, wherever it is found: a copy of a shipped one is the shipped one."""
    paths = Paths.at(root)
    return {
        name: [
            (item.path, item.kind, item.mode, item.source.read_bytes() if item.kind == model.FILE else item.target)
            for item in model.find(paths, name).items()
        ]
        for name in model.names(paths)
    }


def served(root: Path) -> Any:
    """A server that starts now gives nodes what one without a cache gives. It asks a copy: asking fills it."""
    paths = Paths.at(root)
    cache = root.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    if paths.cache.exists():
        shutil.copytree(paths.cache, cache)
    given = elsewhere(paths, cache, alone=True)
    shutil.rmtree(cache, ignore_errors=True)
    assert given == elsewhere(paths, cache, alone=True), "the cache makes nodes get something else"
    return len(given)


def answers(service: OverlayService, root: Path) -> dict[tuple[str, str], bytes]:
    snapshot = Registry(Paths.at(root)).snapshot()
    return {
        (node.id, context): body(service.artefact(snapshot, node, context, "raw"))
        for node in snapshot.nodes.values()
        for context in CONTEXTS
    }


def with_editor(root: Path, fault: Fault) -> None:
    os.environ["EDITOR"] = "sed -i s/base/edited/"
    with fault:
        command(root, "overlay", "edit", "base", "etc/static")


def keys(root: Path) -> Any:
    """Every private key has its public one; which they are is chance."""
    place = Paths.at(root).etc / "keys"
    private = [key for key in sorted(place.glob("ssh_host_*_key")) if key.read_bytes().endswith(b"KEY-----\n")]
    assert all(key.with_name(f"{key.name}.pub").stat().st_size for key in private)
    return True


def hosts_file(root: Path) -> None:
    installation(root)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")


def hosts(root: Path) -> Any:
    """The server's own hosts file is the old or the new one, and what is kept of it can be put back."""
    text = (root / "etc/hosts").read_text()
    assert text.startswith("127.0.0.1 localhost\n")
    kept = Paths.at(root).state / "host"
    if "n1" in text:
        kinds = {each.name.rpartition(".")[2] for each in kept.iterdir()}
        assert "before" in kinds
        assert kinds & {"written", "next"}
    return text


def hosts_changed(root: Path) -> None:
    """Written once, and then a node's address is another."""
    hosts_file(root)
    command(root, "configure", "hostfile")
    command(root, "node", "set", "--yes", "--ipaddr", "10.0.0.99", "n1")


def overlay_writers() -> list[Writer]:
    again = then("overlay", "import", "--overwrite", "live", "ROOT/etc/warewulf/nodes.conf", "/etc/static")
    source = "ROOT/etc/warewulf/warewulf.conf"
    hostfile = ("configure", "hostfile")
    ssh = ("configure", "ssh", "--keytypes", "ed25519")
    lines = {
        "overlay create": ordered("overlay", "create", "fresh"),
        "overlay import": ordered("overlay", "import", "--overwrite", "base", source, "/etc/static"),
        "overlay import, shipped": ordered("overlay", "import", "hosts", source, "/etc/other"),
        "overlay edit": with_editor,
        "overlay delete": ordered("overlay", "delete", "--force", "live"),
    }
    # One that is told to be gone is not there to be edited next.
    other = then("overlay", "import", "--overwrite", "base", "ROOT/etc/warewulf/nodes.conf", "/etc/static")
    texts = frozenset(
        {"var/lib/wwfast/edited", "var/lib/wwfast/edited/#-static"}
    )  # what somebody wrote is kept, and told
    return [
        Writer(
            *(name, installation, run, overlays, other if name == "overlay delete" else again),
            stays=texts if name == "overlay edit" else frozenset(),
        )
        for name, run in lines.items()
    ] + [
        Writer("configure ssh", installation, ordered(*ssh), keys, then(*ssh)),
        Writer("configure hostfile", hosts_file, ordered(*hostfile), hosts, then(*hostfile)),
        Writer("configure hostfile, again", hosts_changed, ordered(*hostfile), hosts, then(*hostfile)),
        Writer("overlay build", installation, ordered("overlay", "build"), served, then("overlay", "build")),
        Writer("overlays served", built, serving, served, then("overlay", "build"), below="var/cache"),
    ]


def built(root: Path) -> None:
    installation(root)
    command(root, "overlay", "build")


def serving(root: Path, fault: Fault) -> None:
    """A server through which a fault passes: all it ever gives is what some state of the files makes.

    The last good overlay goes on being served; with the disk well again all is right, without a restart.
    """
    paths = Paths.at(root)
    service = OverlayService(paths, load(paths))
    file = paths.site_overlays / "base/rootfs/etc/static"
    first = answers(service, root)
    allowed = [first]
    with fault:
        for text in ("second", "third"):
            file.write_text(text)
            allowed.append(elsewhere(paths, root.parent / f"reference-{text}"))
            try:
                now = answers(service, root)
            except WwfastError as error:
                raise GarbageError(f"what was served is not any more: {error.message}") from error
            for key, data in now.items():
                if data not in [each[key] for each in allowed]:
                    raise GarbageError(f"{key} was given what no state of the files makes")
            service.tend()
    if answers(service, root) != allowed[-1]:
        raise GarbageError("the disk is well, and the node is given an old overlay")
    service.close()


def elsewhere(paths: Paths, cache: Path, *, alone: bool = False) -> dict[tuple[str, str], bytes]:
    """What a server with another cache gives; `alone` saves a process without threads the start of a helper."""
    service = OverlayService(paths.with_(cache=cache), load(paths), alone=alone)
    try:
        return answers(service, paths.root)
    finally:
        service.close()


# -- images and kernels ----------------------------------------------------------------------------------------------


def imaged(root: Path) -> None:
    """An image with one build, a changed tree, a kernel apart from it, and sources to import from."""
    installation(root)
    small_tree(Paths.at(root).chroots / "spare/rootfs")
    command(root, "image", "build", "--all")
    command(root, "kernel", "import", "tiny", "apart")
    tree = Paths.at(root).chroots / "tiny/rootfs"
    (root / "srv").mkdir()
    shutil.copytree(tree, root / "srv/tree", symlinks=True, ignore=shutil.ignore_patterns("dev"))
    (root / "srv/tree/etc/new").write_text("new")
    (root / "srv/tree.tar").write_bytes(tar_of(root / "srv/tree"))
    (tree / "etc/changed").write_text("changed" * 1000)


def images(root: Path) -> Any:
    """Trees, and builds by their digests; all that is served is read and compared with its digest."""
    store = ImageStore(Paths.at(root))
    found: dict[str, Any] = {}
    for image in store:
        for build in store.builds(image.name):
            broken = build.damage()
            assert broken is None, broken
            for kernel in build.kernels:
                assert kernel.file.read_bytes(), kernel.file
        digests = {fmt: image.artefact(fmt) for fmt in ("zst", "gz", "raw")}
        found[image.name] = (
            facts(image.rootfs),
            {fmt: artefact.digest for fmt, artefact in digests.items() if artefact},
        )
    return found


def kernels(root: Path) -> Any:
    store = KernelStore(Paths.at(root))
    found = {}
    for entry in store:
        for fmt in ("zst", "gz"):
            artefact = entry.kmods(fmt)
            assert artefact is not None, f"kernel {entry.name} has no modules"
            body(artefact)
        names = [(kernel.path, hashlib.sha256(kernel.file.read_bytes()).hexdigest()) for kernel in entry.found]
        found[entry.name] = names
    return found


def renamed(root: Path) -> Any:
    """As images(), by content. A rename that was killed half way counts as not done: to ask again finishes it."""
    paths = Paths.at(root)
    names = ImageStore(paths).names()
    if (paths.chroots / "other/renamed-from").exists():
        names = sorted({*names, "tiny"} - {"other"})
    built = [Build(place.name, place / "current") for place in paths.images.iterdir() if (place / "current").exists()]
    assert all(build.damage() is None for build in built)
    return names, sorted(build.artefact("zst").digest for build in built)


def undeleted(root: Path) -> Any:
    """As images(). A delete that was killed half way leaves an image without builds, which nobody named."""
    return {name: found for name, found in images(root).items() if found[1]}


def rename_again(root: Path) -> None:
    """To ask again finishes what was begun; where all was done, there is nothing by the old name."""
    with suppress(SystemExit):
        command(root, "image", "rename", "tiny", "other")
    assert sorted(ImageStore(Paths.at(root)).names()) == ["other", "spare"]
    command(root, "image", "build", "--all", "--force")
    command(root, "node", "set", "--yes", "--comment", "next", "n2")


def image_writers() -> list[Writer]:
    again = after("image import --force ROOT/srv/tree tiny", "image build --all")
    lines = {
        "image build": "image build tiny",
        "image build, full": "image build --full --format gz --format raw tiny",
        "image import, archive": "image import --force ROOT/srv/tree.tar tiny",
        "image import, directory": "image import ROOT/srv/tree fresh",
        "image import, update": "image import --update ROOT/srv/tree tiny",
        "image copy": "image copy tiny second",
    }
    kernel = "kernel import --force tiny apart"
    return [Writer(name, imaged, ordered(*line.split()), images, again) for name, line in lines.items()] + [
        Writer("image delete", imaged, ordered("image", "delete", "--yes", "spare"), undeleted, again),
        Writer("image rename", imaged, ordered("image", "rename", "tiny", "other"), renamed, rename_again),
        Writer("kernel import", imaged, ordered(*kernel.split()), kernels, after(kernel)),
    ]


# -- moving in -------------------------------------------------------------------------------------------------------


def moved_in(root: Path) -> Any:
    """Whether all of a Warewulf site was taken over. What was begun is whole, and can be taken back."""
    paths = Paths.at(root)
    begun = paths.conf.read_text() != warewulf.CONF_45, paths.nodes_conf.read_text() != warewulf.NODES_45
    if begun[0]:
        assert load(paths).wwfast.overlays_aside == ["wwinit", "generic", "host"]
        assert any((paths.state / "host").glob("*.before"))
    if begun[1]:
        snapshot = Registry(paths).snapshot()
        assert not snapshot.problems
        assert sorted(snapshot.nodes) == ["n1", "n2"]
        last = Store(paths).recall()
        assert last.becomes == Source.digest_of(paths.nodes_conf.read_bytes())
        assert last.data == warewulf.NODES_45.encode()
    found = images(root)
    return all(begun) and ImageStore(paths).get("el9").own and bool(found["el9"][1])


def moving_in() -> list[Writer]:
    line = ("import", "warewulf", "--yes")
    return [Writer("import warewulf", lambda root: bool(warewulf.old(root)), ordered(*line), moved_in, then(*line))]


# -- the daemon's tables ---------------------------------------------------------------------------------------------


MACS = [f"52:54:00:00:00:{number:02x}" for number in range(1, 30)]
LONG_AGO = "52:54:00:00:00:ff"  # what was on the disk before


def acknowledged(root: Path) -> Path:
    """Where a program writes what it was told to be on the disk; not on the disk that fails."""
    return root.parent / "acknowledged"


def told(root: Path) -> list[str]:
    return acknowledged(root).read_text().split() if acknowledged(root).exists() else []


def journal(root: Path) -> Journal:
    leases_journal.LOCK_SECONDS = 0.1  # SQLite waits so long, again and again, for a log it cannot recover
    return Journal(Paths.at(root).database)


def leased(root: Path) -> None:
    Paths.at(root).state.mkdir(parents=True)
    database = journal(root)
    database.load()
    database.put((LONG_AGO, 1, time.time() + 3600, ""))
    assert database.flush()
    database.close()


def leasing(root: Path, fault: Fault) -> None:
    """Leases that were acknowledged while the disk fails are written once it is well, by the same process."""
    acknowledged(root).unlink(missing_ok=True)
    database = journal(root)
    with fault:
        for number, mac in enumerate(MACS, 2):
            database.put((mac, number, time.time() + 3600, ""))
            if number % 10 == 0 and database.flush():
                acknowledged(root).write_text("\n".join(MACS[: number - 1]))
    assert database.flush(), database.trouble
    database.close()
    if have := {LONG_AGO, *MACS} - leases(root).keys():
        raise GarbageError(f"leases are lost although the disk is well again: {have}")


def leases(root: Path) -> dict[str, int]:
    """Those on the disk. What was told to be there is; so is what was there before."""
    database = journal(root)
    found = {mac: address for mac, address, *_ in database.load()}
    database.close()
    assert {LONG_AGO, *told(root)} <= found.keys(), "a lease that was on the disk is gone"
    return found


def phased(root: Path) -> None:
    Paths.at(root).state.mkdir(parents=True)
    phase_database.AGAIN_SECONDS = 0.02
    store = PhaseStore(Paths.at(root).database)
    store.load()
    store.start()
    for mac in (*MACS, LONG_AGO):
        store.put(mac, time.time())
    store.flush()
    store.close()


def phasing(root: Path, fault: Fault) -> None:
    """Phases that are closed while the disk fails: told so when it is on the disk only, and done once it is well."""
    phase_database.AGAIN_SECONDS, phase_database.BUSY_SECONDS = 0.02, 0.1
    acknowledged(root).unlink(missing_ok=True)
    store = PhaseStore(Paths.at(root).database)
    store.load()
    store.start()
    with fault:
        for at in range(0, len(MACS), 10):
            waiting = [store.delete(mac) for mac in MACS[at : at + 10]]
            if {done.result() for done in waiting} == {True}:
                acknowledged(root).write_text("\n".join({*told(root), *MACS[at : at + 10]}))
    store.flush()
    store.close()
    if left := phases(root).keys() & set(MACS):
        raise GarbageError(f"phases are open although the disk is well again: {left}")


def phases(root: Path) -> dict[str, float]:
    """The open ones on the disk. What was told to be closed is."""
    found = dict(PhaseStore(Paths.at(root).database).load())
    assert LONG_AGO in found, "a phase that was on the disk is gone"
    assert not found.keys() & set(told(root)), "a phase that was told to be closed is open"
    return dict.fromkeys(found, 0.0)


def some(read: Callable[[Path], dict[str, Any]]) -> Callable[[Path], Any]:
    """How many there are is of the moment of the fault: what must be there, `read` looks at."""
    return lambda root: bool(read(root))


def table_writers() -> list[Writer]:
    return [
        Writer("leases", leased, leasing, some(leases), lambda root: leasing(root, nullcontext())),
        Writer("phases", phased, phasing, some(phases), lambda root: phasing(root, nullcontext())),
    ]


def writers() -> list[Writer]:
    return [*edits(), *overlay_writers(), *image_writers(), *moving_in(), *table_writers()]
