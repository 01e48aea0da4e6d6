"""text/template's own functions, and the table of all; what cannot be there stands by name with its reason."""

from __future__ import annotations

from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go import comparing, printf, printing, values
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.library import dates, encodings, lists, numbers, patterns, strings, versions


def fail(message: str) -> str:
    raise Refused("fail: {}", message)


def _and(*values: Any) -> Any:
    raise AssertionError("compiled, not called")


OWN: dict[str, Known] = {
    "and": Known(_and, "a", "a"),
    "or": Known(_and, "a", "a"),
    "not": Known(_and, "a"),
    "eq": Known(comparing.eq, "a", "a"),
    "ge": Known(comparing.ge, "aa"),
    "gt": Known(comparing.gt, "aa"),
    "le": Known(comparing.le, "aa"),
    "lt": Known(comparing.lt, "aa"),
    "ne": Known(comparing.ne, "aa"),
    "index": Known(values.index, "a", "a"),
    "len": Known(values.length, "a"),
    "print": Known(printing.print_, "", "a"),
    "printf": Known(printf.printf, "s", "a"),
    "println": Known(printing.println, "", "a"),
    "fail": Known(fail, "s"),
}

SPRIG: dict[str, Known] = {
    **strings.FUNCTIONS,
    **lists.FUNCTIONS,
    **numbers.FUNCTIONS,
    **dates.FUNCTIONS,
    **encodings.FUNCTIONS,
    **patterns.FUNCTIONS,
    **versions.FUNCTIONS,
    **OWN,
}

_SECRET = "what it gives differs each time, so every node would get new files at every build"
_SERVER = "a template does not see the environment or the network of the server"
_KEYS = "keys and passwords are not made while files are: make them once, and read them with Include"
REFUSED: dict[str, str] = {
    **dict.fromkeys(("env", "expandenv", "getHostByName"), _SERVER),
    **dict.fromkeys(
        ("randAlpha", "randAlphaNum", "randAscii", "randBytes", "randInt", "randNumeric", "shuffle", "uuidv4"), _SECRET
    ),
    **dict.fromkeys(
        (
            "bcrypt", "buildCustomCert", "decryptAES", "derivePassword", "encryptAES", "genCA", "genCAWithKey",
            "genPrivateKey", "genSelfSignedCert", "genSelfSignedCertWithKey", "genSignedCert", "genSignedCertWithKey",
            "htpasswd",
        ),
        _KEYS,
    ),
    "call": "there are no values that are functions",
}  # fmt: skip
