"""sprig's functions of dates, and Go's layouts (`2006-01-02 15:04:05`): nanoseconds and a zone."""

from __future__ import annotations

import datetime
import re
import time
import zoneinfo
from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.values import Int64, Object

UTC = datetime.UTC
SECOND = 1_000_000_000
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ZERO = -62135596800  # seconds of year 1

# Elements of a layout, the longest that fits; of a fraction the point or comma comes with it.
_LAYOUT = re.compile(
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|01|02|03|04|05|06|002|2006|__2|_2006|_2|15|PM|pm"
    r"|-07:00:00|-070000|-07:00|-0700|-07|Z07:00:00|Z070000|Z07:00|Z0700|Z07|[.,]0+(?!\d)|[.,]9+(?!\d)|1|2|3|4|5"
)


def zone(name: str) -> datetime.tzinfo:
    """A time zone by its name; UTC for one that nobody knows, as sprig does."""
    if name == "Local":
        return _local()
    try:
        return zoneinfo.ZoneInfo(name) if name not in ("", "UTC") else UTC
    except (OSError, ValueError, KeyError):
        return UTC


def _local() -> datetime.tzinfo:
    try:
        with open("/etc/localtime", "rb") as file:  # noqa: PTH123 - a plain path
            return zoneinfo.ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC


