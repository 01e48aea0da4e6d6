"""wwfast import warewulf: a site of Warewulf is looked at, taken over, and given back as it was."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import warewulf
from wwfast.cli.main import main
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command of the installation below tmp_path/here; -> status, stdout, stderr."""

    def call(line: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(tmp_path / "here"), *shlex.split(line)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def site(tmp_path: Path) -> Paths:
    return warewulf.old(tmp_path / "here")


def take_back(run: Run, steps: list[dict[str, str]]) -> None:
    """The command of every step, the last one first."""
    for step in reversed(steps):
        if step["undo"]:
            status, _, err = run(step["undo"].removeprefix("wwfast "))
            assert (status, err) == (0, ""), step


def test_importer_tells_and_does_nothing_on_its_own(site: Paths, run: Run) -> None:
    before = warewulf.state(site.root)
    status, out, _ = run("import warewulf --dry-run")
    assert status == 0
    for said in (
        "warewulf.conf of before 4.6, nodes.conf of before 4.6",
        "overlay wwinit: it came with Warewulf before 4.6 and is left aside",
        "overlay generic: files that no overlay of wwfast brings: etc/scheduler.conf",
        "systemctl disable --now warewulfd.service",
        "isc-dhcp-server.service: the server has DHCP inside and reads nothing of this one's files",
        "back: systemctl enable --now isc-dhcp-server.service",
        "systemctl disable --now tftpd-hpa.service",
        "back: wwfast configure undo",
        "back: wwfast undo --yes",
        "back: wwfast image delete el9 --yes",
        "nodes: 2 nodes, 1 profiles",
    ):
        assert said in out
    assert "template: " not in out, "all that runs here are the site's own, and they run"
    assert warewulf.state(site.root) == before
    status, _, err = run("import warewulf")
    assert status == 1, "nobody answers"
    assert "nothing was changed" in err
    assert warewulf.state(site.root) == before


def test_importer_takes_over_and_every_step_is_taken_back(site: Paths, run: Run) -> None:
    before = warewulf.state(site.root)
    status, out, err = run("import warewulf --yes --json")
    assert (status, err) == (0, "")
    steps = json.loads(out)["steps"]
    assert [each["step"] for each in steps] == ["warewulf.conf", "image el9", "nodes.conf", "build el9"]
    assert all(each["done"] for each in steps)
    text = site.conf.read_text()
    assert "ipaddr: 10.0.0.1 # the head\n" in text
    assert "# all of them" in site.nodes_conf.read_text()
    snapshot = Registry(site).snapshot()
    assert not snapshot.problems
    node = snapshot.nodes["n1"]
    assert node.image_name == "el9"
    assert node.kernel.args == ["quiet", "crashkernel=no", "console=ttyS0"]
    assert "wwclient" in node.system_overlay
    assert node.runtime_overlay == ["hosts", "ssh.authorized_keys", "syncuser", "motd"]
    assert node.resources == {
        "fstab": [{"spec": "warewulf:/home", "file": "/home", "vfstype": "nfs", "mntops": "defaults"}]
    }
    assert run("overlay show --render n1 --quiet motd etc/motd")[1] == "this is n1\n"
    assert "wwinit" in run("overlay list wwinit")[1]
    assert str(site.warewulf_overlays) not in run("overlay list --path wwinit host")[1]
    assert run("configure hostfile")[0] == 0
    assert "10.0.0.11 n1" in (site.root / "etc/hosts").read_text()
    assert "There is nothing for this command to do." in run("import warewulf --yes")[1], "the second time"
    assert run("configure undo /etc/hosts --force")[0] == 1, "the file's name has the root before it"
    assert run(f"configure undo {site.root}/etc/hosts")[0] == 0
    take_back(run, steps)
    assert warewulf.state(site.root) == before


def test_importer_leaves_the_servers_that_a_site_keeps(tmp_path: Path, run: Run) -> None:
    paths = warewulf.new(tmp_path / "here")
    for unit in ("warewulfd.service", "dhcpd.service", "dnsmasq.service", "tftp.socket", "sshd.service"):
        warewulf.enable(paths.root, unit)

    def units() -> list[str]:
        found = json.loads(run("import warewulf --json")[1])["to do"]
        return [each["what"] for each in found if each["fix"].startswith("systemctl")]

    assert units() == ["warewulfd.service", "dhcpd.service", "tftp.socket"], "dnsmasq may be there for names alone"
    text = warewulf.CONF_46.replace("dhcp: {enabled: true", "dhcp: {enabled: false")
    paths.conf.write_text(text.replace("tftp: {enabled: true}", "tftp: {enabled: false}"))
    assert units() == ["warewulfd.service"]
    paths.conf.write_text(warewulf.CONF_46.replace("tftp: {enabled: true}", "tftp: {systemd name: dnsmasq}"))
    assert units() == ["warewulfd.service", "dhcpd.service", "dnsmasq.service", "tftp.socket"], "it is named"


def test_importer_of_a_new_site_leaves_its_files_alone(tmp_path: Path, run: Run) -> None:
    paths = warewulf.new(tmp_path / "here")
    before = warewulf.state(paths.root)
    status, out, _ = run("import warewulf --yes")
    assert status == 0
    assert "warewulf.conf of 4.6 or later, nodes.conf of 4.6 or later" in out
    assert "nodes.conf is read as it is" in out
    assert out.count("done: ") == 2, "its image alone"
    assert warewulf.state(paths.root) == before
    assert "There is nothing for this command to do" in run("import warewulf --yes")[1]
    assert warewulf.state(paths.root) == before


def test_importer_brings_a_site_from_another_root(tmp_path: Path, run: Run) -> None:
    there, here = warewulf.old(tmp_path / "there"), Paths.at(tmp_path / "here")
    here.root.mkdir()
    (there.etc / "keys").mkdir(mode=0o700)
    (there.etc / "keys/ssh_host_ed25519_key").write_text("secret\n")
    (there.etc / "keys/ssh_host_ed25519_key").chmod(0o600)
    before = warewulf.state(there.root)
    status, out, err = run(f"import warewulf --from {there.root} --yes --json")
    assert (status, err) == (0, "")
    steps = json.loads(out)["steps"]
    assert [each["step"] for each in steps] == [
        *("warewulf.conf", "keys", "overlay motd", "image el9", "nodes.conf", "build el9"),
    ]
    assert warewulf.state(there.root) == before
    key = here.etc / "keys/ssh_host_ed25519_key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert run("overlay show --render n2 --quiet motd etc/motd")[1] == "this is n2\n"
    assert "el9" in run("image list")[1]
    assert json.loads(run(f"import warewulf --from {there.root} --yes --json")[1])["steps"] == []
    take_back(run, steps)
    assert not here.conf.exists()
    assert not key.exists()
    assert here.nodes_conf.read_bytes() == b""


def test_importer_does_not_write_over_nodes_that_are_here(tmp_path: Path, run: Run) -> None:
    there, here = warewulf.old(tmp_path / "there"), warewulf.new(tmp_path / "here")
    before = warewulf.state(here.root)
    status, _, err = run(f"import warewulf --from {there.root} --yes")
    assert status == 1
    assert "has nodes already" in err
    assert f"wwfast node import {there.nodes_conf}" in err
    assert warewulf.state(here.root) == before


def test_importer_names_templates_that_do_not_run(site: Paths, run: Run) -> None:
    warewulf.overlay(site, "slurm", {"etc/slurm.conf.ww": "Name={{ .Id }}\n\nNodes={{ env `HOME` }}{{ .Nothing }}\n"})
    found = json.loads(run("import warewulf --json")[1])["to do"]
    said = [each["why"] for each in found if each["what"] == "template"]
    assert said
    assert all("overlay slurm, etc/slurm.conf.ww, line 3" in line for line in said)


def test_importer_names_what_nodes_have_in_vain(site: Paths, run: Run) -> None:
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("container name: el9", "container name: el8").replace("motd]", "gone]"))
    out = run("import warewulf --dry-run")[1]
    assert "image el8: it is named by n[1-2] and is not there" in out
    assert "overlay gone: it is named by n[1-2] and is not there" in out


