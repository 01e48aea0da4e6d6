"""The server's key and certificate, in the place where Warewulf has them. Nothing serves them yet."""

from __future__ import annotations

from pathlib import Path

from wwfast.config.settings import Settings
from wwfast.errors import WwfastError
from wwfast.paths import Paths
from wwfast.system import files, work
from wwfast.system.folders import new_folder
from wwfast.system.run import run

DAYS = 3650
CERTIFICATE = b"-----BEGIN CERTIFICATE-----"  # RFC 7468; what stands before it is the key
NAMES = {"warewulf.key": 0o600, "warewulf.crt": 0o644}


def place(paths: Paths) -> Path:
    return paths.etc / "tls"


def there(folder: Path) -> bool:
    return all((folder / name).exists() for name in NAMES)


def make(paths: Paths, settings: Settings) -> None:
    """A new key and a certificate signed by itself, for the names and addresses of this server. Raises WwfastError."""
    names = [f"IP:{each}" for each in (settings.ipaddr, settings.ipaddr6) if each]
    names += [f"DNS:{each}" for each in (settings.fqdn, "warewulf") if each]
    made = run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:4096", "-nodes", "-days", str(DAYS)),
            *("-keyout", "-", "-out", "-"),  # not to files: it says nothing of a disk that is full
            *("-subj", "/O=Warewulf/CN=Warewulf Server", "-addext", f"subjectAltName={','.join(names)}"),
            *("-addext", "extendedKeyUsage=serverAuth"),
        ],
        package="openssl",
    ).stdout
    key, begin, certificate = made.partition(CERTIFICATE)
    with new_folder(place(paths), 0o700), work.directory(place(paths)) as room:
        for name, data in zip(NAMES, (key, begin + certificate), strict=True):
            (room / name).touch(0o600)
            (room / name).write_bytes(data)
        require_pair(room)
        settle(room, place(paths))


def take(paths: Paths, source: Path) -> None:
    """The pair of another directory, if it is one. Raises WwfastError."""
    for name in NAMES:
        if not (source / name).is_file():
            raise WwfastError(f"there is no {source / name}", hint="it must hold warewulf.key and warewulf.crt")
    require_pair(source)
    install(source, place(paths))


def require_pair(folder: Path) -> None:
    """Raises WwfastError where key and certificate do not belong together, or are not whole."""
    of_key = run(["openssl", "pkey", "-in", folder / "warewulf.key", "-pubout"], package="openssl").stdout
    of_certificate = run(["openssl", "x509", "-in", folder / "warewulf.crt", "-noout", "-pubkey"]).stdout
    if of_key != of_certificate:
        raise WwfastError(f"{folder}: warewulf.crt is not the certificate of warewulf.key")


def give(paths: Paths, target: Path) -> None:
    """A copy of the pair in another directory. Raises WwfastError."""
    if not there(place(paths)):
        raise WwfastError(f"there is no certificate in {place(paths)}", hint="wwfast configure tls")
    install(place(paths), target)


def install(source: Path, target: Path) -> None:
    with new_folder(target, 0o700), work.directory(target) as room:
        for name in NAMES:
            (room / name).write_bytes((source / name).read_bytes())
        settle(room, target)


def settle(room: Path, target: Path) -> None:
    """Both into their place: when they are on the disk, and two renames, which need no room, are all that is left."""
    for name, mode in NAMES.items():
        (room / name).chmod(mode)
    files.settle(room)
    for name in NAMES:
        (room / name).rename(target / name)
    files.sync(target)


def describe(paths: Paths) -> str:
    """What openssl says of the certificate: names, dates."""
    wanted = ["-noout", "-subject", "-dates", "-ext", "subjectAltName"]
    told = run(["openssl", "x509", "-in", place(paths) / "warewulf.crt", *wanted], package="openssl").stdout
    return told.decode(errors="replace").strip()
