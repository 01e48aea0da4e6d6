"""The fan-out: many commands, a few at a time, outcomes in the order of the jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wwfast.bmc.commands import Job
from wwfast.errors import WwfastError
from wwfast.system.run import attached as on_terminal
from wwfast.system.run import run


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one job did. `reason` is "" when it worked, else why it failed in words; `out` and `err` are its output."""

    node: str
    out: str = ""
    err: str = ""
    reason: str = ""
    hint: str = ""


def fan_out(
    jobs: Sequence[Job], *, fanout: int, timeout: float | None = None, pause: float = 0, package: str | None = None
) -> Iterator[Outcome]:
    """Run every job, at most `fanout` at a time; each has `timeout` seconds, so one dead node costs no other its turn.

    `pause` is how many seconds a place stays empty after a job. An interrupt starts nothing more, and waits for what
    is running: the terminal has sent it the same interrupt.
    """

    def one(job: Job) -> Outcome:
        outcome = attempt(job, timeout, package)
        if pause:
            time.sleep(pause)
        return outcome

    pool = ThreadPoolExecutor(max(1, min(fanout, len(jobs))))
    try:
        yield from pool.map(one, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def attempt(job: Job, timeout: float | None, package: str | None) -> Outcome:
    try:
        done = run(job.argv, check=False, env=environment(job), timeout=timeout, package=package)
    except WwfastError as error:
        return Outcome(job.node, reason=error.message, hint=error.hint or "")
    except OSError as error:  # not executable, too many processes
        return Outcome(job.node, reason=f"cannot run {job.argv[0]}: {error.strerror}")
    out, err = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
    return Outcome(job.node, out, err, ended(job, done.returncode))


def attached(job: Job, package: str | None) -> Outcome:
    """Run one job on our own terminal."""
    try:
        return Outcome(job.node, reason=ended(job, on_terminal(job.argv, env=environment(job), package=package)))
    except WwfastError as error:
        return Outcome(job.node, reason=error.message, hint=error.hint or "")


def environment(job: Job) -> dict[str, str]:
    return {**os.environ, **job.env}


def ended(job: Job, status: int) -> str:
    if status == 0:
        return ""
    return f"{job.argv[0]} failed with {f'signal {-status}' if status < 0 else f'exit status {status}'}"