def test_importer_names_templates_of_bmcs_that_are_not_run(site: Paths, run: Run) -> None:
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(
        text.replace("    ipmi ipaddr: 10.9.0.2", "    ipmi: {ipaddr: 10.9.0.2, template: redfish.tmpl}")
    )
    out = run("import warewulf --yes")[1]
    assert "redfish.tmpl: n2 have it as `ipmi: template`; power calls ipmitool itself and runs no template" in out
    status, _, err = run("power status n2")
    assert status == 1
    assert "template 'redfish.tmpl' is not run" in err
    assert run("node set n2 --ipmitemplate ipmitool.tmpl --yes")[0] == 0
    assert "ipmitool -H 10.9.0.2 -E chassis power status" in run("power status n2 --show")[1]


# A file of the site, how it is spoilt, and what is said of it.
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "nodes.conf is no YAML": ("nodes.conf", b"nodes: {n1: [\n", "nodes.conf:2:1: "),
    "nodes.conf is a list": ("nodes.conf", b"- n1\n", "nodes.conf"),
    "nodes.conf in Latin-1": ("nodes.conf", "nodes:\n  n1: {comment: Büro}\n".encode("latin-1"), "iconv -f ISO-8859-1"),
    "nodes.conf in UTF-16": ("nodes.conf", "nodes: {}\n".encode("utf-16"), "iconv -f UTF-16"),
    "warewulf.conf is no YAML": ("warewulf.conf", b"dhcp: [\n", "warewulf.conf:2:1: "),
    "warewulf.conf is text": ("warewulf.conf", b"hello\n", "is no map of keys"),
    "warewulf.conf in Latin-1": ("warewulf.conf", "comment: Büro\n".encode("latin-1"), "iconv -f ISO-8859-1"),
    "an address that is none": ("warewulf.conf", b"ipaddr: 10.0.0.300\n", "ipaddr"),
}


