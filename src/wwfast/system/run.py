"""The one place that starts subprocesses: list argv, closed stdin, explicit errors."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from wwfast.errors import WwfastError
from wwfast.system import libc, signals

log = logging.getLogger(__name__)

#: Seconds. SHORT: for what answers at once, on a machine however busy; LONG: for what moves whole trees.
SHORT, LONG = 600.0, 12 * 3600.0

Argv = Sequence[str | Path]
Done = subprocess.CompletedProcess[bytes]
Process = subprocess.Popen[bytes]


def missing(program: str, package: str | None) -> WwfastError:
    hint = f"install it, for example: apt-get install {package}" if package else "install it first"
    return WwfastError(f"{program} is not installed", hint=hint)


def run(
    argv: Argv,
    *,
    check: bool = True,
    capture: bool = True,
    input: bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = SHORT,
    package: str | None = None,
) -> Done:
    """Run one command to its end.

    With `capture` its output is returned as bytes, otherwise it goes to our own stdout and stderr.
    `timeout` None is for a person's own command alone.
    Raises WwfastError when the program is missing (naming `package` if given), times out, or, with `check`,
    fails: the message then ends with the last lines it wrote to stderr.
    """
    words = [str(word) for word in argv]
    pipe = subprocess.PIPE if capture else None
    process = None
    try:
        with signals.held():
            source = subprocess.DEVNULL if input is None else subprocess.PIPE
            process = start(words, cwd=cwd, env=env, stdin=source, stdout=pipe, stderr=pipe, package=package)
        out, err = process.communicate(input, timeout)
    except subprocess.TimeoutExpired as error:
        raise _late(words, error) from error
    finally:
        _over(process)
    done = Done(words, process.returncode, out, err)
    if check and done.returncode != 0:
        raise _failed(words, done.returncode, done.stderr)
    return done


def _late(words: Sequence[str], error: subprocess.TimeoutExpired) -> WwfastError:
    return WwfastError(f"{words[0]} did not finish within {error.timeout:g} s: {shlex.join(words)}")


def _failed(words: Sequence[str], code: int, stderr: bytes | None) -> WwfastError:
    tail = (stderr or b"").decode(errors="replace").strip().splitlines()[-5:]
    status = f"signal {-code}" if code < 0 else f"exit status {code}"
    return WwfastError("\n".join([f"{words[0]} failed with {status}: {shlex.join(words)}", *tail]))


@contextmanager
def beside(argv: Argv, *, timeout: float = SHORT, package: str | None = None) -> Iterator[Callable[[], None]]:
    """One command while the body does something else; what is yielded waits for its end, `timeout` at most, and raises
    as `run` does. It is killed when the body ends before it, and however we end."""
    words = [str(word) for word in argv]
    child: Process | None = None

    def ended() -> None:
        assert child is not None
        try:
            _, stderr = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise _late(words, error) from error
        if child.returncode != 0:
            raise _failed(words, child.returncode, stderr)

    try:
        with signals.held():
            child = start(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, tied=True, package=package)
        yield ended
    finally:
        _over(child)


def _over(process: Process | None) -> None:
    """It is not left running, whatever ended our waiting for it."""
    if process is None:
        return
    process.kill()  # nothing, where it has ended
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # what nobody read
                pipe.close()


def attached(argv: Argv, *, env: Mapping[str, str] | None = None, package: str | None = None) -> int:
    """A program on our own terminal, to its end: its status. Ctrl-C is for it; what asks us to end ends it, too."""
    process: Process | None = None
    try:
        with signals.held():
            process = start(argv, env=env, stdin=None, package=package)
        while True:
            with suppress(KeyboardInterrupt):
                return process.wait()
    finally:
        if process is not None:
            stop(process)


def start(
    argv: Argv,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    tied: bool = False,
    package: str | None = None,
) -> Process:
    """Start a long-running command; the caller owns and ends it. With `tied` it dies with us, however we end."""
    words = [str(word) for word in argv]
    log.debug("start: %s", shlex.join(words))
    process: Process | None = None
    try:
        with signals.held():
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                preexec_fn=libc.die_with_parent if tied else None,
            )
        return process  # noqa: RET504 (what comes while it is held is raised before this)
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise WwfastError(f"cannot run {words[0]}: no directory {cwd}") from error
        raise missing(words[0], package) from error
    except BaseException:
        _over(process)
        raise


def fork(body: Callable[[], int]) -> int:
    """A copy of this process runs `body`, and ends with the status that returns, or 1; its PID. Call it within
    signals.held, until the PID is where somebody ends it."""
    with signals.held():
        pid = os.fork()
        if not pid:
            status = 1
            try:
                signals.free()
                status = body()
            finally:
                os._exit(status)
    return pid


@contextmanager
def forked(call: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """A copy of this process, which must have no threads, makes the `call` meanwhile. Gives what waits for what that
    returned: b"" where it failed, and less than all where it was killed."""
    source, sink = os.pipe()
    pid = 0

    def made() -> int:
        os.close(source)  # where we are gone it ends, too
        with os.fdopen(sink, "wb") as pipe:
            pipe.write(call())
        return 0

    with os.fdopen(source, "rb") as pipe:
        try:
            try:
                gc.freeze()  # a collector would walk what the copy shares with us, and so copy it
                with signals.held():
                    pid = fork(made)
            finally:
                os.close(sink)
            yield pipe.read
        finally:
            pipe.close()
            if pid:
                with suppress(ProcessLookupError, ChildProcessError):  # where SIGCHLD is ignored it is gone by itself
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


class Packets:
    """Our end of the packet socket (SOCK_SEQPACKET) that a child has as its standard input."""

    def __init__(self, end: socket.socket, timeout: float) -> None:
        end.settimeout(timeout)
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, data: bytes) -> None:
        """Raises OSError when the child has gone, TimeoutError when it does not take it."""
        self._end.send(data)

    def receive(self, limit: int) -> tuple[bytes, list[int]]:
        """One packet and the descriptors that came with it (4 at most), now ours; no bytes when the child has gone."""
        data, descriptors, _, _ = socket.recv_fds(self._end, limit, 4, socket.MSG_CMSG_CLOEXEC)
        return data, descriptors

    def close(self) -> None:
        self._end.close()


def converse(
    argv: Argv, *, stderr: IO[bytes] | None, timeout: float, tied: bool = True, package: str | None = None
) -> tuple[Process, Packets]:
    """Start a command that answers packets on its standard input. With `tied` it dies with the thread that started it,
    else it finds the end of its standard input when we are gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            child = start(argv, stdin=theirs.fileno(), stdout=stderr, stderr=stderr, tied=tied, package=package)
        except BaseException:
            ours.close()
            raise
    return child, Packets(ours, timeout)


def answer(data: bytes, descriptors: Sequence[int] = ()) -> None:
    """In a command that `converse` started: send a packet, and open files with it. Raises OSError."""
    with socket.socket(fileno=os.dup(0)) as end:
        socket.send_fds(end, [data], descriptors)


def stop(process: Process, grace: float = 10.0) -> int:
    """SIGTERM, then SIGKILL after `grace` seconds; the exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(grace)
        except Exception:
            process.kill()
    return process.wait()
