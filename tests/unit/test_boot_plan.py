"""The plan of a request: from memory alone, and what every node boots with as it is on the disk."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path

import pytest

from support.daemon import MAC, NODES, tiny_image, tiny_site
from support.planner import Fresh
from wwfast.boot import dracut, plan, stage1, standing
from wwfast.boot.plan import Ask, Planner
from wwfast.boot.resolve import Resolver
from wwfast.boot.stages import Stage
from wwfast.boot.standing import UnresolvedError
from wwfast.config.settings import load
from wwfast.images import building
from wwfast.images.store import ImageStore
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

#: What could look at a disk.
DOORS = {"os", "io", "pathlib", "glob", "shutil", "sqlite3", "mmap", "fcntl", "importlib"}
OURS = {
    "wwfast.paths",
    "wwfast.images.store",
    "wwfast.images.kernels.store",
    "wwfast.boot.resolve",
    "wwfast.system.run",
}


@pytest.fixture
def site(paths: Paths) -> Paths:
    return tiny_site(paths)


@pytest.mark.parametrize("module", [plan, standing, stage1, dracut])
def test_boot_plan_has_nothing_to_open_a_file_with(module: object) -> None:
    """Structure: what a request is answered with was found before, by somebody else."""
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    typing_only = [node for node in tree.body if isinstance(node, ast.If)]
    hidden = {id(inner) for block in typing_only for inner in ast.walk(block)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        assert not (isinstance(node, ast.Name) and node.id in ("open", "__import__", "exec", "eval"))
    assert not {name.split(".")[0] for name in found} & DOORS
    assert not found & OURS


def test_boot_plan_of_what_nobody_has_looked_for_says_so(site: Paths) -> None:
    settings, snapshot = load(site), Registry(site).snapshot()
    nothing = Resolver(site).former
    for stage in (Stage.IPXE, Stage.KERNEL, Stage.IMAGE, Stage.KMODS):
        with pytest.raises(UnresolvedError):
            Planner(settings).plan(nothing, snapshot.nodes["n1"], stage, Ask(MAC), lambda *_: None)
    unknown = Planner(settings).plan(nothing, None, Stage.IPXE, Ask(MAC), lambda *_: None)
    assert unknown is not None
    assert unknown.sent == "unconfigured.ipxe"


def test_boot_plan_of_a_former_build_is_looked_for_when_a_boot_asks_for_it(site: Paths) -> None:
    """A server that was started after a build knows of the one before it by name, and reads it when it is wanted."""
    settings, snapshot = load(site), Registry(site).snapshot()
    first = ImageStore(site).get("tiny").build
    (site.chroots / "tiny/rootfs/etc/new").write_text("new")
    building.build(site, "tiny")
    assert first is not None
    began = Ask(MAC, compress="zst", image=f"tiny@{first.id}")
    ask = partial(
        Planner(settings).plan, node=snapshot.nodes["n1"], stage=Stage.IMAGE, ask=began, overlay=lambda *_: None
    )
    resolver = Resolver(site)
    with pytest.raises(UnresolvedError) as caught:
        ask(resolver.resolve(snapshot))
    assert caught.value.reference == began.image
    for asked in ([began.image], []):  # and is kept
        plan = ask(resolver.resolve(snapshot, asked))
        assert plan is not None
        assert plan.artefact is not None
        assert f"/{first.id}/" in plan.artefact.extents[0].path


def test_boot_plan_tells_what_is_wrong_with_one_image_and_serves_the_others(site: Paths) -> None:
    """A damaged build, a kernel that is not there: named to the node that has it, and nobody else notices."""
    tiny_image(site, "broken")
    building.build(site, "broken")
    broken = NODES.split("nodes:\n")[1].replace("n1:", "n2:\n    image name: broken").replace(":01", ":02")
    lost = NODES.split("nodes:\n")[1].replace("n1:", "n3:\n    kernel: {version: 9.9}").replace(":01", ":03")
    site.nodes_conf.write_text(NODES + broken.replace(".11", ".12") + lost.replace(".11", ".13"))
    build = ImageStore(site).get("broken").build
    assert build is not None
    (build.path / "image/manifest.json").write_text("{")
    fresh, snapshot = Fresh(site, load(site)), Registry(site).snapshot()
    assert fresh.plan(snapshot, snapshot.nodes["n1"], Stage.IPXE, Ask(MAC)).sent == "default.ipxe"
    damaged = fresh.plan(snapshot, snapshot.nodes["n2"], Stage.IPXE, Ask(MAC))
    assert damaged.sent == "message.ipxe"
    assert "manifest.json is damaged" in damaged.reason
    assert fresh.plan(snapshot, snapshot.nodes["n2"], Stage.IMAGE, Ask(MAC, compress="zst")).status == 500
    without = fresh.plan(snapshot, snapshot.nodes["n3"], Stage.KERNEL, Ask(MAC))
    assert (without.status, without.reason.split(":")[0]) == (404, "node n3")
    assert "has no kernel 9.9" in without.reason
