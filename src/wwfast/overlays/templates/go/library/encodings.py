"""sprig's functions of JSON, base64, hashes, paths and addresses of the web; text/template's html, js and urlquery."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import posixpath
import re
import urllib.parse
import zlib
from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.library.dates import Time
from wwfast.overlays.templates.go.library.strings import data, undo
from wwfast.overlays.templates.go.printing import plain, print_, shortest
from wwfast.overlays.templates.go.values import Address, Flag, Object, Word, is_nil

# -- JSON --------------------------------------------------------------------------------------------------------------

_JSON = re.compile(r'[\x00-\x1f"\\<>&\u2028\u2029\udc80-\udcff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def json_text(value: str, *, html: bool) -> str:
    def escaped(match: re.Match[str]) -> str:
        letter = match[0]
        if letter in "<>&" and not html:
            return letter
        if 0xDC80 <= ord(letter) <= 0xDCFF:
            return "\\ufffd"
        return _SHORT.get(letter) or f"\\u{ord(letter):04x}"

    return f'"{_JSON.sub(escaped, value)}"'


def json_number(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        raise Refused("toJson: a number that JSON cannot hold")
    digits, point = shortest(value)
    sign = "-" if math.copysign(1, value) < 0 else ""
    if value and not 1e-6 <= abs(value) < 1e21:
        exponent = point - 1
        fraction = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):d}"
    return sign + plain(digits, point)


def encoded(value: Any, *, html: bool = True, indent: str = "", level: str = "") -> str:
    """encoding/json; `indent` per level, none for one line."""
    if is_nil(value):
        return '""' if isinstance(value, Address) else "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str | Word | Address):
        return json_text(value if isinstance(value, str) else value.text, html=html)
    if isinstance(value, Flag):
        return "true" if value.says else "false"
    if isinstance(value, Time):
        return f'"{value.format("2006-01-02T15:04:05.999999999Z07:00")}"'
    pairs = value.json() if isinstance(value, Object) else sorted(value.items()) if isinstance(value, dict) else None
    if isinstance(pairs, str):
        return json_text(pairs, html=html)
    inner = level + indent
    if pairs is not None:
        colon = ": " if indent else ":"
        made = [
            json_text(key, html=html) + colon + encoded(item, html=html, indent=indent, level=inner)
            for key, item in pairs
        ]
        return _laid(made, "{}", indent, level)
    return _laid([encoded(item, html=html, indent=indent, level=inner) for item in value], "[]", indent, level)


def _laid(items: list[str], ends: str, indent: str, level: str) -> str:
    if not items:
        return ends
    if not indent:
        return ends[0] + ",".join(items) + ends[1]
    return f"{ends[0]}\n{level}{indent}" + f",\n{level}{indent}".join(items) + f"\n{level}{ends[1]}"


def tried(value: Any, *, html: bool = True, indent: str = "") -> str:
    """As toJson: nothing for what JSON cannot hold."""
    try:
        return encoded(value, html=html, indent=indent)
    except Refused as error:
        if "JSON cannot hold" in error.message:
            return ""
        raise


def _constant(word: str) -> Any:
    raise ValueError(word)


def decoded(value: str) -> Any:
    """Numbers are float64, as in Go."""
    try:
        return json.loads(value, parse_int=float, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("fromJson: this is no JSON") from error


def loosely(value: str) -> Any:
    try:
        return decoded(value)
    except Refused:
        return None


# -- base 64 and 32, hashes --------------------------------------------------------------------------------------------


_B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_B32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def unbased64(value: str) -> str:
    """What is no such text gives what Go says of it."""
    at = _wrong64(data(value))
    if at is not None:
        return f"illegal base64 data at input byte {at}"
    return undo(base64.b64decode(value))


def _wrong64(source: bytes) -> int | None:
    """Where Go stops reading base64; None when it does not."""
    alphabet, at = _B64.encode(), 0
    while True:
        have = 0
        while have < 4:
            if at == len(source):
                return at - have if have else None
            letter = source[at]
            at += 1
            if letter in alphabet:
                have += 1
            elif letter == ord("="):
                return _padding64(source, at, have)
            elif letter not in b"\r\n":
                return at - 1


def _padding64(source: bytes, at: int, have: int) -> int | None:
    """The same from after the first `=` on, of which `have` letters stand before."""
    if have < 2:
        return at - 1
    rest = source[at:]
    if have == 2:
        blank = len(rest) - len(rest.lstrip(b"\r\n"))
        if blank == len(rest):
            return len(source)
        at += blank
        if source[at : at + 1] != b"=":
            return at - 1
        at += 1
    rest = source[at:]
    left = rest.lstrip(b"\r\n")
    return len(source) - len(left) if left else None


def unbased32(value: str) -> str:
    source = data(value).replace(b"\r", b"").replace(b"\n", b"")
    at = _wrong32(source)
    return f"illegal base32 data at input byte {at}" if at is not None else undo(base64.b32decode(source))


def _wrong32(source: bytes) -> int | None:
    alphabet = _B32.encode()
    for start in range(0, len(source), 8):
        group = source[start : start + 8]
        for have, letter in enumerate(group):
            if letter == ord("=") and have >= 2 and len(source) - start - have - 1 < 8:
                if len(group) < 8:
                    return len(source)
                odd = next((k for k, each in enumerate(group[have + 1 :]) if each != ord("=")), None)
                if odd is not None:
                    return start + have + odd
                return start + have if have in (3, 6) else None
            if letter not in alphabet:
                return start + have
        if len(group) < 8:
            return start
    return None


def hexadecimal(name: str) -> Known:
    function = getattr(hashlib, name)
    return Known(lambda value: function(data(value), usedforsecurity=False).hexdigest(), "s")


# -- paths -------------------------------------------------------------------------------------------------------------


def clean(path: str) -> str:
    if not path:
        return "."
    made = posixpath.normpath(path)
    return made[1:] if made.startswith("//") else made


def base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or "/" if path else "."


def directory(path: str) -> str:
    return clean(path[: path.rfind("/") + 1])


def extension(path: str) -> str:
    name = path.rpartition("/")[2]
    return name[name.rfind(".") :] if "." in name else ""


PATHS = {
    "base": Known(base, "s"),
    "clean": Known(clean, "s"),
    "dir": Known(directory, "s"),
    "ext": Known(extension, "s"),
    "isAbs": Known(lambda path: path.startswith("/"), "s"),
}

# -- escapes of text/template ------------------------------------------------------------------------------------------

_HTML = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def joined(values: tuple[Any, ...]) -> str:
    return print_(*("<no value>" if value is None else value for value in values))


def javascript(*values: Any) -> str:
    def escaped(letter: str) -> str:
        if letter in _JS:
            return _JS[letter]
        if letter < " " or (letter > "~" and not letter.isprintable()):
            return f"\\u{ord(letter):04X}"
        return letter

    return "".join(map(escaped, joined(values)))


def url_query(*values: Any) -> str:
    return urllib.parse.quote_plus(data(joined(values)), safe="")


_NO_ESCAPE = re.compile("%(?![0-9a-fA-F]{2})")


def url_parse(value: str) -> dict[str, Any]:
    """The parts of an address; what is no plain one is refused."""
    try:
        if _NO_ESCAPE.search(value):
            raise ValueError("an escape")
        found = urllib.parse.urlsplit(value)
        host = found.netloc.rpartition("@")[2]
        name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    except ValueError as error:
        raise Refused("urlParse: this is no URL") from error
    return {
        "scheme": found.scheme, "host": host, "hostname": name, "path": urllib.parse.unquote(found.path),
        "query": found.query, "opaque": "", "fragment": urllib.parse.unquote(found.fragment),
        "userinfo": found.netloc.rpartition("@")[0],
    }  # fmt: skip


def url_join(parts: dict[str, Any]) -> str:
    get = {name: parts.get(name, "") for name in ("scheme", "host", "path", "query", "fragment", "userinfo")}
    if not all(type(value) is str for value in get.values()):
        raise Refused("urlJoin: its parts are texts")
    host = f"{get['userinfo']}@{get['host']}" if get["userinfo"] else get["host"]
    path = urllib.parse.quote(get["path"], safe="/:@!$&'()*+,;=~")
    if host and path and not path.startswith("/"):
        path = "/" + path
    made = f"{get['scheme']}:" if get["scheme"] else ""
    made += f"//{host}" if host else ""
    fragment = urllib.parse.quote(get["fragment"], safe="/:@!$&'()*+,;=?~")
    return made + path + (f"?{get['query']}" if get["query"] else "") + (f"#{fragment}" if fragment else "")


FUNCTIONS: dict[str, Known] = {
    "adler32sum": Known(lambda value: str(zlib.adler32(data(value))), "s"),
    "b32dec": Known(unbased32, "s"),
    "b32enc": Known(lambda value: base64.b32encode(data(value)).decode(), "s"),
    "b64dec": Known(unbased64, "s"),
    "b64enc": Known(lambda value: base64.b64encode(data(value)).decode(), "s"),
    "fromJson": Known(loosely, "s"),
    "html": Known(lambda *values: joined(values).translate(_HTML), "", "a"),
    "js": Known(javascript, "", "a"),
    "mustFromJson": Known(decoded, "s"),
    "mustToJson": Known(encoded, "a"),
    "mustToPrettyJson": Known(lambda value: encoded(value, indent="  "), "a"),
    "mustToRawJson": Known(lambda value: encoded(value, html=False), "a"),
    "sha1sum": hexadecimal("sha1"),
    "sha256sum": hexadecimal("sha256"),
    "sha512sum": hexadecimal("sha512"),
    "toJson": Known(tried, "a"),
    "toPrettyJson": Known(lambda value: tried(value, indent="  "), "a"),
    "toRawJson": Known(lambda value: encoded(value, html=False), "a"),
    "urlJoin": Known(url_join, "m"),
    "urlParse": Known(url_parse, "s"),
    "urlquery": Known(url_query, "", "a"),
    **PATHS,
    **{"os" + name[0].upper() + name[1:]: known for name, known in PATHS.items()},
}
