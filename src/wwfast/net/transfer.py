"""Transfer: the event that every contact of a node becomes, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from wwfast.net.names import NAME, REASON, tame


class Outcome(StrEnum):
    STARTED = "started"  # the first byte is about to be sent
    PROGRESS = "progress"  # at most one a second per transfer
    DONE = "done"  # the last byte was acknowledged by our kernel (HTTP) or the peer (TFTP)
    FAILED = "failed"  # refused, cut short or timed out: `detail` says why
    TOLD = "told"  # no transfer: the node says in `detail` what went wrong with it
    NOTED = "noted"  # nor this: it has all of the stage that it is in, and says in `detail` how


@dataclass(frozen=True, slots=True)
class Transfer:
    """One event of one transfer to one node.

    `wwid` is the node's MAC as it told it (lower case, colons) or empty when unknown; `node` its name or empty;
    `stage` one of dhcp, tftp, ipxe, kernel, image, kmods, system, runtime, ...; `sent` the object's name, or
    NOT_FOUND, BAD_REQUEST, BAD_ASSET; `peer` the client's address; `at` Unix seconds; `sent_bytes` and
    `total_bytes` of the body; `seconds` since STARTED; `status` the HTTP status, 0 for other protocols; `more`: the
    node is not up with this, though it is the last stage, since it asks for the same once more when it is; `way`: of a
    script that boots, in which way its image comes; `answered`: bytes of the answer that is over with this, which may
    be a part of a body that comes in many.

    Here strangers' words come in: `wwid`, `node`, `sent` and `detail` are tame, whoever keeps, logs or shows them.
    """

    stage: str
    outcome: Outcome
    at: float
    peer: str
    wwid: str = ""
    node: str = ""
    sent: str = ""
    sent_bytes: int = 0
    total_bytes: int = 0
    seconds: float = 0.0
    status: int = 0
    detail: str = ""
    more: bool = False
    way: str = ""
    answered: int = 0

    def __post_init__(self) -> None:
        for name, most in _TOLD_BY_STRANGERS:
            said: str = getattr(self, name)
            if len(said) > most or not said.isprintable():
                object.__setattr__(self, name, tame(said, most))

    @property
    def refused(self) -> bool:
        """It came to nothing: no byte was given."""
        return self.outcome is Outcome.FAILED and (self.status >= 400 or not self.sent_bytes)


_TOLD_BY_STRANGERS = (("wwid", NAME), ("node", NAME), ("sent", NAME), ("detail", REASON))
