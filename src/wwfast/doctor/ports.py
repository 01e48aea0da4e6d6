"""What other programs of this server do to a boot: they hold our ports, or drop what nodes send."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from wwfast.doctor.finding import ERROR, PROC, WARNING, Finding, Scene
from wwfast.system import run

UNKNOWN = "another program"
ASK_SECONDS = 5.0  # firewall-cmd takes 0.3 s; one whose daemon hangs waits 25 s for D-Bus, or for ever

UNITS = {
    "dhcpd": "isc-dhcp-server",
    "in.tftpd": "tftpd-hpa",
    "wwctl": "warewulfd",
    "kea-dhcp4": "kea-dhcp4-server",
    "systemd": "tftp.socket",
}


def ports(scene: Scene) -> Iterator[Finding]:
    """Ports that another program holds, and which."""
    settings = scene.settings
    wanted = [("tcp", settings.warewulf.port, "HTTP")]
    if settings.tftp.enabled:
        wanted.append(("udp", 69, "TFTP"))
    if settings.dhcp.enabled:
        wanted += [("udp", 67, "DHCP"), ("udp", 4011, "ProxyDHCP")]
    for protocol, port, service in wanted:
        holder = port_holder(protocol, port, scene.proc)
        if holder is not None and not holder.startswith("wwfast"):
            fix = _end(holder, port) + ("  (or set `dhcp: enabled: false` and keep it)" if "DHCP" in service else "")
            yield Finding(ERROR, "ports", f"port {port}/{protocol} ({service}) is in use by {holder}", fix)


def _end(holder: str, port: int) -> str:
    """How to stop who holds a port."""
    if holder == UNKNOWN:
        return f"ask as root which one: ss -lnp 'sport = :{port}'"
    name, _, pid = holder.rstrip("]").partition("[")
    return f"systemctl disable --now {UNITS[name]}" if name in UNITS else f"stop it; its unit: systemctl status {pid}"


def port_holder(protocol: str, port: int, proc: Path = PROC) -> str | None:
    """`name[pid]` of the process with a socket bound to the port, UNKNOWN when it can't be told, None when free."""
    inodes: set[str] = set()
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            listening = protocol == "udp" or words[3] == "0A"
            if listening and int(words[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    if not inodes:
        return None
    for pid in (entry for entry in proc.iterdir() if entry.name.isdigit()):
        try:
            for fd in (pid / "fd").iterdir():
                if str(fd.readlink()) in inodes:
                    name = (pid / "comm").read_text().strip()
                    command = (pid / "cmdline").read_bytes().split(b"\0")
                    if any(b"wwfast" in word for word in command[:3]):
                        name = "wwfast"
                    return f"{name}[{pid.name}]"
        except OSError:
            continue
    return UNKNOWN


def ask(*words: str) -> run.Done:
    """What another program says. Raises WwfastError when it takes too long: it may wait for what is not there."""
    return run.run(words, check=False, timeout=ASK_SECONDS)


def firewall(scene: Scene) -> Iterator[Finding]:
    """firewalld, ufw, or an nftables input chain that drops by default."""
    port = scene.settings.warewulf.port
    services = f"{port}/tcp, 67/udp, 69/udp, 4011/udp"
    if shutil.which("firewall-cmd") and ask("firewall-cmd", "--state").returncode == 0:
        ports_open = ask("firewall-cmd", "--list-ports").stdout.decode().split()
        if f"{port}/tcp" not in ports_open:
            yield Finding(
                WARNING,
                "firewall",
                f"firewalld is on and {services} are not all open",
                f"firewall-cmd --permanent --add-port={port}/tcp --add-service=dhcp --add-service=tftp "
                "--add-port=4011/udp && firewall-cmd --reload",
            )
        return
    if shutil.which("ufw") and b"Status: active" in ask("ufw", "status").stdout:
        yield Finding(
            WARNING, "firewall", f"ufw is on; nodes need {services}", f"ufw allow {port}/tcp; ufw allow 67,69,4011/udp"
        )
        return
    if shutil.which("nft"):
        rules = ask("nft", "list", "ruleset").stdout.decode(errors="replace")
        if (
            any("hook input" in line and "policy drop" in line for line in rules.splitlines())
            and str(port) not in rules
        ):
            yield Finding(
                WARNING,
                "firewall",
                f"an nftables input chain drops by default and port {port} is not named in it",
                f"nft add rule inet filter input tcp dport {port} accept; "
                "nft add rule inet filter input udp dport '{67, 69, 4011}' accept",
            )


def ipv6(scene: Scene) -> Iterator[Finding]:
    """An address of IPv6 in warewulf.conf, where the kernel has none: the server goes on without."""
    if not scene.settings.ipaddr6:
        return
    switch = scene.proc / "sys/net/ipv6/conf/all/disable_ipv6"
    if not switch.exists() or switch.read_text().strip() == "1":
        message = f"{scene.paths.conf} sets ipaddr6, and IPv6 is off in the kernel: nobody is served by it"
        fix = "sysctl -w net.ipv6.conf.all.disable_ipv6=0, or take ipaddr6 out"
        yield Finding(WARNING, "ipv6", message, fix)