@pytest.mark.parametrize(("name", "data", "said"), BROKEN.values(), ids=BROKEN)
def test_importer_says_what_is_broken_and_does_nothing(
    site: Paths, run: Run, name: str, data: bytes, said: str
) -> None:
    (site.etc / name).write_bytes(data)
    before = warewulf.state(site.root)
    status, out, err = run("import warewulf --yes")
    assert status == 1
    assert "done:" not in out
    assert said in err
    assert warewulf.state(site.root) == before
    status, out, _ = run("import warewulf --yes --json")
    assert status == 1
    assert json.loads(out)["faults"]


def test_importer_says_where_links_lead_nowhere(site: Paths, run: Run) -> None:
    (site.warewulf_chroots / "gone").symlink_to("/srv/nowhere")
    (site.warewulf_overlays / "lost").symlink_to("/srv/nowhere")
    out = run("import warewulf --dry-run")[1]
    assert f"image gone: {site.warewulf_chroots}/gone is a link that leads nowhere: /srv/nowhere" in out
    assert "overlay lost:" in out
    site.nodes_conf.unlink()
    site.nodes_conf.symlink_to("/srv/nowhere")
    status, _, err = run("import warewulf --yes")
    assert status == 1
    assert f"{site.nodes_conf} is a link that leads nowhere: /srv/nowhere" in err


