"""The simulated node behaves as iPXE does; what it does not forgive is reported."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from support.commands import runner
from wwfast.paths import Paths
from wwfast.storm.chart import grid
from wwfast.storm.driver import ENOUGH, Client, Driver
from wwfast.storm.node import ATTEMPTS, CLIENT, IPXE, OVER, PROFILES, READ, STAGE1, Kind, SimNode, Step
from wwfast.storm.plan import Plan, hwaddr
from wwfast.storm.play import Together
from wwfast.storm.report import Report, quantile
from wwfast.storm.script import Script

HEAD = "HTTP/1.1 {} X\r\nContent-Type: a/b\r\nContent-Length: {}\r\n{}\r\n"


def answer(status: int = 200, body: bytes = b"", more: str = "") -> bytes:
    return HEAD.format(status, len(body), more).encode() + body


def node(*steps: Step, **more: object) -> SimNode:
    return SimNode("n1", "10.0.0.1:9873", steps or (Step("image", "/image/x"),), PROFILES["bios"], **more)  # type: ignore[arg-type]


def test_storm_node_asks_one_after_the_other_on_one_connection() -> None:
    one = node(Step("kernel", "/kernel/x"), Step("image", "/image/x"))
    assert one.start().kind is Kind.CONNECT
    asked = one.on_connected()
    assert asked.data.startswith(b"GET /kernel/x HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: iPXE/")
    stream = answer(body=b"kernel")
    for byte in stream[:-1]:
        assert one.on_data(bytes([byte]), 1.0) == READ
    assert one.on_data(stream[-1:], 2.0).data.startswith(b"GET /image/x ")
    assert one.on_data(answer(body=b"x" * 10)[:-4], 3.0) == READ
    assert one.body_left == 4
    assert one.on_body(4, 4.0) == OVER
    assert one.record.done == {"kernel": 2.0, "image": 4.0}
    assert one.record.size == {"kernel": 6, "image": 10}


def test_storm_node_obeys_retry_after_on_the_same_connection() -> None:
    one = node()
    one.start()
    one.on_connected()
    rest = one.on_data(answer(503, more="Retry-After: 7\r\n"), 0.0)
    assert (rest.kind, rest.seconds) == (Kind.SLEEP, 7.0)
    assert one.on_rested().kind is Kind.SEND
    assert one.record.told_to_wait == 1
    assert one.on_data(answer(body=b"done"), 9.0) == OVER
    assert not one.record.failure


def test_storm_node_of_two_stages_starts_a_kernel_and_fetches_pieces_each_by_a_connection() -> None:
    pieces = [Step(f"image {at}", "/image/x", STAGE1, span=f"{at}-{at + 9}") for at in (0, 10)]
    one = node(Step("kernel", "/kernel/x"), pieces[0]._replace(pause=4.0), pieces[1], Step("runtime", "/", CLIENT))
    one.start()
    one.on_connected()
    rest = one.on_data(answer(body=b"kernel"), 1.0)
    assert (rest.kind, rest.seconds) == (Kind.SLEEP, 4.0)
    assert one.on_lost("closed", 2.0) == READ
    assert one.on_rested().kind is Kind.CONNECT
    assert b"User-Agent: curl/7.88.1\r\nRange: bytes=0-9\r\n" in one.on_connected().data
    again = one.on_data(answer(206, body=b"x" * 10), 6.0)
    assert (again.kind, again.low) == (Kind.CONNECT, False)
    assert b"Range: bytes=10-19\r\n" in one.on_connected().data
    runtime = one.on_data(answer(206, body=b"x" * 10), 7.0)
    assert (runtime.kind, runtime.low) == (Kind.CONNECT, True)
    assert one.record.restarts == 0


def test_storm_node_is_lost_by_a_whole_answer_to_a_question_for_a_piece() -> None:
    one = node(Step("image", "/image/x", STAGE1, span="0-9"))
    one.start()
    one.on_connected()
    assert one.on_data(answer(200, body=b"x" * 20), 1.0) == OVER
    assert one.record.failure == "image: status 200"


def test_storm_node_starts_the_object_anew_when_its_connection_breaks() -> None:
    one = node()
    one.start()
    one.on_connected()
    one.on_data(answer(body=b"x" * 100)[:-50], 0.0)
    rest = one.on_lost("reset", 1.0)
    assert (rest.kind, rest.seconds) == (Kind.SLEEP, 1.0)
    assert one.on_rested().kind is Kind.CONNECT
    assert one.on_connected().data.startswith(b"GET /image/x ")
    assert one.on_data(answer(body=b"x" * 100), 2.0) == OVER
    assert (one.record.restarts, one.record.short) == (1, 1)


def test_storm_node_gives_up_in_the_end() -> None:
    one = node()
    one.start()
    for _ in range(ATTEMPTS - 1):
        assert one.on_lost("refused", 0.0).kind is Kind.SLEEP
    assert one.on_lost("refused", 5.0) == OVER
    assert "refused" in one.record.failure


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (answer(404), "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n", "without status, length or type"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "without status, length or type"),
        (answer(body=b"four")[:-4] + b"five!", "more bytes than announced"),
        (answer(body=b"wrong"), "wrong digest"),
    ],
)
def test_storm_node_reports_what_is_wrong(data: bytes, why: str) -> None:
    one = node(digests=True, expect={"image": hashlib.sha256(b"right").hexdigest()})
    one.start()
    one.on_connected()
    assert one.on_data(data, 1.0) == OVER
    assert why in one.record.failure


def test_storm_node_opens_another_connection_for_the_client_and_after_a_close() -> None:
    one = node(Step("kernel", "/k"), Step("system", "/s"), Step("runtime", "/r", CLIENT))
    one.start()
    one.on_connected()
    assert one.on_data(answer(body=b"k", more="Connection: close\r\n"), 1.0).kind is Kind.CONNECT
    one.on_connected()
    last = one.on_data(answer(body=b"s"), 1.0)
    assert (last.kind, last.low) == (Kind.CONNECT, True)
    assert b"wwclient" in one.on_connected().data
    assert one.on_data(answer(body=b"r"), 1.0) == OVER


def test_storm_node_follows_its_script() -> None:
    text = (
        "#!ipxe\nset base http://10.0.0.1:9873\nset hwaddr 02:77:77:00:00:01\n"
        "kernel --name kernel ${base}/kernel/${hwaddr}?assetkey=${asset}&uuid=${uuid} initrd=image || goto failed\n"
        "initrd --name image ${base}/image/${hwaddr}?compress=zst || goto failed\n"
        "initrd --name extra ${base}/provision/${hwaddr}?stage=kmods || echo none\n:failed\nsleep 2\n"
    )
    script = Step("ipxe", "/ipxe/x", leads=True)
    steps = Script("02:77:77:00:00:01").follow(script, text)
    assert [(one.stage, one.agent, one.optional) for one in steps] == [
        ("kernel", IPXE, False),
        ("image", IPXE, False),
        ("kmods", IPXE, True),
        ("runtime", CLIENT, False),
    ]
    assert steps[0].target == "/kernel/02:77:77:00:00:01?assetkey=&uuid="
    assert Script("02:77:77:00:00:01").follow(script, "#!ipxe\necho not known\n") == []
    one = node(script, follow=Script("02:77:77:00:00:01").follow)
    one.start()
    one.on_connected()
    assert one.on_data(answer(body=text.encode()), 1.0).data.startswith(b"GET /kernel/02:77:77:00:00:01?")


FROM_CACHE = "kernel --name kernel --timeout 20000 http://10.1.0.1:9880/blob/sha256-a"
TOLD = "wwfast.image=deb@1 wwfast.root=disk wwfast.runtime=1 wwfast.blob=sha256-b"
CACHED = f"""#!ipxe
set base http://10.0.0.1:9873
set hwaddr 02:77:77:00:00:01
{FROM_CACHE} || kernel --name kernel ${{base}}/kernel/${{hwaddr}} || goto failed
imgargs kernel wwid=x quiet {TOLD} wwfast.caches=http://10.1.0.1:9880,http://10.2.0.1:9880 || goto failed
"""


def test_storm_node_fetches_from_caches_as_stage1_does() -> None:
    mac, mib = "02:77:77:00:00:01", 1 << 20
    script = Script(mac)
    kernel, pieces, told, system, early, late = script.follow(Step("ipxe", "/", leads=True), CACHED)
    assert (kernel.target, kernel.instead) == ("http://10.1.0.1:9880/blob/sha256-a", (f"/kernel/{mac}",))
    assert (pieces.target, pieces.leads) == (
        f"/image/{mac}?image=deb@1&compress=tmpfs.pieces&from=http://10.1.0.1:9880", True,
    )  # fmt: skip
    assert told.target.startswith(f"/stage1/{mac}?said=")
    assert [step.target for step in (system, early)] == [
        f"/{name}/{mac}?image=deb@1&compress=gz" for name in ("system", "runtime")
    ]
    assert late.agent == CLIENT
    runs = script.follow(pieces, f"{3 * mib} a\n{mib} b +\n{mib} c\n{9 * mib} d\n100 e\n")
    assert [step.span for step in runs] == [
        f"0-{4 * mib - 1}", f"{4 * mib}-{5 * mib - 1}", f"{5 * mib}-{14 * mib - 1}", f"{14 * mib}-{14 * mib + 99}",
    ]  # fmt: skip
    assert {step.target for step in runs} == {"http://10.1.0.1:9880/blob/sha256-b"}
    assert runs[0].instead == ("http://10.2.0.1:9880/blob/sha256-b", f"/image/{mac}?image=deb@1&compress=tmpfs")


def test_storm_node_goes_from_a_cache_that_fails_to_the_next_and_to_the_server() -> None:
    one = node(Step("kernel", "http://10.1.0.1:80/blob/k", instead=("http://10.2.0.1:80/blob/k", "/kernel/x")))
    assert one.start().host == "10.1.0.1:80"
    assert one.on_connected().data.startswith(b"GET /blob/k HTTP/1.1\r\n")
    assert one.patience == 20
    assert one.on_data(answer(404, b"gone")[:-4], 1.0).host == "10.2.0.1:80"
    assert one.on_lost("refused", 2.0).host == "10.0.0.1:9873"
    assert (one.on_connected().data[:14], one.patience) == (b"GET /kernel/x ", 150)
    assert one.on_data(answer(body=b"kernel"), 3.0) == OVER
    assert (one.record.elsewhere, one.record.restarts, one.record.cached) == (2, 1, [])


def test_storm_node_tells_what_came_from_which_cache() -> None:
    one = node(
        Step("image", "http://10.1.0.1:80/blob/k"),
        Step("image", "http://10.1.0.1:80/blob/k"),
        Step("told", "/stage1/x?well=1&carried="),
    )
    one.start()
    for now in (1.0, 2.0):
        one.on_connected()
        one.on_data(answer(body=b"piece"), now)
    assert one.on_connected().data.startswith(b"GET /stage1/x?well=1&carried=http://10.1.0.1:80*10 HTTP/1.1\r\n")


def test_storm_plan_makes_every_node_its_own_and_checks_some() -> None:
    plan = Plan("10.0.0.1", 80, 300, [Step("image", "/image/{mac}")])
    nodes, sources = plan.nodes(lambda mac: Script(mac).follow)
    assert len(set(sources)) == 300
    assert len({one.step.target for one in nodes}) == 300
    assert sum(one.sees_bodies for one in nodes) >= 15, "5 % compute digests"
    assert hwaddr(65537) == "02:77:77:01:00:01"


def test_storm_report_sums_up() -> None:
    records = [
        {
            "name": f"n{index}",
            "done": {"ipxe": 0.1, "image": float(index)},
            "etag": {"system": f"{index // 2}"},
            "failure": "image: cut" if index == 9 else "",
            "told_to_wait": 1,
            "restarts": 2,
            "elsewhere": index % 2,
            "size": {"image": 100 + index, "ipxe": 7},
            "cached": ["image"],
            "moved": 1,
            "finished": float(index),
        }
        for index in range(10)
    ]
    report = Report(records, 5_000_000)
    assert report.stages == ["ipxe", "image"]
    assert report.rows()[1] == ("image", "10", "4.0", "8.0", "9.0", "9.0")
    assert report.failures == ["n9: image: cut"]
    assert report.twins() == 5
    assert (report.told_to_wait, report.restarts, report.seconds) == (10, 20, 9.0)
    assert (report.elsewhere, report.cached) == (5, 109)
    assert report.as_json()["stages"]["image"]["t50"] == 4.0
    assert quantile([], 0.5) == 0.0


@pytest.mark.parametrize("longest", [0.3, 1.0, 7.0, 61.0, 500.0])
def test_storm_chart_has_a_readable_grid(longest: float) -> None:
    assert 4 <= longest / grid(longest) <= 12


WORDS = {
    "--jitter inf": "'inf' is not a valid float",
    "--jitter nan": "'nan' is not a valid float",
    "--jitter -1": "-1.0 is not in the range",
    "--rate nan": "'nan' is not a valid float",
    "--racks 2 --head-rate nan": "'nan' is not a valid float",
    "--rate inf": "'inf' is not a valid float",
    "--image-size 999999999": "999999999 is not in the range",
    "--image-size 0": "0 is not in the range",
    "--server 127.0.0.1:99999 --i-own-it": "'99999' is not a port",
    "--server 127.0.0.1:0 --i-own-it": "'0' is not a port",
    "--server 127.0.0.1:x --i-own-it": "'x' is not a port",
}


@pytest.mark.parametrize("words", WORDS)
def test_storm_that_could_not_end_is_not_begun(paths: Paths, capsys: pytest.CaptureFixture[str], words: str) -> None:
    status, _, err = runner(paths, capsys)("storm", "--nodes", "1", *words.split())
    assert (status, WORDS[words] in err) == (2, True), err


def test_storm_ends_when_a_step_of_it_fails() -> None:
    """Whatever it is: a node whose step fails would never be done."""
    plan = Plan("127.0.0.1", 99_999, 3, [Step("ipxe", "/ipxe/{mac}")], own_addresses=False)
    with pytest.raises(OverflowError):
        asyncio.run(asyncio.wait_for(Driver(*plan.nodes(lambda mac: Script(mac).follow)).run(), 10))


A, B = "10.0.0.1:9873", "10.0.0.2:9873"
TWO_HEADS = """#!ipxe
chain --replace --autofree --timeout 5000 http://10.0.0.2:9873/ipxe/{mac}?memsize=${{memsize}}&moved=1 ||
set base http://10.0.0.1:9873
:start
kernel --name kernel --timeout 20000 ${{base}}/kernel/{mac} || goto failed
:failed
chain --replace --autofree --timeout 10000 http://10.0.0.1:9873/ipxe/{mac}?memsize=&moved=1 ||
:others
chain --replace --autofree --timeout 10000 http://10.0.0.2:9873/ipxe/{mac}?memsize=&moved=1 ||
iseq ${{delay}} 32 && chain --replace --autofree http://10.0.0.1:9873/ipxe/{mac} ||
goto start
"""


def test_storm_script_with_two_heads_is_played_as_ipxe_does_to_follow_it() -> None:
    mac = hwaddr(1)
    begin, kernel, runtime = Script(mac).follow(Step("ipxe", "/", leads=True), TWO_HEADS.format(mac=mac))
    assert (begin.target, begin.begins, begin.optional) == (f"http://{B}/ipxe/{mac}?memsize=&moved=1", True, True)
    assert [url.split("/")[2] for url in kernel.others] == [A, B]
    assert (kernel.target, runtime.others) == (f"/kernel/{mac}", [A, B])


def test_storm_node_moves_to_the_head_that_its_script_names_and_to_another_to_follow_one_that_fails() -> None:
    mac = hwaddr(1)
    text = TWO_HEADS.format(mac=mac)
    one = node(Step("ipxe", f"/ipxe/{mac}", leads=True), follow=Script(mac).follow)
    assert one.start().host == A
    one.on_connected()
    assert one.on_data(answer(body=text.encode()), 0.0).host == B, "its own first one"
    assert one.patience == 10.0
    assert one.on_lost("silent", 5.0).host == A, "it is not there"
    assert b"GET /kernel/" in one.on_connected().data
    assert one.patience == 20.0
    assert one.on_lost("silent", 25.0).kind is Kind.SLEEP
    assert one.on_rested().host == A, "it may only have waited its turn"
    moved = one.on_lost("silent", 35.0)
    assert (moved.kind, moved.host) == (Kind.CONNECT, B)
    one.on_connected()
    text = text.partition("\n")[2].partition("\n")[2].replace("set base http://10.0.0.1", "set base http://10.0.0.2")
    assert one.on_data(answer(body=text.encode()), 36.0).kind is Kind.SEND
    assert one.on_data(answer(body=b"kernel"), 37.0).host == B
    one.on_connected()
    assert one.on_lost("cut", 40.0).host == A, "wwclient asks the other one at once"
    one.on_connected()
    assert one.on_data(answer(body=b"overlay"), 41.0) == OVER
    assert (one.record.failure, one.record.moved) == ("", 2)


def test_storm_client_is_woken_for_as_much_as_is_worth_it_and_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes in drops: each of them woke its client, and 5,000 such clients were busier than their links."""
    woken: list[int] = []
    before = Client.readable

    def readable(client: Client) -> None:
        woken.append(client.node.body_left)
        before(client)

    monkeypatch.setattr(Client, "readable", readable)
    body, over = bytes(3 * ENOUGH + 100), asyncio.Event()

    async def drop_by_drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(body=body)[: -len(body)])
        for at in range(0, len(body), 1024):
            writer.write(body[at : at + 1024])
            await asyncio.sleep(0.0005)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    async def play() -> SimNode:
        server = await asyncio.start_server(drop_by_drop, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            one = SimNode("n1", f"127.0.0.1:{port}", [Step("image", "/image/x")], PROFILES["bios"])
            await Driver([one], []).run()
            await over.wait()
            return one

    one = asyncio.run(asyncio.wait_for(play(), 30))
    assert (one.record.failure, one.record.size) == ("", {"image": len(body)})
    assert 2 <= len(woken) <= 8, woken


def test_storm_in_racks_tells_what_all_racks_have_come_to() -> None:
    told: list[dict[str, object]] = []
    together = Together(2, told.append)
    first, second = together.of(0), together.of(1)
    first({"doing": "something"})
    first({"received": 10, "done": {"kernel": 2}})
    second({"received": 5, "done": {"kernel": 1, "image": 1}})
    first({"received": 30, "done": {"kernel": 1, "image": 2}})
    assert told[0] == {"received": 0, "done": {}}
    assert told[1:] == [
        {"received": 10, "done": {"kernel": 2}},
        {"received": 15, "done": {"kernel": 3, "image": 1}},
        {"received": 35, "done": {"kernel": 2, "image": 3}},
    ]
