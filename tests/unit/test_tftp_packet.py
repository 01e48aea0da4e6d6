"""TFTP requests: read, granted, refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wwfast.net.tftp import packet
from wwfast.net.tftp.packet import Refused, Request, negotiate, parse_request, plain_name


def ask(**options: str) -> Request:
    return parse_request(packet.request("snponly.efi", options))


def test_tftp_request_of_ovmf() -> None:
    request = parse_request(b"\0\1snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0")
    assert (request.name, request.mode) == ("snponly.efi", "octet")
    assert list(request.options.items()) == [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")]


def test_tftp_options_are_granted_never_above_what_was_asked() -> None:
    terms = negotiate(ask(BLKSIZE="65464", tsize="0", windowsize="9999", timeout="3"), 7000, max_blksize=1468)
    assert (terms.blksize, terms.windowsize, terms.timeout) == (1468, 64, 3)
    assert terms.oack == {"blksize": "1468", "tsize": "7000", "windowsize": "64", "timeout": "3"}
    assert negotiate(ask(blksize="512"), 1).oack == {"blksize": "512"}


def test_tftp_nothing_is_granted_that_was_not_asked() -> None:
    assert negotiate(ask(), 7000).oack == {}


@pytest.mark.parametrize(
    "options",
    [
        {"blksize": "7"},
        {"blksize": "x"},
        {"windowsize": "0"},
        {"windowsize": "65536"},
        {"timeout": "0"},
        {"timeout": "256"},
        {"multicast": ""},
        {"tsize": "-1"},
        {"blksize": "９００"},
        {"blksize": "9" * 5000},
    ],
)
def test_tftp_bad_options_are_passed_over(options: dict[str, str]) -> None:
    assert negotiate(ask(**options), 7000).oack == {}


def test_tftp_netascii_has_its_line_ends_and_no_size() -> None:
    request = parse_request(packet.request("a", {"tsize": "0"}, mode="NETASCII"))
    assert negotiate(request, 10).oack == {}
    assert packet.netascii(b"a\nb\rc\r\n") == b"a\r\nb\r\0c\r\0\r\n"


@pytest.mark.parametrize(
    "name", ["../etc/shadow", "a/../../b", "..\\..\\boot.ini", "/", "", "a/..", "x\ny", "..", "//..//x"]
)
def test_tftp_traversal_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        plain_name(name)


@pytest.mark.parametrize("name", ["/snponly.efi", "snponly.efi", "//snponly.efi", "./snponly.efi"])
def test_tftp_absolute_and_relative_names_are_the_same(name: str) -> None:
    assert plain_name(name) == "snponly.efi"


@given(st.binary(max_size=200))
def test_tftp_any_bytes_are_a_request_or_refused(noise: bytes) -> None:
    for data in (noise, b"\0\1" + noise, b"\0\1" + noise + b"\0"):
        try:
            request = parse_request(data)
            negotiate(request, 100)
            assert ".." not in plain_name(request.name).split("/")
        except Refused:
            pass