def test_importer_says_which_images_are_half(site: Paths, run: Run) -> None:
    (site.warewulf_chroots / "begun").mkdir()
    (site.warewulf_chroots / "empty/rootfs").mkdir(parents=True)
    (site.warewulf_chroots / "note.txt").write_text("x")
    (site.warewulf_chroots / "el9/run").mkdir()
    images = site.root / "var/lib/warewulf/provision/images"
    images.mkdir(parents=True)
    (images / "el9.img").write_bytes(b"x")
    out = run("import warewulf --dry-run")[1]
    for said in (
        "image begun: it has no rootfs",
        "image empty: it has no /bin/sh inside",
        "note.txt is a file",
        "is at work in it, or was killed",
        "there is no el9.img.gz",
    ):
        assert said in out
    (images / "el9.img").write_bytes(b"")
    assert "is empty" in run("import warewulf --dry-run")[1]
    status, out, _ = run("import warewulf --yes")
    assert status == 0, "the whole ones are taken over"
    assert "done: image el9" in out


@pytest.mark.parametrize("conf", ["new", "old"])
def test_importer_reads_a_site_of_two_versions(site: Paths, run: Run, conf: str) -> None:
    """nodes.conf of 4.5 with a warewulf.conf of 4.6, and the other way round."""
    if conf == "new":
        site.conf.write_text(warewulf.CONF_46)
    else:
        site.nodes_conf.write_text(warewulf.NODES_46)
    out = run("import warewulf --dry-run")[1]
    assert "Their versions differ" in out
    before = warewulf.state(site.root)
    steps = json.loads(run("import warewulf --yes --json")[1])["steps"]
    assert all(each["done"] for each in steps)
    assert not Registry(site).snapshot().problems
    assert "There is nothing for this command to do" in run("import warewulf --yes")[1]
    take_back(run, steps)
    assert warewulf.state(site.root) == before


def test_importer_uses_an_overlay_that_the_site_made_of_one_of_46(site: Paths, run: Run) -> None:
    """Where a newer Warewulf is installed, one of its names among the site's overlays is the site's work."""
    (site.root / "usr/share/warewulf/overlays/wwinit/rootfs").mkdir(parents=True)
    out = run("import warewulf --dry-run")[1]
    assert "left aside" not in out
    assert "overlay wwinit: " in out
    assert "takes the place of wwfast's own" in out


def test_importer_changes_what_links_lead_to(site: Paths, run: Run) -> None:
    """warewulf.conf and nodes.conf in a repository of the site's, an image on another disk."""
    place = site.root / "srv/site"
    place.mkdir(parents=True)
    for file in (site.conf, site.nodes_conf):
        file.rename(place / file.name)
        file.symlink_to(f"../../srv/site/{file.name}")
    (site.warewulf_chroots / "el9").rename(place / "el9")
    (site.warewulf_chroots / "el9").symlink_to(place / "el9")
    before = warewulf.state(site.root)
    steps = json.loads(run("import warewulf --yes --json")[1])["steps"]
    assert [each["step"] for each in steps] == ["warewulf.conf", "image el9", "nodes.conf", "build el9"]
    assert site.conf.is_symlink()
    assert site.nodes_conf.is_symlink()
    assert "image mounts" in (place / "warewulf.conf").read_text()
    assert "image name: el9" in (place / "nodes.conf").read_text()
    assert not (site.chroots / "el9").is_symlink()
    run("configure undo")
    assert "image mounts" in (place / "warewulf.conf").read_text(), "that was not configure's"
    take_back(run, steps)
    assert warewulf.state(site.root) == before


