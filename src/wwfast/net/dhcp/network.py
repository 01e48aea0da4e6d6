"""The network that DHCP serves, as warewulf.conf describes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wwfast.config import checks
from wwfast.errors import ConfigError
from wwfast.net.dhcp.packet import dotted, number

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.paths import Paths


def own_addresses(settings: Settings) -> Iterator[str]:
    """What no client may have: this server's address, and those that mean the network and all of it."""
    yield settings.ipaddr
    bits = checks.MASKS.get(settings.netmask)
    if bits is not None and bits < 31:
        network = number(settings.ipaddr) & number(settings.netmask)
        yield dotted(network)
        yield dotted(network | (1 << 32 - bits) - 1)


def require_written(settings: Settings, paths: Paths) -> None:
    """DHCP on a network the admin did not write down could answer on the wrong one."""
    missing = [key for key in ("ipaddr", "network") if not settings.is_written(key)]
    if missing:
        raise ConfigError(
            f"{paths.conf}: DHCP needs {' and '.join(missing)} to be written down; nothing is guessed",
            hint="add them, or set `dhcp: enabled: false`",
        )


def require_range(settings: Settings, paths: Paths) -> None:
    """A range of which nothing is served would be found out when the first unknown machine asks."""
    first, last = settings.dhcp.range_start, settings.dhcp.range_end
    if not first and not last:
        return
    if not first or not last or number(first) > number(last):
        shown = f"from {first or 'nothing'} to {last or 'nothing'}"
        raise ConfigError(f"{paths.conf}: the range of DHCP is {shown}", hint="set `range start` and `range end`")