class Time(Object):
    """time.Time."""

    __slots__ = ("ns", "zone")
    GO = "time.Time"

    def __init__(self, ns: int, zone: datetime.tzinfo = UTC) -> None:
        self.ns, self.zone = ns, zone

    def __eq__(self, other: object) -> bool:
        return type(other) is Time and other.ns == self.ns and other.zone == self.zone

    __hash__ = None  # type: ignore[assignment]

    def parts(self) -> datetime.datetime:
        epoch = datetime.datetime(1970, 1, 1, tzinfo=UTC)
        try:
            return (epoch + datetime.timedelta(seconds=self.ns // SECOND)).astimezone(self.zone)
        except OverflowError as error:
            raise Refused("a date out of the years 1 to 9999") from error

    def printed(self) -> str:
        return self.format("2006-01-02 15:04:05.999999999 -0700 MST")

    def format(self, layout: str) -> str:
        at, nano = self.parts(), self.ns % SECOND
        return _LAYOUT.sub(lambda match: _element(match[0], at, nano, match), layout)

    def member(self, name: str) -> Any:
        at = self.parts()
        match name:
            case "Unix":
                return Int64(self.ns // SECOND)
            case "UnixNano" | "UnixMilli":
                return Int64(self.ns if name == "UnixNano" else self.ns // 1_000_000)
            case "Year" | "Day" | "Hour" | "Minute" | "Second":
                return int(getattr(at, name.lower()))
            case "Nanosecond":
                return self.ns % SECOND
            case "YearDay":
                return at.timetuple().tm_yday
            case "Month":
                return MONTHS[at.month - 1]
            case "Weekday":
                return DAYS[at.weekday()]
            case "UTC":
                return Time(self.ns)
            case "Local":
                return Time(self.ns, _local())
            case "String":
                return self.printed()
            case "IsZero":
                return self.ns == ZERO * SECOND
            case "Format":
                raise Refused("wrong number of args for {}: want 1 got 0", name)
        return super().member(name)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "Format" and len(arguments) == 1 and type(arguments[0]) is str:
            return self.format(arguments[0])
        return super().call(name, arguments)


def _element(word: str, at: datetime.datetime, nano: int, match: re.Match[str]) -> str:
    if word[0] in ".,":
        digits = f"{nano:09d}"[: len(word) - 1]
        if word[1] == "9":
            digits = digits.rstrip("0")
            return word[0] + digits if digits else ""
        return word[0] + digits
    if word[0] in "-Z" and len(word) > 1:
        return _offset(word, at)
    match word:
        case "January":
            return MONTHS[at.month - 1]
        case "Jan":
            return MONTHS[at.month - 1][:3]
        case "Monday":
            return DAYS[at.weekday()]
        case "Mon":
            return DAYS[at.weekday()][:3]
        case "MST":
            return at.tzname() or ""
        case "PM" | "pm":
            half = "PM" if at.hour >= 12 else "AM"
            return half if word == "PM" else half.lower()
        case "_2006":
            return f"_{at.year:04d}"
    numbers = {
        "01": f"{at.month:02d}", "1": str(at.month), "02": f"{at.day:02d}", "2": str(at.day), "_2": f"{at.day:2d}",
        "03": f"{at.hour % 12 or 12:02d}", "3": str(at.hour % 12 or 12), "15": f"{at.hour:02d}",
        "04": f"{at.minute:02d}", "4": str(at.minute), "05": f"{at.second:02d}", "5": str(at.second),
        "06": f"{at.year % 100:02d}", "2006": f"{at.year:04d}", "002": f"{at.timetuple().tm_yday:03d}",
        "__2": f"{at.timetuple().tm_yday:3d}",
    }  # fmt: skip
    return numbers[word]


def _offset(word: str, at: datetime.datetime) -> str:
    offset = at.utcoffset()
    seconds = int(offset.total_seconds()) if offset is not None else 0
    if word[0] == "Z" and not seconds:
        return "Z"
    sign, seconds = ("-" if seconds < 0 else "+"), abs(seconds)
    parts = [f"{seconds // 3600:02d}", f"{seconds // 60 % 60:02d}", f"{seconds % 60:02d}"]
    bare = word[1:].replace(":", "")
    return sign + (":" if ":" in word else "").join(parts[: len(bare) // 2])


_PARSED = {
    "01": r"(?P<month>\d\d)", "1": r"(?P<month>\d\d?)", "02": r"(?P<day>\d\d)", "2": r"(?P<day>\d\d?)",
    "_2": r" ?(?P<day>\d\d?)", "03": r"(?P<half>\d\d)", "3": r"(?P<half>\d\d?)", "15": r"(?P<hour>\d\d?)",
    "04": r"(?P<minute>\d\d)", "4": r"(?P<minute>\d\d?)", "05": r"(?P<second>\d\d)", "5": r"(?P<second>\d\d?)",
    "06": r"(?P<short>\d\d)", "2006": r"(?P<year>\d{4})", "PM": r"(?P<pm>[AP]M)", "pm": r"(?P<pm>[ap]m)",
    "MST": r"(?P<name>[A-Z]{3,4}|[+-]\d\d)",
    "January": rf"(?P<month_name>{'|'.join(MONTHS)})", "Jan": rf"(?P<month_name>{'|'.join(m[:3] for m in MONTHS)})",
    "Monday": f"(?:{'|'.join(DAYS)})", "Mon": f"(?:{'|'.join(d[:3] for d in DAYS)})",
}  # fmt: skip


def parse(layout: str, value: str) -> Time:
    """Raises ValueError for what is not written as the layout says."""
    pattern, at = "", 0
    for match in _LAYOUT.finditer(layout):
        pattern += re.escape(layout[at : match.start()])
        word, at = match[0], match.end()
        if word[0] in ".,":
            pattern += rf"(?P<fraction>[.,]\d{{{len(word) - 1}}})" if word[1] == "0" else r"(?P<fraction>[.,]\d+)?"
        elif word[0] in "-Z" and len(word) > 1:
            colon = ":" if ":" in word else ""
            digits = len(word[1:].replace(":", "")) // 2
            inner = r"(?P<sign>[+-])(?P<hours>\d\d)" + (rf"{colon}(?P<minutes>\d\d)" if digits > 1 else "")
            pattern += f"(?:Z|{inner})" if word[0] == "Z" else inner
        elif word in _PARSED:
            pattern += _PARSED[word]
            if word in ("05", "5") and layout[at : at + 2] not in (".0", ".9", ",0", ",9"):
                pattern += r"(?P<fraction>[.,]\d+)?"
        else:
            raise ValueError("this element of a layout is not supported")
    whole = re.fullmatch(pattern + re.escape(layout[at:]), value, re.IGNORECASE)
    if whole is None:
        raise ValueError("not written as the layout says")
    return _made({name: found for name, found in whole.groupdict().items() if found is not None}, value)


def _made(found: dict[str, str], value: str) -> Time:
    year = int(found.get("year", 0))
    if "short" in found:
        year = int(found["short"]) + (1900 if int(found["short"]) >= 69 else 2000)
    month = int(found.get("month", 1))
    if "month_name" in found:
        month = next(n for n, name in enumerate(MONTHS, 1) if name[:3].lower() == found["month_name"][:3].lower())
    hour = int(found.get("hour", found.get("half", 0)))
    if "pm" in found:
        hour = hour % 12 + (12 if found["pm"].upper() == "PM" else 0)
    where: datetime.tzinfo = _local()
    if "sign" in found:
        minutes = int(found["hours"]) * 60 + int(found.get("minutes", 0))
        where = datetime.timezone(datetime.timedelta(minutes=minutes if found["sign"] == "+" else -minutes))
    elif value.endswith("Z") or found.get("name") == "UTC":
        where = UTC
    zero = not year
    stamp = datetime.datetime(
        year or 1, month, int(found.get("day", 1)), hour, int(found.get("minute", 0)), int(found.get("second", 0)),
        tzinfo=where,
    )  # fmt: skip
    seconds = int((stamp - datetime.datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) - (366 * 86400 if zero else 0)
    nano = int(found["fraction"][1:].ljust(9, "0")[:9]) if "fraction" in found else 0
    return Time(seconds * SECOND + nano, where)


def now() -> Time:
    return Time(time.time_ns(), _local())


def moment(value: Any) -> Time:
    if isinstance(value, Time):
        return value
    if isinstance(value, int) and type(value) is not bool:
        return Time(int(value) * SECOND, _local())
    return now()


def in_zone(layout: str, value: Any, name: str) -> str:
    return Time(moment(value).ns, zone(name)).format(layout)


def to_date(layout: str, value: str) -> Time:
    try:
        return parse(layout, value)
    except ValueError:
        return Time(ZERO * SECOND)


def must_to_date(layout: str, value: str) -> Time:
    try:
        return parse(layout, value)
    except ValueError as error:
        raise Refused("toDate: the text is not written as the layout says") from error


# -- durations ---------------------------------------------------------------------------------------------------------

_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def nanoseconds(value: str) -> int | None:
    """time.ParseDuration; None for what is none."""
    sign, bare = (-1 if value[:1] == "-" else 1), value[1:] if value[:1] in ("+", "-") else value
    if bare == "0":
        return 0
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", bare):
        return None
    made = 0
    for number, unit in _DURATION.findall(bare):
        before, _, after = number.partition(".")
        made += int(before or 0) * _UNITS[unit] + (int(after) * _UNITS[unit] // 10 ** len(after) if after else 0)
    return sign * made


def spelled(value: int) -> str:
    """A duration as Go prints it: 1h2m3.5s."""
    sign, value = ("-" if value < 0 else ""), abs(value)
    if not value:
        return "0s"
    if value < SECOND:
        unit, size = next(pair for pair in (("ms", 10**6), ("µs", 1000), ("ns", 1)) if value >= pair[1])
        return f"{sign}{_decimal(value, size)}{unit}"
    hours, rest = divmod(value, 3600 * SECOND)
    minutes, rest = divmod(rest, 60 * SECOND)
    made = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{made}{_decimal(rest, SECOND)}s"


def _decimal(value: int, size: int) -> str:
    fraction = str(value % size).rjust(len(str(size)) - 1, "0").rstrip("0") if size > 1 else ""
    return f"{value // size}" + (f".{fraction}" if fraction else "")


def duration(value: Any) -> str:
    seconds = 0
    if (type(value) is str and re.fullmatch(r"[+-]?\d+", value)) or type(value) is Int64:
        seconds = int(value)
    return spelled(seconds * SECOND)


def duration_round(value: Any) -> str:
    length = 0
    if type(value) is str:
        length = nanoseconds(value) or 0
    elif type(value) is Int64:
        length = int(value)
    elif isinstance(value, Time):
        length = time.time_ns() - value.ns
    length = abs(length)
    hour = 3600 * SECOND
    for unit, size in (
        ("y", 24 * 365 * hour), ("mo", 24 * 30 * hour), ("d", 24 * hour), ("h", hour), ("m", 60 * SECOND), ("s", SECOND)
    ):  # fmt: skip
        if length > size:
            return f"{length // size}{unit}"
    return "0s"


def stamp(value: Any) -> Time:
    if isinstance(value, Time):
        return value
    raise Refused("wrong type for value; expected time.Time")


def modified(by: str, value: Any) -> Time:
    at, shift = stamp(value), nanoseconds(by)
    return at if shift is None else Time(at.ns + shift, at.zone)


def must_modified(by: str, value: Any) -> Time:
    if nanoseconds(by) is None:
        raise Refused("{} is no duration", by)
    return modified(by, value)


def ago(value: Any) -> str:
    return spelled(round((time.time_ns() - moment(value).ns) / SECOND) * SECOND)


FUNCTIONS: dict[str, Known] = {
    "ago": Known(ago, "a"),
    "date": Known(lambda layout, value: in_zone(layout, value, "Local"), "sa"),
    "dateInZone": Known(in_zone, "sas"),
    "dateModify": Known(modified, "sa"),
    "duration": Known(duration, "a"),
    "durationRound": Known(duration_round, "a"),
    "htmlDate": Known(lambda value: in_zone("2006-01-02", value, "Local"), "a"),
    "htmlDateInZone": Known(lambda value, name: in_zone("2006-01-02", value, name), "as"),
    "mustDateModify": Known(must_modified, "sa"),
    "mustToDate": Known(must_to_date, "ss"),
    "now": Known(now),
    "toDate": Known(to_date, "ss"),
    "unixEpoch": Known(lambda value: str(stamp(value).ns // SECOND), "a"),
}
FUNCTIONS |= {
    "date_in_zone": FUNCTIONS["dateInZone"],
    "date_modify": FUNCTIONS["dateModify"],
    "must_date_modify": FUNCTIONS["mustDateModify"],
}
