"""wwfast configure ssh: keys that exist stay, keys that are made are whole and private."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from wwfast.cli.main import main
from wwfast.errors import WwfastError
from wwfast.overlays.files.sshkeys import host_key, make_host_keys, make_login
from wwfast.paths import Paths


def run(paths: Paths, *words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(paths.root), *words])
    return int(ended.value.code or 0)


def test_configure_ssh_makes_what_is_missing_and_keeps_the_rest(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.conf.write_text("ssh: {key types: [ed25519, ecdsa]}\n")
    assert run(paths, "configure", "ssh") == 0
    said = capsys.readouterr().out
    for kind in ("ed25519", "ecdsa"):
        key = host_key(paths, kind)
        assert f"made {key}\n" in said
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        derived = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, check=True).stdout.split()
        assert key.with_name(f"{key.name}.pub").read_bytes().split()[:2] == derived[:2]
    login = paths.root / "root/.ssh"
    assert (login / "authorized_keys").read_bytes() == (login / "id_ed25519.pub").read_bytes()
    assert stat.S_IMODE((login / "authorized_keys").stat().st_mode) == 0o600
    assert sorted(path.name for path in (paths.etc / "keys").iterdir()) == [
        "ssh_host_ecdsa_key",
        "ssh_host_ecdsa_key.pub",
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
    ]

    before = host_key(paths, "ed25519").read_bytes()
    host_key(paths, "ecdsa").unlink()
    assert run(paths, "configure", "ssh") == 0
    made, *others = capsys.readouterr().out.splitlines()
    assert made == f"made {host_key(paths, 'ecdsa')}"
    assert all(line.endswith("is as it should be") for line in others)
    assert host_key(paths, "ed25519").read_bytes() == before
    assert run(paths, "configure", "ssh") == 0
    assert capsys.readouterr().out.startswith("all keys are there already\n")


def test_configure_ssh_leaves_authorized_keys_alone(paths: Paths) -> None:
    authorized = paths.root / "root/.ssh/authorized_keys"
    authorized.parent.mkdir(parents=True)
    authorized.write_text("mine\n")
    assert make_login(paths, "ed25519") is None
    assert authorized.read_text() == "mine\n"
    assert [path.name for path in authorized.parent.iterdir()] == ["authorized_keys"]


def test_configure_ssh_refuses_an_unknown_kind(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WwfastError, match="ssh-keygen failed"):
        make_host_keys(paths, ["nothing"])
    assert not (paths.etc / "keys").exists()
    assert run(paths, "configure", "ssh", "-t", "ed25519", "-t", "nothing") == 2
    assert "'nothing' is no type of SSH keys" in capsys.readouterr().err
    paths.conf.write_text("ssh: {key types: [ed25519, rot13]}\n")
    assert run(paths, "configure", "ssh") == 1
    said = capsys.readouterr().err
    assert f"{paths.conf}:1: ssh.key types" in said
    assert "'rot13' is no type of SSH keys" in said
    assert not (paths.etc / "keys").exists(), "what is right beside it waits, too"


def test_configure_ssh_names_the_setting_of_a_kind_that_ssh_keygen_does_not_make(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As OpenSSH 10 says it of dsa."""
    there = paths.root / "bin/ssh-keygen"
    there.parent.mkdir()
    there.write_text('#!/bin/sh\necho "unknown key type $3" >&2\nexit 255\n')
    there.chmod(0o755)
    monkeypatch.setenv("PATH", f"{there.parent}:{os.environ['PATH']}")
    paths.conf.write_text("ssh: {key types: [dsa]}\n")
    assert run(paths, "configure", "ssh") == 1
    said = capsys.readouterr().err
    for part in (str(host_key(paths, "dsa")), "unknown key type dsa", "take dsa out of `ssh: key types`"):
        assert part in said


def test_configure_doctor_tells_of_missing_host_keys(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    paths.nodes_conf.write_text("nodes:\n  n1: {system overlay: [ssh.host_keys]}\n")
    run(paths, "doctor")
    assert "no SSH host keys for the nodes" in capsys.readouterr().out
    make_host_keys(paths, ["ed25519"])
    run(paths, "doctor")
    assert "no SSH host keys for the nodes" not in capsys.readouterr().out
