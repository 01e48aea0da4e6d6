"""Modules of kernels that no node boots stay out of the image, and no node boots a kernel without its modules."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from support.oci import small_tree
from support.planner import Fresh
from wwfast.boot.paper import Paper
from wwfast.boot.plan import Ask, BootPlan
from wwfast.boot.stages import Stage
from wwfast.cli.main import main
from wwfast.config.settings import load
from wwfast.doctor.boots import boots
from wwfast.doctor.finding import Finding, Scene
from wwfast.images.kernels import detect
from wwfast.images.kernels.store import KernelStore, for_node
from wwfast.images.kernels.unwanted import spare
from wwfast.images.store import ImageStore
from wwfast.nodes.registry import Registry
from wwfast.overlays.making.service import OverlayService
from wwfast.pack.verify import differences
from wwfast.paths import Paths

MAC = "02:00:00:00:00:01"


def kernels(site: Paths) -> list[Finding]:
    """What `wwfast doctor` says of kernels without their modules."""
    settings, snapshot = load(site), Registry(site).snapshot()
    with closing(OverlayService(site, settings, writing=False)) as overlays:
        found = boots(Scene(site, settings, snapshot, Paper(site, settings, overlays, snapshot)))
        return [each for each in found if "modules of kernel" in each.message]


OLD, MIDDLE, NEW = "6.1.0-13-amd64", "6.1.0-18-amd64", "6.1.0-21-amd64"
NODES = f"""\
nodeprofiles:
  default:
    image name: deb
nodes:
  n1:
    profiles: [default]
    network devices: {{default: {{hwaddr: "{MAC}"}}}}