def test_importer_follows_no_link_of_another_root_to_this_server(tmp_path: Path, run: Run) -> None:
    """`--from` a disk of another server: what its absolute links mean is on that disk, whatever stands here."""
    there, here = warewulf.old(tmp_path / "there"), Paths.at(tmp_path / "here")
    mine = warewulf.new(tmp_path / "mine")
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    (there.etc / "keys").mkdir()
    (there.etc / "keys/ssh_host_rsa_key").symlink_to(secret)
    (there.warewulf_chroots / "other").symlink_to(mine.warewulf_chroots / "el9")
    (there.warewulf_overlays / "theirs").symlink_to(mine.warewulf_overlays / "motd")
    for file in (there.conf, there.nodes_conf):
        (there.root / "srv").mkdir(exist_ok=True)
        file.rename(there.root / "srv" / file.name)
        file.symlink_to(f"/srv/{file.name}")
    here.root.mkdir()
    status, out, _ = run(f"import warewulf --from {there.root} --yes")
    assert status == 0
    for name, place in (
        ("image other", there.warewulf_chroots / "other/rootfs"),
        ("overlay theirs", "overlays/theirs"),
    ):
        assert f"{name}: " in out
        assert f"{place}" in out
    assert out.count(f"is behind a link that leads out of {there.root}") == 2
    assert Registry(here).snapshot().nodes["n1"].image_name == "el9"
    assert not (here.etc / "keys").exists()
    assert [each.name for each in here.site_overlays.iterdir()] == ["motd"]
    assert [each.name for each in here.chroots.iterdir()] == ["el9"]
    there.conf.unlink()
    there.conf.symlink_to(mine.conf)
    status, _, err = run(f"import warewulf --from {there.root} --yes")
    assert status == 1
    assert "is a link that leads nowhere" in err


def test_importer_needs_a_warewulf(tmp_path: Path, run: Run) -> None:
    (tmp_path / "nothing").mkdir()
    status, _, err = run(f"import warewulf --from {tmp_path}/nothing")
    assert status == 1
    assert "there is no Warewulf below" in err
    assert run(f"import warewulf --from {tmp_path}/nowhere")[0] == 2


def test_importer_stops_where_a_step_fails_and_says_what_was_done(site: Paths, run: Run) -> None:
    place = site.warewulf_chroots / "el9/rootfs"
    (place / "self").mkdir()
    site.state.mkdir(parents=True)
    (site.state / "chroots").write_text("a file where images belong\n")
    status, out, err = run("import warewulf --yes")
    assert status == 1
    assert [line.split(":")[1] for line in out.splitlines() if line.startswith("done:")] == [" warewulf.conf"]
    assert "chroots" in err
    (site.state / "chroots").unlink()
    assert run("import warewulf --yes")[1].count("done:") == 3, "the next one goes on"


def test_importer_compares_with_what_warewulf_built(tmp_path: Path, run: Run) -> None:
    paths = warewulf.new(tmp_path / "here")
    assert run("import warewulf --yes")[0] == 0
    folder = paths.root / "var/lib/warewulf/provision/overlays"
    hosts = run("overlay show --render n1 --quiet hosts etc/hosts")[1]
    warewulf.built(folder, "n1", "system", {"etc/hostname": "n1\n"}, packed=True)
    warewulf.built(
        folder,
        "n1",
        "runtime",
        {"etc/hosts": hosts, "etc/motd": "this was n1\n", "etc/old": "x", "etc/site.conf": "static\n"},
    )
    before = warewulf.state(paths.root)
    status, out, _ = run(f"import warewulf --dry-run --built {folder.parent}")
    assert status == 0
    files = out.partition("Files of nodes that differ\n")[2]
    assert "runtime: /etc/motd: its text differs, on 1 node: n1" in files
    assert "-this was n1" in files
    assert "+this is n1" in files
    assert "runtime: /etc/old: only Warewulf has it" in files
    assert "/etc/hosts" not in files
    assert "/etc/hostname" not in files
    assert "/etc/site.conf" not in files
    assert warewulf.state(paths.root) == before
    found = json.loads(run(f"import warewulf --json --built {folder}")[1])["built"]
    assert [(each["path"], each["nodes"]) for each in found["differences"]] == [
        ("/etc/motd", ["n1"]),
        ("/etc/old", ["n1"]),
    ]


