"""Commands: what they are given, how they end, and those that run beside our own work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from wwfast.errors import WwfastError
from wwfast.system.run import beside, forked, run, start, stop


def test_run_beside_raises_what_the_command_said_last_when_it_is_waited_for() -> None:
    failed = pytest.raises(WwfastError, match=r"sh failed with exit status 3: .*\nno room")
    with beside(["sh", "-c", "echo far; echo no room >&2; exit 3"]) as ended, failed:
        ended()
    with beside(["true"]) as ended:
        ended()
    with pytest.raises(WwfastError, match="no-such is not installed") as caught, beside(["no-such"], package="nosuch"):
        pass
    assert "nosuch" in (caught.value.hint or "")


@pytest.mark.parametrize("how", ["error", "late", "left"])
def test_run_beside_ends_the_command_with_the_body(tmp_path: Path, how: str) -> None:
    noted = tmp_path / "pid"

    def body() -> None:
        with beside(["sh", "-c", f"echo $$ > {noted}; exec sleep 7777"], timeout=0.1) as ended:
            begun = time.monotonic()
            while not (noted.exists() and noted.read_text()):
                assert time.monotonic() - begun < 60
                time.sleep(0.01)
            if how == "late":
                ended()
            if how == "error":
                raise ValueError("of the body")

    if how == "left":
        body()
    else:
        with pytest.raises((ValueError, WwfastError), match=r"of the body|did not finish within 0\.1 s"):
            body()
    assert not Path("/proc", noted.read_text().strip()).exists()


def test_run_says_how_a_command_ended_and_what_it_said_last() -> None:
    with pytest.raises(WwfastError) as failed:
        run(["sh", "-c", "for line in 1 2 3 4 5 6; do echo line $line >&2; done; exit 7"])
    first, *rest = failed.value.message.split("\n")
    assert first.startswith("sh failed with exit status 7: sh -c ")
    assert rest == ["line 2", "line 3", "line 4", "line 5", "line 6"]
    with pytest.raises(WwfastError, match="sh failed with signal 15: "):
        run(["sh", "-c", "kill -TERM $$"])
    assert run(["sh", "-c", "exit 7"], check=False).returncode == 7


def test_run_gives_a_command_its_input_or_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["cat"], input=b"given").stdout == b"given"
    ours, theirs = os.pipe()
    kept = os.dup(0)
    os.dup2(ours, 0)
    os.write(theirs, b"of our own standard input")
    try:
        assert run(["cat"], timeout=60).stdout == b""
    finally:
        os.dup2(kept, 0)
        for end in (ours, theirs, kept):
            os.close(end)


def test_run_says_what_is_missing_and_what_takes_too_long(tmp_path: Path) -> None:
    with pytest.raises(WwfastError, match="no-such is not installed") as missing:
        run(["no-such"], package="nosuch", cwd=tmp_path)
    assert "nosuch" in (missing.value.hint or "")
    with pytest.raises(WwfastError, match=f"cannot run true: no directory {tmp_path}/none"):
        run(["true"], cwd=tmp_path / "none")
    with pytest.raises(WwfastError, match=f"cannot run true: no directory {tmp_path}/none"):
        start(["true"], cwd=tmp_path / "none")
    with pytest.raises(WwfastError, match=r"sleep did not finish within 0\.1 s: sleep 7778"):
        run(["sleep", "7778"], timeout=0.1)


def test_run_stop_ends_a_command_that_will_not_end_itself() -> None:
    polite = start(["sleep", "7779"])
    assert stop(polite) == -signal.SIGTERM
    assert stop(polite) == -signal.SIGTERM, "it has ended"
    words = "trap '' TERM; echo ready; while :; do sleep 1; done"
    deaf = start(["sh", "-c", words], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    with deaf.stdout:
        assert deaf.stdout.readline() == b"ready\n"
        assert stop(deaf, grace=0.2) == -signal.SIGKILL


def note(where: Path) -> None:
    """The number of this process, whole as soon as it is there."""
    fresh = where.with_suffix(".new")
    fresh.write_text(str(os.getpid()))
    fresh.rename(where)


def await_note(where: Path) -> str:
    begun = time.monotonic()
    while not where.exists():
        assert time.monotonic() - begun < 60
        time.sleep(0.01)
    return where.read_text()


def test_a_copy_of_this_process_says_what_the_call_returned_and_nothing_where_it_failed() -> None:
    def failed() -> bytes:
        raise OSError

    def killed() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b"x"

    large = os.urandom(1 << 20)
    for call, said in ((lambda: large, large), (failed, b""), (killed, b"")):
        with forked(call) as received:
            assert received() == said
    with forked(lambda: b"%d" % os.getpid()) as received:
        pid = int(received())
        assert pid != os.getpid()
    assert not Path(f"/proc/{pid}").exists()


def test_a_copy_that_nobody_waits_for_ends_with_the_body(tmp_path: Path) -> None:
    noted = tmp_path / "pid"

    def call() -> bytes:
        note(noted)
        time.sleep(600)
        return b""

    def interrupted() -> None:
        await_note(noted)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), forked(call):
        interrupted()
    assert not Path(f"/proc/{noted.read_text()}").exists()


def test_a_copy_ends_with_a_process_that_was_killed_before_it_heard_all(tmp_path: Path) -> None:
    noted = tmp_path / "pid"

    def call() -> bytes:
        note(noted)
        return b"x" * (1 << 20)

    pid = os.fork()
    if not pid:
        try:
            with forked(call):
                time.sleep(600)
        finally:
            os._exit(1)
    copy = Path("/proc", await_note(noted), "stat")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    begun = time.monotonic()
    with suppress(FileNotFoundError, ProcessLookupError):  # it is gone, between any two looks
        while copy.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() - begun < 60
            time.sleep(0.01)
