"""The journal of the leases: more of them than one statement takes, changed and forgotten ones too."""

from __future__ import annotations

from pathlib import Path

from wwfast.net.dhcp.leases import ROWS, Journal, LeaseTable


def test_dhcp_leases_of_a_storm_are_all_written_in_one_flush(tmp_path: Path) -> None:
    count = 2 * ROWS + 3
    journal = Journal(tmp_path / "db")
    table = LeaseTable(1, 2 * count, journal=journal)
    for number in range(count):
        assert table.bind(f"mac{number}", number + 1, 1.0, 60.0, "host")
    table.bind("mac0", 1, 5.0, 60.0, "renamed")
    table.forget("mac1")
    journal.flush()
    assert journal.errors == 0
    again = LeaseTable(1, 2 * count, journal=Journal(tmp_path / "db"))
    assert {lease.mac: (lease.address, lease.expires, lease.hostname) for lease in again.all()} == {
        **{f"mac{number}": (number + 1, 61.0, "host") for number in range(2, count)},
        "mac0": (1, 65.0, "renamed"),
    }