def test_importer_says_what_of_the_built_overlays_is_half(tmp_path: Path, run: Run) -> None:
    paths = warewulf.new(tmp_path / "here")
    folder = paths.root / "var/lib/warewulf/provision/overlays"
    archive = warewulf.built(folder, "n1", "system", {"etc/hostname": "n1\n"})
    archive.write_bytes(archive.read_bytes()[:300])
    packed = warewulf.built(folder, "n1", "runtime", {"etc/hosts": "x\n"}, packed=True)
    packed.write_bytes(packed.read_bytes()[:-30])
    status, out, _ = run(f"import warewulf --dry-run --built {folder}")
    assert status == 0
    said = out.partition("Not compared\n")[2]
    assert "n1, system: " in said
    assert "is cut short" in said
    assert "n1, runtime: " in said
    packed.unlink()
    assert "n1, runtime: Warewulf built none" in run(f"import warewulf --dry-run --built {folder}")[1]
    status, _, err = run(f"import warewulf --dry-run --built {paths.etc}")
    assert status == 1
    assert "has no built overlays" in err


def commands() -> list[str]:
    """The commands of docs/migration.md about Warewulf, in their order."""
    text = (Path(__file__).parents[2] / "docs/migration.md").read_text()
    part = re.split(r"^## ", text, flags=re.MULTILINE)
    (section,) = (each for each in part if each.startswith("Warewulf 4\n"))
    return re.findall(r"^    wwfast (.*)$", section, re.MULTILINE)


def test_importer_every_command_of_the_walk_runs_and_leads_back(site: Paths, run: Run) -> None:
    folder = site.root / "var/lib/warewulf/provision/overlays"
    warewulf.built(folder, "n1", "system", {"etc/hostname": "n1\n"})
    before = warewulf.state(site.root)
    lines = commands()
    assert len(lines) == 9
    for line in lines:
        for place in ("/var/lib/warewulf/provision", "/etc/warewulf/warewulf.conf"):
            line = line.replace(place, f"{site.root}{place}")
        status, _, err = run(line)
        # The image is no more than a kernel's name: doctor has something to say of it.
        assert status == 0 or (line == "doctor" and status == 1), (line, err)
    left = warewulf.state(site.root)
    made = {name for name in left.keys() - before.keys() if not name.startswith(("etc/warewulf/keys", "root"))}
    assert {name: left[name] for name in before} == before
    assert {name for name in made if left[name][0] == "file"} == set()


def test_importer_looks_where_the_conf_says(tmp_path: Path, run: Run) -> None:
    """`paths:` of warewulf.conf: images, overlays, nodes.conf and what is built stand elsewhere."""
    paths = warewulf.new(tmp_path / "here")
    (paths.root / "srv/ww").mkdir(parents=True)
    for name in ("chroots", "overlays"):
        (paths.root / "var/lib/warewulf" / name).rename(paths.root / "srv/ww" / name)
    (paths.root / "srv/etc/warewulf").mkdir(parents=True)
    paths.nodes_conf.rename(paths.root / "srv/etc/warewulf/nodes.conf")
    places = {"wwchrootdir": "/srv/ww/chroots", "wwoverlaydir": "/srv/ww/overlays", "wwprovisiondir": "/srv/ww/made"}
    said = "".join(f"  {key}: {value}\n" for key, value in {**places, "sysconfdir": "/srv/etc"}.items())
    paths.conf.write_text(f"{warewulf.CONF_46}paths:\n{said}")
    (paths.root / "srv/ww/made/images").mkdir(parents=True)
    (paths.root / "srv/ww/made/images/el9.img").write_bytes(b"x")
    before = warewulf.state(paths.root)
    status, out, _ = run("import warewulf --yes")
    assert status == 0
    assert f"nodes.conf: {paths.root}/srv/etc/warewulf/nodes.conf is read as it is" in out
    assert f"overlay motd: {paths.root}/srv/ww/overlays/motd" in out
    assert "there is no el9.img.gz" in out
    assert "done: image el9" in out
    assert warewulf.state(paths.root) == before
    assert run("overlay show --render n1 --quiet motd etc/motd")[1] == "this is n1\n"
    assert "There is nothing for this command to do" in run("import warewulf --yes")[1]


