"""Virtual machines that boot from the network: QEMU without KVM, x86 or ARM, seen through the serial console."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wwfast.demo.netns import Namespace
from wwfast.errors import WwfastError
from wwfast.system.run import Argv, Done, Process

# Firmware options of OVMF and AAVMF: what is switched off does not get in the boot order before HTTP.
HTTP_ONLY = tuple(f"opt/org.tianocore/{what},string=n" for what in ("IPv4PXESupport", "IPv6PXESupport", "IPv6Support"))
LOGIN = r"login: "
DEAD = r"Kernel panic|UEFI Interactive Shell"  # nothing comes after these


class VmError(WwfastError):
    """The machine did not show what was waited for; the message ends with the last lines of its console."""


@dataclass(frozen=True)
class Board:
    """What QEMU needs for one architecture: its program, a machine, a processor, and the two files of UEFI."""

    program: str
    package: str
    machine: str
    cpu: str
    code: Path
    variables: Path


BOARDS = {
    "amd64": Board(
        *("qemu-system-x86_64", "qemu-system-x86", "q35", "max"),
        *(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    ),
    # cortex-a57: `max` has pointer authentication, which costs an emulated machine half its speed.
    "arm64": Board(
        *("qemu-system-aarch64", "qemu-system-arm", "virt", "cortex-a57"),
        *(Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd")),
    ),
}


#: Without KVM, and where the host gives no time for 10 ms, Linux finds that "IO-APIC + timer doesn't work" and panics.
ARGUMENTS = "console=ttyS0 no_timer_check"


@dataclass(frozen=True)
class Direct:
    """Start a kernel without firmware or network boot."""

    kernel: Path
    initrds: Sequence[Path]
    append: str = ARGUMENTS


@dataclass
class Vm:
    """One machine on a tap of `network`; entering starts it, leaving kills it.

    `workdir` gets the console log <name>.log. `hwaddr` is also how the server knows it; `ipaddr` is for ssh only.
    `uefi` boots by the firmware's own PXE stack, `http` by its HTTP boot, `bios` by SeaBIOS and the ROM of the network
    card.
    """

    network: Namespace
    workdir: Path
    name: str
    hwaddr: str
    ipaddr: str = ""
    firmware: Literal["bios", "uefi", "http"] = "bios"
    arch: Literal["amd64", "arm64"] = "amd64"
    memory: int = 3072  # MiB
    cores: int = 2
    direct: Direct | None = None
    key: Path | None = None
    extra: Sequence[str] = ()
    process: Process | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)

    @property
    def log(self) -> Path:
        return self.workdir / f"{self.name}.log"

    def argv(self) -> list[str | Path]:
        # OVMF takes the ROM of the card, which is iPXE, unless there is none: romfile= tests the firmware itself.
        boot = "" if self.direct else ",bootindex=0,romfile=" if self.firmware != "bios" else ",bootindex=0"
        board = BOARDS[self.arch]
        argv: list[str | Path] = [
            *(board.program, "-name", self.name, "-nodefaults", "-nographic", "-monitor", "none"),
            *("-machine", board.machine, "-accel", "tcg,thread=multi", "-cpu", board.cpu),
            *("-m", str(self.memory), "-smp", str(self.cores)),
            *("-serial", f"file:{self.log}", "-device", "virtio-rng-pci"),
            *("-netdev", f"tap,id=net0,ifname={self.network.tap()},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=net0,mac={self.hwaddr}{boot}"),
        ]
        if self.firmware != "bios":
            variables = self.workdir / f"{self.name}.vars"
            shutil.copyfile(board.variables, variables)
            argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={board.code}"]
            argv += ["-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
        if self.firmware == "http":
            argv += [word for option in HTTP_ONLY for word in ("-fw_cfg", f"name={option}")]
        if self.direct:
            initrd = self.workdir / f"{self.name}.initrd"
            with initrd.open("wb") as out:
                for part in self.direct.initrds:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
            argv += ["-kernel", self.direct.kernel, "-initrd", initrd, "-append", self.direct.append]
        return [*argv, *self.extra]

    def __enter__(self) -> Vm:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        with self.log.with_suffix(".qemu").open("wb") as errors:
            package = BOARDS[self.arch].package
            self.process = self.network.start(self.argv(), stdout=errors, stderr=errors, package=package)
        self.started = time.monotonic()

    def stop(self) -> None:
        """Pull the plug."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def console(self) -> str:
        """What the machine wrote to its serial port so far."""
        return self.log.read_bytes().decode(errors="replace")

    def shows(self, pattern: str) -> bool:
        """Whether `pattern` (a regular expression) is on the console by now."""
        return re.search(pattern, self.console()) is not None

    def wait(self, pattern: str = LOGIN, timeout: float = 240.0, *, since: int = 0) -> re.Match[str]:
        """Wait until the console shows `pattern` (a regular expression) at or after offset `since`.

        Raises VmError when it is stuck for good, when the machine ends, or after `timeout` seconds.
        """
        sought, dead = re.compile(pattern), re.compile(DEAD)
        deadline = time.monotonic() + timeout
        while True:
            text = self.console()
            if found := sought.search(text, since):
                return found
            if self.process is None or self.process.poll() is not None:
                raise self._failure("ended", pattern, self.log.with_suffix(".qemu").read_text(errors="replace"))
            if found := dead.search(text, since):
                raise self._failure(f"ended at {found[0]!r}", pattern, text)
            if time.monotonic() > deadline:
                raise self._failure(f"took more than {timeout:g} s", pattern, text)
            time.sleep(0.1)

    def _failure(self, what: str, pattern: str, text: str) -> VmError:
        tail = "\n".join(text.splitlines()[-40:])
        return VmError(f"{self.name} {what} while waiting for {pattern!r}; its console ({self.log}) ends:\n{tail}")

    def ssh(self, *command: str, timeout: float = 60.0, check: bool = True) -> str:
        """The output of `command` (a shell line) run as root inside."""
        done = self._ssh(command, timeout, check)
        return done.stdout.decode(errors="replace")

    def wait_ssh(self, timeout: float = 120.0) -> None:
        """Wait until sshd answers."""
        deadline = time.monotonic() + timeout
        while (done := self._ssh(["true"], 30.0, False)).returncode:
            if time.monotonic() > deadline:
                raise self._failure(f"gave no ssh within {timeout:g} s", done.stderr.decode(), self.console())
            time.sleep(0.5)

    def wait_for(self, condition: str, timeout: float) -> float:
        """Wait until `condition`, a shell command run inside, succeeds; the seconds it took.

        One login for the whole wait: without KVM a login costs the machine two seconds of work.
        """
        begin = time.monotonic()
        loop = f"until {condition}; do sleep 0.3; done"
        done = self._ssh([f"timeout {max(timeout, 1):.0f} sh -c '{loop}'"], timeout + 60, False)
        if done.returncode:
            raise VmError(f"{self.name}: not within {timeout:g} s: {condition}")
        return time.monotonic() - begin

    def _ssh(self, command: Sequence[str], timeout: float, check: bool) -> Done:
        if self.key is None or not self.ipaddr:
            raise ValueError("ssh needs the key and the address of the machine")
        options = {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
        }
        argv: list[str | Path] = ["ssh", "-F", "/dev/null", "-i", self.key]
        for key, value in options.items():
            argv += ["-o", f"{key}={value}"]
        whole: Argv = [*argv, f"root@{self.ipaddr}", *command]
        return self.network.run(whole, check=check, timeout=timeout, package="openssh-client")
