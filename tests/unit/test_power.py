"""Power and ssh: which command a node gets, which nodes are meant, what is asked, in what order it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wwfast.bmc.commands import ACTIONS, Job, bmc
from wwfast.bmc.runner import fan_out
from wwfast.cli.main import main
from wwfast.errors import ConfigError
from wwfast.nodes.model import Ipmi, Node
from wwfast.paths import Paths

Run = Callable[..., tuple[int, str, str]]

NODES = """
nodes:
  n3: {ipmi: {ipaddr: 10.1.0.3}, network devices: {default: {ipaddr: 10.0.0.3}}}
  n1: {ipmi: {ipaddr: 10.1.0.1, username: root, password: hidden}, network devices: {default: {ipaddr: 10.0.0.1}}}
  n2: {network devices: {default: {ipaddr: 10.0.0.2}}}
  uptime: {network devices: {default: {ipaddr: 10.0.0.9}}}
  bare: {}
"""


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    paths.nodes_conf.write_text(NODES)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["--root", str(paths.root), *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def rsh(tmp_path: Path) -> str:
    """A program in place of ssh: tells its words, after a while for the first node; fails for the second."""
    path = tmp_path / "rsh"
    path.write_text('#!/bin/sh\n[ "$1" = 10.0.0.1 ] && sleep 0.3\necho "$@"; echo two\n[ "$1" != 10.0.0.2 ]\n')
    path.chmod(0o755)
    return str(path)


def test_power_words_are_those_of_warewulf_without_the_password() -> None:
    ipmi = Ipmi("root", "pa'ss", "10.1.0.1", port="624", interface="lanplus", escapechar="!")
    job = bmc(Node(id="n1", ipmi=ipmi), "cycle")
    assert " ".join(job.argv) == "ipmitool -I lanplus -e ! -p 624 -H 10.1.0.1 -U root -E chassis power cycle"
    assert job.env == {"IPMITOOL_PASSWORD": "pa'ss"}
    assert "pa'ss" not in repr(job)


@pytest.mark.parametrize("action", ACTIONS)
def test_power_every_action_has_its_words(action: str) -> None:
    job = bmc(Node(id="n1", ipmi=Ipmi(ipaddr="10.1.0.1")), action)
    assert job.argv[-len(ACTIONS[action]) :] == ACTIONS[action]
    assert ("-I" in job.argv) == (action == "console")


def test_power_words_of_a_field_stay_one_word() -> None:
    job = bmc(Node(id="n1", ipmi=Ipmi('"; poweroff #', ipaddr="10.1.0.1")), "on")
    assert job.argv[job.argv.index("-U") + 1] == '"; poweroff #'


def test_power_without_a_password_takes_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(id="n1", ipmi=Ipmi(ipaddr="10.1.0.1"))
    assert bmc(node, "on").env == {"IPMITOOL_PASSWORD": ""}
    monkeypatch.setenv("IPMI_PASSWORD", "mine")
    assert bmc(node, "on").env == {}


@pytest.mark.parametrize(
    ("ipmi", "said", "hint"),
    [
        (Ipmi(), "no BMC address", "--ipmiaddr"),
        (Ipmi(ipaddr="0.0.0.0"), "no BMC address", "--ipmiaddr"),
        (Ipmi(ipaddr="10.1.0.1", template="redfish.tmpl"), "'redfish.tmpl' is not run", "--ipmitemplate"),
        (Ipmi(ipaddr="10.1.0.1", template="nobmc.tmpl"), "power without a BMC is not built in", "--ipmitemplate"),
        (Ipmi(ipaddr="10.1.0.1", interface="open"), "interface 'open' does not reach", "--ipmiinterface"),
    ],
)
def test_power_refuses_what_would_not_reach_the_bmc(ipmi: Ipmi, said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bmc(Node(id="n1", ipmi=ipmi), "off")
    assert said in caught.value.message
    assert hint in str(caught.value.hint)


def test_power_nodes_without_a_bmc_are_named_and_the_others_go_on(run: Run) -> None:
    status, out, err = run("power", "off", "--show", "n[3,1-2]", "gone")
    assert status == 1
    assert out.splitlines() == [
        "n1:   ipmitool -H 10.1.0.1 -U root -E chassis power off",
        "n3:   ipmitool -H 10.1.0.3 -E chassis power off",
    ]
    assert "n2:   error: no BMC address\nn2:   hint: wwfast node set n2 --ipmiaddr ADDRESS" in err
    assert "gone: error: no node of that name" in err
    assert "failed on 2 of 4 nodes: gone,n2" in err
    assert "hidden" not in out + err


def test_power_of_nobody_is_an_error(run: Run) -> None:
    assert run("power", "on", "gone") == (1, "", "error: no node 'gone'\nhint: wwfast node list\n")
    assert run("power", "on")[0] == 2


@pytest.mark.parametrize("action", ["off", "cycle", "reset", "soft"])
def test_power_of_several_is_asked_for_and_without_an_answer_is_no(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, action: str
) -> None:
    tool = tmp_path / "bin/ipmitool"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ran\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    status, out, err = run("power", action, "n[1,3]")
    assert (status, out) == (1, "")
    assert "2 nodes: n[1,3]? [y/N]: no answer on standard input\n" in err
    assert "hint: --yes does not ask" in err
    assert not (tmp_path / "ran").exists()
    assert run("power", action, "n1") == (0, "", "")
    assert run("power", action, "n[1,3]", "--yes") == (0, "", "")
    assert (tmp_path / "ran").read_text() == "ran\n" * 3


def test_power_without_ipmitool_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, err = run("node", "sensors", "n1")
    assert status == 1
    assert "n1: error: ipmitool is not installed\nn1: hint: install it, for example: apt-get install ipmitool" in err


def test_fan_out_keeps_order_and_cuts_what_hangs() -> None:
    jobs = [Job("a", ("sleep", "30")), Job("b", ("echo", "b")), Job("c", ("false",))]
    slow, good, bad = fan_out(jobs, fanout=2, timeout=0.5)
    assert "did not finish within 0.5 s" in slow.reason
    assert (good.out, good.reason) == ("b\n", "")
    assert bad.reason == "false failed with exit status 1"


def test_ssh_takes_nodes_from_the_first_word_only(run: Run, rsh: str) -> None:
    status, out, err = run("ssh", "--rsh", rsh, "n3", "uptime", "n1", "-s", "1")
    assert (status, out, err) == (0, "n3: 10.0.0.3 uptime n1 -s 1\nn3: two\n", "")
    assert run("ssh", "--rsh", rsh, "n3", "--", "uptime")[1].startswith("n3: 10.0.0.3 uptime\n")


def test_ssh_prints_in_node_order_and_counts_failures(run: Run, rsh: str) -> None:
    status, out, err = run("ssh", "--rsh", rsh, "n[3,2,1],bare", "id")
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()] == ["n1:", "n1:", "n2:", "n2:", "n3:", "n3:"]
    assert "bare: error: no address on its primary network device" in err
    assert f"n2: error: {rsh} failed with exit status 1" in err
    assert err.endswith("failed on 2 of 4 nodes: bare,n2\n")


def test_ssh_dry_run_shows_the_words_and_options_come_first(run: Run) -> None:
    _, out, _ = run("ssh", "-n", "n1", "ls", "-l")
    assert out == "n1: /usr/bin/ssh -o BatchMode=yes -o ConnectTimeout=10 -- 10.0.0.1 ls -l\n"
    status, _, err = run("ssh", "n1", "-n", "reboot")
    assert status == 2
    assert "options of wwfast ssh stand before the nodes" in err