"""


def kernel(root: Path, release: str, *, module: str = "kernel/drivers/net.ko", lib: str = "usr/lib") -> None:
    for name in (f"boot/vmlinuz-{release}", f"{lib}/modules/{release}/{module}"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name} of {release}")


def left_out(root: Path, *wanted: str) -> dict[str, str]:
    return spare(root, detect.kernels(root), wanted)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """As Debian has it after two updates: /lib is a link."""
    root = small_tree(tmp_path / "tree")
    (root / "boot/vmlinuz-6.1.0-9-test").unlink()
    for release in (OLD, MIDDLE, NEW):
        kernel(root, release)
    return root


@pytest.fixture
def site(paths: Paths, tree: Path) -> Paths:
    paths.conf.write_text("ipaddr: 10.0.0.1\nnetmask: 255.255.255.0\nimage mounts: []\n")
    paths.nodes_conf.write_text(NODES)
    assert wwfast(paths, "image", "import", tree, "deb") == 0
    return paths


def wwfast(paths: Paths, *words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(paths.root), *map(str, words)])
    return int(ended.value.code or 0)


def test_kernel_spare_are_all_but_the_default_and_those_asked_for(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    for release in (OLD, MIDDLE, NEW):
        kernel(tmp_path, release)
    assert left_out(tmp_path) == {OLD: f"usr/lib/modules/{OLD}", MIDDLE: f"usr/lib/modules/{MIDDLE}"}
    assert left_out(tmp_path, "6.1.0-13") == {MIDDLE: f"usr/lib/modules/{MIDDLE}"}
    assert left_out(tmp_path, f"/boot/vmlinuz-{OLD}", "", "5.4", MIDDLE) == {}


def test_kernel_spare_on_a_tree_of_el9_without_the_link(tmp_path: Path) -> None:
    old, new, debug = "5.14.0-427.el9_4.x86_64", "5.14.0-570.12.1.el9_8.0.1.x86_64", "5.14.0-570.el9.x86_64+debug"
    for release in (old, new, debug):
        kernel(tmp_path, release, lib="lib")
    assert list(left_out(tmp_path)) == [old, debug]
    assert left_out(tmp_path, f"/boot/vmlinuz-{debug}") == {old: f"lib/modules/{old}"}


def test_kernel_that_lends_modules_to_a_booted_one_is_not_spare(tmp_path: Path) -> None:
    """A driver built for an older kernel serves the newer ones by links in weak-updates (RHEL, SUSE)."""
    for release in (OLD, MIDDLE, NEW):
        kernel(tmp_path, release)
    kernel(tmp_path, OLD, module="extra/vendor/nic.ko")
    link = tmp_path / f"usr/lib/modules/{NEW}/weak-updates/vendor/nic.ko"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"/usr/lib/modules/{OLD}/extra/vendor/nic.ko")
    assert list(left_out(tmp_path)) == [MIDDLE]


def test_kernel_modules_are_not_spare_without_a_kernel_or_where_names_do_not_fit(tmp_path: Path) -> None:
    kernel(tmp_path, NEW)
    (tmp_path / "usr/lib/modules/6.1.0-9-dkms").mkdir()
    assert left_out(tmp_path) == {}
    kernel(tmp_path, OLD)
    assert list(left_out(tmp_path)) == [OLD]
    (tmp_path / f"usr/lib/modules/{NEW}").rename(tmp_path / "usr/lib/modules/other")
    assert left_out(tmp_path) == {}
    assert left_out(tmp_path / "boot") == {}


def test_image_is_built_without_the_modules_that_no_node_boots(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert wwfast(site, "image", "build", "deb") == 0
    assert f"without the modules of {OLD}, {MIDDLE}, which no node boots" in capsys.readouterr().out
    image = ImageStore(site).get("deb")
    assert image.build is not None
    assert (list(image.without), [k.release for k in image.kernels()]) == ([OLD, MIDDLE], [OLD, MIDDLE, NEW])
    assert image.build.manifest().excludes == [f"usr/lib/modules/{release}" for release in (OLD, MIDDLE)]
    assert differences(image.build.path / "image", image.rootfs) == []
    assert (image.rootfs / f"usr/lib/modules/{OLD}").is_dir()
    assert wwfast(site, "image", "kernels", "--json") == 0
    assert [row["modules"] for row in json.loads(capsys.readouterr().out)] == [False, False, True]
    assert wwfast(site, "image", "build", "deb") == 0
    assert "nothing changed" in capsys.readouterr().out


def test_image_build_carries_all_modules_where_the_site_wants_them(site: Paths) -> None:
    site.conf.write_text(site.conf.read_text() + "wwfast: {kernel modules: all}\n")
    assert wwfast(site, "image", "build", "deb") == 0
    assert list(ImageStore(site).get("deb").without) == []


def test_kernel_whose_modules_were_left_out_is_said_and_refused_until_the_next_build(
    site: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wwfast(site, "image", "build", "deb") == 0
    capsys.readouterr()
    assert wwfast(site, "node", "set", "n1", "--kernelversion", OLD, "--yes") == 0
    why = f"node n1: image deb was built without the modules of kernel {OLD}"
    assert f"warning: {why}\nhint: wwfast image build deb\n" in capsys.readouterr().err

    settings, registry = load(site), Registry(site)
    planner = Fresh(site, settings)
    snapshot = registry.snapshot()
    plan = planner.plan(snapshot, snapshot.nodes["n1"], Stage.IPXE, Ask(MAC))
    assert plan is not None
    assert plan.sent == "message.ipxe"
    assert plan.reason == f"{why}: wwfast image build deb"
    assert all(text in (plan.text or "") for text in (why, "wwfast image build deb"))
    kernel_plan = planner.plan(snapshot, snapshot.nodes["n1"], Stage.KERNEL, Ask(MAC))
    assert kernel_plan is not None
    assert kernel_plan.status == 404
    (finding,) = kernels(site)
    assert finding.fix == "wwfast image build deb"
    assert finding.message == why.replace("node n1", "n1")

    assert wwfast(site, "image", "build", "deb") == 0
    assert list(ImageStore(site).get("deb").without) == [MIDDLE]
    plan = planner.plan(snapshot, snapshot.nodes["n1"], Stage.IPXE, Ask(MAC))
    assert plan is not None
    assert plan.sent == "default.ipxe"
    assert kernels(site) == []


def test_kernel_of_a_pinned_build_without_its_modules_is_refused_too(
    site: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wwfast(site, "image", "build", "deb") == 0
    build = ImageStore(site).get("deb").build
    assert build is not None
    assert wwfast(site, "node", "set", "n1", "--kernelversion", OLD, "--yes") == 0
    assert wwfast(site, "image", "build", "deb") == 0
    capsys.readouterr()
    assert wwfast(site, "node", "set", "n1", "--image", f"deb@{build.id}", "--yes") == 0
    said = capsys.readouterr().err
    assert f"image deb@{build.id} was built without the modules of kernel {OLD}" in said
    assert "wwfast image build deb, and name the new build" in said


def test_kernel_and_image_of_one_boot_are_of_one_build(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """A boot that began before a build, or a rollback, ends with what it began with: kernel and modules must match."""
    assert wwfast(site, "image", "build", "deb") == 0
    settings, registry = load(site), Registry(site)
    planner = Fresh(site, settings)
    snapshot = registry.snapshot()

    def plan(stage: Stage, image: str = "", compress: str = "") -> BootPlan:
        made = planner.plan(snapshot, snapshot.nodes["n1"], stage, Ask(MAC, image=image, compress=compress))
        assert made is not None
        return made

    began = re.search(r"&image=(\S+)", plan(Stage.IPXE).text or "")
    assert began
    before = plan(Stage.KERNEL, began[1]), plan(Stage.IMAGE, began[1], "gz")
    kernel(ImageStore(site).get("deb").rootfs, "6.2.0-1-amd64")
    assert wwfast(site, "image", "build", "deb") == 0
    after = plan(Stage.KERNEL, began[1]), plan(Stage.IMAGE, began[1], "gz")
    fresh = plan(Stage.KERNEL), plan(Stage.IMAGE, compress="gz")
    for old, same, new in zip(before, after, fresh, strict=True):
        assert old.artefact is not None
        assert same.artefact is not None
        assert new.artefact is not None
        assert old.artefact.digest == same.artefact.digest != new.artefact.digest
    for gone in ("deb@20200101-000000", "other@20200101-000000"):
        assert plan(Stage.IMAGE, gone, "gz").status == 404


def test_kernel_named_by_path_is_nobody_elses_default(site: Paths) -> None:
    rootfs = ImageStore(site).get("deb").rootfs
    kernel(rootfs / "opt/test", "9.9.9-1-amd64")
    (rootfs / "usr/lib/modules/9.9.9-1-amd64").mkdir()
    assert wwfast(site, "node", "set", "n1", "--kernelversion", "/opt/test/boot/vmlinuz-9.9.9-1-amd64", "--yes") == 0
    assert wwfast(site, "image", "build", "deb") == 0
    image = ImageStore(site).get("deb")
    default = image.default_kernel()
    assert default is not None
    assert default.release == NEW
    assert list(image.without) == [OLD, MIDDLE]
    assert detect.choose(image.kernels(), "9.9") is None
    snapshot = Registry(site).snapshot()
    assert for_node(snapshot.nodes["n1"], ImageStore(site), KernelStore(site)).version == "9.9.9-1-amd64"


def test_image_rollback_says_which_nodes_it_leaves_without_a_kernel(
    site: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wwfast(site, "image", "build", "deb") == 0
    assert wwfast(site, "node", "set", "n1", "--kernelversion", OLD, "--yes") == 0
    assert wwfast(site, "image", "build", "deb") == 0
    capsys.readouterr()
    assert wwfast(site, "image", "rollback", "deb") == 0
    assert f"was built without the modules of kernel {OLD}" in capsys.readouterr().err


def test_image_build_that_only_a_profile_names_is_kept(site: Paths) -> None:
    assert wwfast(site, "image", "build", "deb") == 0
    build = ImageStore(site).get("deb").build
    assert build is not None
    assert wwfast(site, "profile", "add", "canary", "--image", f"deb@{build.id}") == 0
    for _ in range(6):
        assert wwfast(site, "image", "build", "deb", "--force") == 0
    assert build.id in {made.id for made in ImageStore(site).builds("deb")}


def test_kernel_from_elsewhere_needs_no_modules_of_the_image(site: Paths) -> None:
    """An imported kernel brings its own: what it is asked for keeps nothing in the image, and is not refused."""
    assert wwfast(site, "kernel", "import", "deb", "apart") == 0
    assert wwfast(site, "node", "set", "n1", "--kerneloverride", "apart", "--kernelversion", OLD, "--yes") == 0
    assert wwfast(site, "image", "build", "deb") == 0
    assert list(ImageStore(site).get("deb").without) == [OLD, MIDDLE]
    assert kernels(site) == []
