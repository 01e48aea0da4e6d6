"""The image and kernel commands, as an admin types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.oci import small_tree
from wwfast.cli.main import main
from wwfast.images.sources.importing import import_image
from wwfast.images.sources.options import Options
from wwfast.images.store import ImageStore
from wwfast.paths import Paths

NODES = """\
nodeprofiles:
  default: {}
  fast:
    image name: deb
nodes:
  n1:
    profiles: [fast]
  n2:
    image name: deb@20200101-000000
"""


@pytest.fixture(autouse=True)
def _site(paths: Paths) -> None:
    paths.conf.write_text("ipaddr: 10.0.0.1\nnetmask: 255.255.255.0\nimage mounts: []\n")
    paths.nodes_conf.write_text(NODES)


def wwfast(paths: Paths, *words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(paths.root), *map(str, words)])
    return int(ended.value.code or 0)


@pytest.fixture
def deb(paths: Paths, tmp_path: Path) -> Path:
    tree = small_tree(tmp_path / "source")
    assert wwfast(paths, "image", "import", tree, "deb") == 0
    return ImageStore(paths).get("deb").rootfs


def test_image_commands_from_import_to_rollback(paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wwfast(paths, "image", "build", "deb") == 0
    assert "build 2" in capsys.readouterr().out
    assert wwfast(paths, "image", "build", "--all") == 0
    assert "nothing changed" in capsys.readouterr().out
    (deb / "etc/motd").write_text("x")
    assert wwfast(paths, "image", "build", "deb", "--format", "zst", "--format", "gz") == 0
    capsys.readouterr()
    assert wwfast(paths, "image", "list") == 0
    assert capsys.readouterr().out == "IMAGE NAME\n----------\ndeb\n"
    assert wwfast(paths, "image", "list", "-l") == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert line.startswith("deb         2      6.1.0-9-test")
    assert wwfast(paths, "image", "list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["nodes"], row["format"], row["arch"]) == ("deb", 2, "zst", "amd64")
    assert row["size"] > 0
    assert row["sizes"].keys() == {"zst", "gz"}
    assert row["tree"] > 700_000  # its one large file
    assert row["disk"] > 700_000
    assert wwfast(paths, "image", "kernels") == 0
    assert capsys.readouterr().out.splitlines()[2].split() == [
        *("deb", "/boot/vmlinuz-6.1.0-9-test", "6.1.0-9", "true", "2", "true")
    ]
    assert wwfast(paths, "image", "history", "deb", "--json") == 0
    newest, oldest = json.loads(capsys.readouterr().out)
    assert newest["served"]
    assert wwfast(paths, "image", "rollback", "deb") == 0
    assert wwfast(paths, "image", "show", "deb", "--json") == 0
    out = capsys.readouterr().out
    shown = json.loads(out[out.index("{") :])
    assert shown["build"] == oldest["build"]
    assert shown["nodes"] == ["n1", "n2"]
    capsys.readouterr()
    assert wwfast(paths, "image", "verify") == 0
    assert capsys.readouterr().out.startswith("deb: whole\ndeb: the tree changed after the build: ")
    assert wwfast(paths, "image", "build", "deb", "--force", "--json") == 0
    (built,) = json.loads(capsys.readouterr().out)
    assert (built["name"], built["changed"], built["sizes"].keys()) == ("deb", True, {"zst"})
    assert wwfast(paths, "image", "verify", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "deb", "build": built["build"], "damage": None, "differences": []}
    ]
    import_image(paths, str(deb), "raw", Options())
    assert wwfast(paths, "image", "verify", "raw") == 0
    assert capsys.readouterr().out == "raw: not built\n"


def test_image_list_tells_what_builds_share(paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wwfast(paths, "image", "build", "deb") == 0
    capsys.readouterr()
    assert wwfast(paths, "image", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["shared"] == 0
    assert wwfast(paths, "image", "copy", "--build", "deb", "deb2") == 0
    capsys.readouterr()
    assert wwfast(paths, "image", "list", "--json") == 0
    for row in json.loads(capsys.readouterr().out):
        assert 700_000 < row["shared"] < row["disk"], "the frames of the large file"
    assert wwfast(paths, "image", "list", "--long") == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-4:] == ["SIZE", "TREE", "DISK", "SHARED"]


def test_image_rename_reaches_nodes_and_profiles(paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wwfast(paths, "image", "rename", "deb", "debian12") == 0
    assert "2 nodes and profiles changed" in capsys.readouterr().out
    text = paths.nodes_conf.read_text()
    assert "image name: debian12\n" in text
    assert "image name: debian12@20200101-000000" in text
    assert ImageStore(paths).names() == ["debian12"]


def test_image_rename_that_is_taken_back_in_nodes_conf_alone_is_told(
    paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = paths.nodes_conf.read_text()
    assert wwfast(paths, "image", "rename", "deb", "debian12") == 0
    capsys.readouterr()
    assert wwfast(paths, "undo", "--yes") == 0
    told = capsys.readouterr().err
    assert ("there is no image deb" in told, "images here: debian12" in told) == (True, True)
    assert paths.nodes_conf.read_text() == before


def test_image_rename_that_cannot_write_nodes_conf_is_taken_back(
    paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.nodes_conf.write_text("nodes: {n1: [")
    assert wwfast(paths, "image", "rename", "deb", "debian12") == 1
    assert ImageStore(paths).names() == ["deb"]
    assert paths.nodes_conf.read_text() == "nodes: {n1: ["


def test_image_delete_refuses_what_is_used(paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wwfast(paths, "image", "delete", "--yes", "deb") == 1
    said = capsys.readouterr().err
    import_image(paths, str(deb), "free", Options())
    assert wwfast(paths, "image", "delete", "--yes", "free", "deb") == 1
    said += capsys.readouterr().err
    assert "free" in ImageStore(paths).names(), "refused before the first is gone"
    assert wwfast(paths, "image", "delete", "--yes", "free", "free") == 0
    for name in ("profile fast", "n1", "n2"):
        assert name in said
    paths.nodes_conf.write_text("nodes: {}\n")
    assert wwfast(paths, "image", "delete", "deb") == 1, "nobody answers: nothing is done, and it is said"
    assert ImageStore(paths).names() == ["deb"]
    assert wwfast(paths, "image", "delete", "--yes", "deb") == 0
    assert ImageStore(paths).names() == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["image", "build", "gone"], 1, "there is no image gone"),
        (["image", "build"], 2, "name the images to build"),
        (["image", "show", "../x"], 1, "cannot be the name"),
        (["image", "import", "docker-daemon://debian:12", "x"], 1, "docker save --output debian.tar debian:12"),
        (["image", "import", "/no/such/thing", "x"], 1, "there is no /no/such/thing"),
        (["image", "import", "docker://host/x:1", "x", "--username", "me"], 2, "both a user name and a password"),
        (["image", "rollback", "deb"], 1, "no earlier build"),
        (["image", "exec", "deb", "--bind", "x", "--", "true"], 2, ""),
        (["image", "exec", "deb", "--build=false", "--", "true"], 2, "options go before the name"),
        (["image", "exec", "deb@20200101-000000", "--", "true"], 1, "is a build, and the image itself is wanted: deb"),
        (["image", "delete", "--yes", "deb@20200101-000000"], 1, "is a build"),
        (["image", "rename", "deb@20200101-000000", "x"], 1, "is a build"),
        (["image", "build", "--level", "99", "deb"], 2, "99 is not in the range"),
        (["image", "syncuser", "--write=false", "deb"], 1, "etc/passwd cannot be read"),
        (["--warewulfconf", "/nowhere/warewulf.conf", "image", "list"], 1, "there is no /nowhere/warewulf.conf"),
        (["--warewulfconf", "/", "image", "list"], 1, "/ is no file"),
        (["image", "import", "/dev/null", "x"], 1, "/dev/null is no file"),
        (["kernel", "import", "gone", "x"], 1, "there is no image gone"),
        (["kernel", "import", "deb", "x", "--version", "9"], 1, "has no kernel 9"),
        (["kernel", "delete", "--yes", "gone"], 1, "there is no kernel gone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_image_and_kernel_bad_input_is_one_clear_error(
    paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    if "exec" in words and "--bind" in words:
        words = ["image", "exec", "--bind", "x", "deb", "--", "true"]
        said = "--bind x is not understood"
    capsys.readouterr()
    assert wwfast(paths, *words) == status
    out = capsys.readouterr().err
    assert said in out
    assert "Traceback" not in out


def test_image_commands_on_several_do_all_or_nothing_and_globs_are_names(
    paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wwfast(paths, "image", "copy", "deb", "deb2") == 0
    capsys.readouterr()
    for verb in ("build", "verify", "kernels", "adopt", "delete"):
        assert wwfast(paths, "image", verb, "deb2", "gone") == 1
        out, err = capsys.readouterr()
        assert (out, "gone" in err) == ("", True), verb
    assert ImageStore(paths).get("deb2").build is None
    assert wwfast(paths, "image", "list", "d*2", "nope") == 1
    out, err = capsys.readouterr()
    assert (out.split()[-1], err) == ("deb2", "error: no image 'nope'\nhint: wwfast image list\n")


SOURCES = {
    "oci:": ((), "oci: names nothing"),
    "docker-archive:": ((), "docker-archive: names nothing"),
    "oci-archive::x": ((), "oci-archive: names nothing"),
    "file://": ((), "file: names nothing"),
    "TREE": (("--platform", "arm64"), "no use for --platform"),
    "file://TREE": (("--nohttps",), "no use for --nohttps"),
    "oci:TREE": (("--username", "u", "--password", "p"), "no use for --username"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_image_import_uses_what_it_is_told_or_refuses_it(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """An empty path would be the current directory."""
    tree = small_tree(tmp_path / "tree")
    monkeypatch.chdir(tree)
    options, told = SOURCES[source]
    assert wwfast(paths, "image", "import", source.replace("TREE", str(tree)), "new", *options) == 2
    assert told in capsys.readouterr().err
    monkeypatch.setenv("WAREWULF_OCI_PLATFORM", "arm64")  # of all imports, not of this one
    assert wwfast(paths, "image", "import", tree, "new") == 0


@pytest.mark.parametrize("name", ["a:b", "-a", "x" * 254, ".hid"])
def test_image_that_no_node_could_name_is_not_made(
    paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for words in (("import", deb, "--"), ("copy", "--", "deb"), ("rename", "--", "deb")):
        assert wwfast(paths, "image", *words, name) == 1
        err = capsys.readouterr().err
        assert "so no node could have this image" in err or "cannot be the name of an image" in err
        assert ImageStore(paths).names() == ["deb"]


def test_image_of_a_warewulf_that_no_node_could_name_goes_on_being_ours_to_work_with(
    paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deb.parent.rename(paths.chroots / "a:b")
    assert wwfast(paths, "image", "build", "a:b") == 0
    assert wwfast(paths, "image", "import", small_tree(paths.root / "again"), "a:b", "--force") == 0
    assert wwfast(paths, "image", "rename", "a:b", "deb") == 0
    assert ImageStore(paths).names() == ["deb"]


def test_kernel_commands(paths: Paths, deb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wwfast(paths, "kernel", "import", "deb", "lts") == 0
    paths.nodes_conf.write_text("nodes:\n  n1:\n    kernel: {override: lts}\n")
    capsys.readouterr()
    assert wwfast(paths, "kernel", "list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kernel"], row["version"], row["default"], row["nodes"]) == ("lts", "6.1.0-9-test", True, 1)
    assert wwfast(paths, "kernel", "delete", "--yes", "lts") == 1
    paths.nodes_conf.write_text("nodes: {}\n")
    assert wwfast(paths, "kernel", "delete", "--yes", "lts") == 0
    capsys.readouterr()
    assert wwfast(paths, "kernel", "list") == 0
    assert capsys.readouterr().out.count("\n") == 2


@pytest.mark.root
def test_image_exec_with_the_overlays_of_a_node(paths: Paths, tmp_path: Path) -> None:
    from support.box import box

    assert wwfast(paths, "image", "import", box(tmp_path / "source"), "box") == 0
    overlay = paths.site_overlays / "who/rootfs/etc"
    overlay.mkdir(parents=True)
    (overlay / "who.j2").write_text("I am {{ id }}\n")
    paths.nodes_conf.write_text(
        "nodes:\n  n1:\n    image name: box\n    system overlay: [who]\n    runtime overlay: []\n"
    )
    check = '[ "$(cat /etc/who)" = "I am n1" ]'
    assert wwfast(paths, "image", "exec", "--node", "n1", "box", "--", "/bin/sh", "-c", check) == 0
    assert wwfast(paths, "image", "exec", "--build=false", "box", "--", "/bin/sh", "-c", check) == 1
    assert wwfast(paths, "image", "exec", "--node", "gone", "box", "--", "/bin/sh", "-c", check) == 1
    assert wwfast(paths, "image", "exec", "--build=false", "box", "--", "/bin/sh", "-c", "exit 7") == 7
    rootfs = ImageStore(paths).get("box").rootfs
    assert not (rootfs / "etc/who").exists()
    assert wwfast(paths, "image", "exec", "box", "--", "/bin/touch", "/etc/new") == 0
    assert ImageStore(paths).get("box").build is not None, "built afterwards"
    (rootfs / "etc/warewulf").mkdir()
    (rootfs / "etc/warewulf/image_exit.sh").write_text("touch /etc/exit-ran\n")
    assert wwfast(paths, "image", "exec", "--build=false", "box", "--", "/bin/sh", "-c", ":") == 0
    assert (rootfs / "etc/exit-ran").exists()


def test_image_ids_that_no_file_can_have_are_nobodys(tmp_path: Path) -> None:
    from wwfast.images.inside.users import Table

    ids = ("42", "0042", "\uff14", "\u00b2", "4294967295", "5000000000", "-1", "1_0")
    (tmp_path / "group").write_text("".join(f"g{at}:x:{number}:\n" for at, number in enumerate(ids)))
    assert Table.read(tmp_path / "group", "group").ids == {"g0": 42, "g1": 42}