def test_importer_reads_overlays_of_the_older_layout(site: Paths, run: Run) -> None:
    """Without rootfs/: the overlay's directory is what nodes get."""
    for name in ("motd", "generic", "wwinit"):
        place = site.warewulf_overlays / name
        for each in (place / "rootfs").iterdir():
            each.rename(place / each.name)
        (place / "rootfs").rmdir()
    (site.warewulf_overlays / "motd/etc/bad.ww").write_text("{{ env `HOME` }}")
    out = run("import warewulf --yes")[1]
    assert "template: overlay motd, etc/bad.ww, line 1" in out
    assert "overlay generic: files that no overlay of wwfast brings: etc/scheduler.conf" in out
    assert run("overlay show --render n1 --quiet motd etc/motd")[1] == "this is n1\n"


def test_importer_reads_entries_that_share_their_text(site: Paths, run: Run) -> None:
    """Anchors and aliases, which Warewulf reads and never writes."""
    site.nodes_conf.write_text(
        "nodeprofiles:\n  default: &all\n    container name: el9\n  other: *all\nnodes:\n  n1: {profiles: [other]}\n"
    )
    before = warewulf.state(site.root)
    steps = json.loads(run("import warewulf --yes --json")[1])["steps"]
    assert Registry(site).snapshot().nodes["n1"].image_name == "el9"
    take_back(run, steps)
    assert warewulf.state(site.root) == before


def test_importer_shows_what_it_says_for_programs_too(site: Paths, run: Run) -> None:
    """One plan, two forms: whatever is told to people is in the JSON."""
    told = run("import warewulf --dry-run")[1]
    found = json.loads(run("import warewulf --dry-run --json")[1])
    assert found["before 4.6"] == ["warewulf.conf", "nodes.conf"]
    assert found["faults"] == []
    assert not any(each["done"] for each in found["steps"])
    for line in found["same"]:
        assert line in told
    for each in (*found["differs"], *found["to do"]):
        assert f"{each['what']}: {each['why']}" in told
        assert each["fix"] in told
    for each in found["steps"]:
        assert f"{each['step']}: {each['does']}" in told


@pytest.mark.slow
def test_importer_of_many_nodes_is_bounded(tmp_path: Path, run: Run) -> None:
    """Plan and comparison of a thousand nodes: in seconds, and told in few lines."""
    paths = warewulf.new(tmp_path / "here")
    device = "network devices: {{default: {{hwaddr: '52:54:00:00:{:02x}:{:02x}', ipaddr: 10.1.{}.{}}}}}"
    nodes = "".join(
        f"  n{at:04d}: {{profiles: [default], {device.format(at >> 8, at & 255, at >> 8, at & 255)}}}\n"
        for at in range(1000)
    )
    text = warewulf.NODES_46.partition("nodes:\n")[0]
    paths.nodes_conf.write_text(f"{text}nodes:\n{nodes}".replace("motd]", "motd, gone]"))
    folder = paths.root / "var/lib/warewulf/provision/overlays"
    for at in range(1000):
        warewulf.built(folder, f"n{at:04d}", "system", {"etc/hostname": "old\n"}, packed=True)
    began = time.process_time()
    status, out, _ = run(f"import warewulf --dry-run --built {folder}")
    assert status == 0
    assert time.process_time() - began < 60
    assert "overlay gone: it is named by n[0000-0999] and is not there" in out
    assert "system: /etc/hostname: its text differs, on 1000 nodes: n0000" in out
    assert "n[0000-0999], runtime: Warewulf built none" in out
    assert len(out.splitlines()) < 50
