"""The range against plain models: which address is free, who keeps one, who gives way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wwfast.net.dhcp.leases import DECLINED_SHARE, DECLINES, LeaseTable
from wwfast.net.dhcp.pool import BITS, Pool

FIRST = 0x0A000001
SIZES = st.sampled_from([1, 7, BITS - 1, BITS, BITS + 1, 3 * BITS + 5])


@given(st.data(), SIZES)
def test_dhcp_pool_finds_what_a_walk_would(data: st.DataObject, size: int) -> None:
    pool, held, reserved = Pool(size), set(), set()
    numbers = st.integers(0, size - 1)
    for what in data.draw(st.lists(st.sampled_from(["hold", "run", "let go", "reserve", "reserve all"]), max_size=12)):
        at = data.draw(numbers)
        if what == "run":
            for number in range(at, size):
                pool.hold(number)
                held.add(number)
        elif what == "hold":
            pool.hold(at)
            held.add(at)
        elif what == "let go":
            pool.let_go(at)
            held.discard(at)
        else:
            reserved = set(range(size)) if what.endswith("all") else set(data.draw(st.sets(numbers, max_size=5)))
            pool.reserve(pool.mask([*reserved, -1, size]))
        start = data.draw(numbers)
        taken = held | reserved
        walk = (number for number in (*range(start, size), *range(start)) if number not in taken)
        assert pool.first(start) == next(walk, None)
        assert pool.is_reserved(at) == (at in reserved)


STEP = st.tuples(
    st.sampled_from(["discover", "discover", "boot", "boot", "request", "release", "decline", "reserve", "wait"]),
    st.integers(0, 11),
    st.integers(0, 7),
)


@given(st.lists(STEP, max_size=60), st.integers(1, 8))
def test_dhcp_range_keeps_what_was_acknowledged_and_gives_the_rest_to_whoever_asks(
    steps: list[tuple[str, int, int]], size: int
) -> None:
    table = LeaseTable(FIRST, FIRST + size - 1)
    now, reserved = 0.0, set()
    granted: dict[str, tuple[int, float]] = {}  # what a client may count on
    for what, who, number in steps:
        mac, wanted = f"mac{who}", FIRST + number
        held = {address for address, expires in granted.values() if expires > now} | reserved
        if what in ("discover", "boot"):
            offered = table.offer(mac, wanted if what == "boot" else 0, now)
            own = granted.get(mac, (0, 0.0))
            if own[1] > now and own[0] not in reserved:
                assert offered == own[0]
            if offered is None:
                assert held.issuperset(range(FIRST, FIRST + size))
            else:
                assert offered not in reserved
                assert offered not in held or own[0] == offered
                if what == "boot":
                    assert table.bind(mac, offered, now, 100.0)
                    granted[mac] = offered, now + 100.0
        elif what == "request":
            if table.bind(mac, wanted, now, 100.0):
                assert wanted not in reserved
                assert wanted not in held or granted[mac][0] == wanted
                granted[mac] = wanted, now + 100.0
        elif what == "release":
            table.release(mac, now)
            granted.pop(mac, None)
        elif what == "decline":
            lease = table.get(mac)
            if lease is not None:
                table.decline(mac, lease.address, now)
                granted.pop(mac, None)
        elif what == "reserve":
            reserved = {wanted} if number % 2 else set()
            table.reserve(table.mask(reserved))
        else:
            now += 40.0
        bound = {lease.mac: lease.address for lease in table.all() if lease.expires > now}
        assert len(set(bound.values())) == len(bound)
        for client, (address, expires) in granted.items():
            lease = table.get(client)
            if expires > now and address not in reserved and not (lease and lease.address != address):
                assert bound.get(client) == address
    assert len(table) <= size


@given(st.integers(1, 200), st.integers(1, 30))
def test_dhcp_declines_of_one_client_and_of_all_are_bounded(size: int, clients: int) -> None:
    table = LeaseTable(FIRST, FIRST + size - 1)
    for turn in range(3 * DECLINES):
        for who in range(clients):
            address = table.offer(f"mac{who}", 0, float(turn))
            assert address is not None, "declined addresses give way"
            table.decline(f"mac{who}", address, float(turn))
    free = {address for who in range(size) if (address := table.offer(f"other{who}", 0, 100.0)) is not None}
    assert len(free) >= size - min(DECLINES * clients, max(size // DECLINED_SHARE, 1))
