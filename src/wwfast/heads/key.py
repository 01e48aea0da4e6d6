"""The key of heads that know each other: made once, copied to the other head, and all that each of them trusts.

One EC pair in one file serves both sides as their certificate and as the only one they believe (TLS 1.3). It is known
by its content: neither names nor dates in it are asked for, so that a clock that is off keeps nobody apart.
"""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from wwfast.errors import NotFoundError, WwfastError
from wwfast.paths import Paths
from wwfast.system import files, work
from wwfast.system.folders import new_folder
from wwfast.system.run import run

DAYS = 36500
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL


def place(paths: Paths) -> Path:
    return paths.etc / "tls/follow.pem"


def make(paths: Paths, *, force: bool = False) -> Path:
    """A new pair, in one file. Raises WwfastError where there is one."""
    target = place(paths)
    if target.exists() and not force:
        raise WwfastError(
            f"there is a key already: {target}",
            hint="copy it to the other head; with --force a new one is made, and heads with this one are refused",
        )
    pair = run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", str(DAYS), "-subj", "/O=wwfast/CN=heads"),
            *("-keyout", "-", "-out", "-"),  # not to files: it says nothing of a disk that is full
        ],
        package="openssl",
    ).stdout
    with new_folder(target.parent, 0o700), work.directory(target.parent) as room:
        whole = room / "whole"
        whole.touch(0o600)
        whole.write_bytes(pair)
        context(whole, ssl.PROTOCOL_TLS_SERVER)
        files.replace(target, pair, mode=0o600)
    return target


def wrong(path: Path) -> str:
    """Why it is no key that is secret, or nothing. Raises OSError where it is not there."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{path} can be read by others (mode {mode:04o})" if mode & 0o077 else ""


def context(path: Path, side: ssl._SSLMethod) -> ssl.SSLContext:
    """For the side that listens, or the one that connects. Raises WwfastError."""
    made = ssl.SSLContext(side)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        if why := wrong(path):
            raise WwfastError(f"the key of this head is no secret: {why}", hint=f"chmod 0600 {path}, or make another")
        made.load_cert_chain(path)
        made.load_verify_locations(path)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no key {path}", hint="wwfast follow key on the first head, then copy the file to the other"
        ) from error
    except OSError as error:  # of which the errors of ssl are some
        raise WwfastError(
            f"{path} is no key of heads: {error.strerror or error}",
            hint="copy it once more from the head where `wwfast follow key` made it",
        ) from error
    return made
