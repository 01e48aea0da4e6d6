"""The laboratory of the tests that boot machines: one image built for the whole session, one wwfast serving it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wwfast.config import yaml
from wwfast.demo.cluster import IMAGE, Cluster
from wwfast.demo.debian import Tree
from wwfast.demo.netns import Namespace

__all__ = ["ABSENT", "LINKED", "Laboratory", "Namespace", "Tree"]

ABSENT = "dummy"  # a module that the image lacks and the kernel apart from it has

LINKED = ("opt/lab/first", "opt/lab/second")  # two names of one file of the image


class Laboratory(Cluster):
    """A Cluster whose image lacks one module, so that a node shows where its modules come from, and has LINKED."""

    def populate(self, image: str = IMAGE) -> None:
        super().populate(image)
        (module,) = self.paths.chroots.glob(f"{image}/rootfs/lib/modules/*/kernel/drivers/net/{ABSENT}.ko")
        module.unlink()
        first, second = (self.paths.chroots / image / "rootfs" / name for name in LINKED)
        first.parent.mkdir()
        first.write_text("of the image\n")
        second.hardlink_to(first)
        self.wwfast("image", "build", image, timeout=300)

    def wait_stage(self, node: str, stages: Sequence[str], timeout: float) -> dict[str, Any]:
        """Wait until `node` is at one of `stages`; its entry."""
        return self.wait_for(lambda: self.status(node), lambda entry: entry["stage"] in stages, timeout)

    def give_disks(self, node: str, wanted: Mapping[str, Any]) -> None:
        """Have `disks` and `filesystems` of a node in nodes.conf."""
        conf = yaml.load(self.paths.nodes_conf.read_bytes(), "nodes.conf")
        conf["nodes"][node].update(wanted)
        self.paths.nodes_conf.write_text(yaml.dump(conf))

    def sent(self) -> int:
        """Bytes that left the server's card so far."""
        return int(self.network.run(["cat", "/sys/class/net/br0/statistics/tx_bytes"]).stdout)

    def wait_amid_image(self, node: str, least: int) -> None:
        """Wait until a node has so many bytes of its image, and not all."""

        def part() -> dict[str, Any]:
            last = self.status(node)["boot"][-1:]
            return last[0] if last and last[0]["stage"] == "image" else {"bytes": 0, "total": 0}

        self.wait_for(part, lambda image: image["total"] > image["bytes"] > least, 300)

    def borrow(self, other: Cluster) -> None:
        """Use the images and kernels of another one, which must not change them while this one serves."""
        for theirs in (other.paths.chroots, other.paths.images, other.paths.kernels):
            mine = self.paths.state / theirs.name
            mine.mkdir(parents=True, exist_ok=True, mode=0o700)
            for entry in theirs.iterdir():
                (mine / entry.name).symlink_to(entry)


def stocked(root: Path, network: Namespace, tree: Tree) -> Laboratory:
    """A configured laboratory with image, kernel and default profile, not yet serving."""
    made = Laboratory(root, network, tree)
    made.configure()
    made.make_keys()
    made.populate()
    return made
