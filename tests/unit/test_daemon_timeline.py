"""The state of a boot, told by its events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from wwfast.daemon.state.board import Board
from wwfast.daemon.state.timeline import MAX_UNKNOWN, Timeline
from wwfast.net.transfer import Outcome, Transfer

MAC = "52:54:00:00:00:01"


class Story:
    """Plays events to a Timeline, one a second."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timeline = Timeline(lambda: self.now)
        self.timeline.seed(["n1", "n2"])

    def tell(self, stage: str, outcome: Outcome = Outcome.DONE, **more: Any) -> None:
        self.now += 1
        fields: dict[str, Any] = {"peer": "10.0.0.11", "node": "n1", "wwid": MAC, "sent": f"{stage}.x"} | more
        self.timeline.record(Transfer(stage=stage, outcome=outcome, at=self.now, **fields))

    def node(self, name: str = "n1") -> Any:
        return self.status(name)["nodes"][name]

    def status(self, node: str = "", **problems: str) -> Any:
        board = Board(self.timeline, problems=lambda: problems)
        return json.loads(board.one(node) if node else board.whole({}))


def boot(story: Story) -> None:
    for stage in ("dhcp", "tftp", "dhcp", "ipxe", "kernel", "image", "kmods", "system", "runtime"):
        story.tell(stage, sent_bytes=10, total_bytes=10)


def test_a_whole_boot_reads_stage_by_stage() -> None:
    story = Story()
    boot(story)
    entry = story.node()
    assert entry["stage"] == "runtime"
    assert [part["stage"] for part in entry["boot"]] == [
        "dhcp", "tftp", "dhcp", "ipxe", "kernel", "image", "kmods", "system", "runtime",
    ]  # fmt: skip
    assert entry["failed"] is False
    assert entry["last seen"] == 1009


def test_uefi_http_boot_is_a_stage_of_the_boot() -> None:
    story = Story()
    boot(story)
    for stage in ("dhcp", "efiboot", "dhcp", "ipxe"):
        story.tell(stage)
    assert [part["stage"] for part in story.node()["boot"]] == ["dhcp", "efiboot", "dhcp", "ipxe"]


def test_a_node_told_on_its_console_that_it_cannot_boot_has_failed_until_it_can() -> None:
    story = Story()
    story.tell("dhcp")
    story.tell("ipxe", sent="message.ipxe", detail="image x is not built")
    entry = story.node()
    assert (entry["stage"], entry["failed"], entry["error"]) == ("ipxe", True, "ipxe: image x is not built")
    story.tell("ipxe")
    assert story.node()["failed"] is False


def test_never_seen_nodes_have_an_entry() -> None:
    entry = Story().node("n2")
    assert (entry["stage"], entry["last seen"], entry["failed"]) == ("", 0, False)


def test_a_withheld_image_leaves_the_node_at_kernel_with_the_reason() -> None:
    story = Story()
    story.tell("ipxe")
    story.tell("kernel")
    story.tell("image", Outcome.FAILED, status=404, sent="NOT_FOUND", detail="image x is not built")
    entry = story.node()
    assert (entry["stage"], entry["sent"], entry["failed"]) == ("kernel", "NOT_FOUND", True)
    assert entry["error"] == "image: image x is not built"
    story.tell("image")
    assert "error" not in story.node()


def test_a_transfer_cut_short_is_an_error_until_it_succeeds() -> None:
    story = Story()
    story.tell("image", Outcome.STARTED, total_bytes=100)
    story.tell("image", Outcome.FAILED, sent_bytes=40, total_bytes=100, detail="the client closed the connection")
    entry = story.node()
    assert (entry["bytes"], entry["total"], entry["failed"]) == (40, 100, True)


def test_periodic_runtime_fetches_do_not_grow_the_boot() -> None:
    story = Story()
    boot(story)
    for _ in range(50):
        story.tell("runtime")
    assert len(story.node()["boot"]) == 9


def test_a_new_boot_starts_a_new_story() -> None:
    story = Story()
    boot(story)
    story.tell("dhcp")
    assert [part["stage"] for part in story.node()["boot"]] == ["dhcp"]
    story.tell("tftp")
    story.tell("dhcp")
    story.tell("ipxe")
    story.tell("ipxe")
    assert [part["stage"] for part in story.node()["boot"]] == ["dhcp", "tftp", "dhcp", "ipxe"]


def test_a_node_that_stands_still_is_failed() -> None:
    story = Story()
    story.tell("kernel")
    story.now += 60
    assert story.node()["failed"] is False
    story.now += 61
    assert story.node()["failed"] is True
    assert story.node()["stuck"] == 121.0


def test_reseeding_keeps_known_and_drops_gone_nodes() -> None:
    story = Story()
    story.tell("kernel")
    story.timeline.seed(["n1", "n3"])
    assert set(story.status()["nodes"]) == {"n1", "n3"}
    assert story.node()["stage"] == "kernel"


def test_problems_of_nodes_conf_show_as_failed() -> None:
    body = Story().status(n9="bad address")
    assert body["nodes"]["n9"]["error"] == "bad address"
    assert body["nodes"]["n9"]["failed"] is True


def test_what_others_do_in_the_name_of_a_node_is_an_attempt_and_moves_nothing() -> None:
    story = Story()
    boot(story)
    before = story.node()
    others = Transfer("kernel", Outcome.DONE, 2000.0, "10.0.0.77", MAC, "n1", sent="kernel.x", status=200)
    for _ in range(1000):
        story.timeline.attempt(others)
    story.timeline.attempt(replace(others, outcome=Outcome.PROGRESS, at=2001.0))
    after = story.node()
    told = {"count": 1000, "ipaddr": "10.0.0.77", "stage": "kernel", "at": 2000, "outcome": "done"}
    assert after.pop("attempts") == told
    assert after == before


def test_unknown_addresses_are_bounded() -> None:
    story = Story()
    for number in range(MAX_UNKNOWN + 10):
        story.tell("ipxe", node="", wwid=f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}")
    assert len(story.status()["unknown"]) == MAX_UNKNOWN


def test_parts_of_an_image_are_one_stage_that_goes_on() -> None:
    """Two at a time: the last one may be there before the one in front of it."""
    story = Story()
    story.tell("stage1", sent_bytes=5, total_bytes=5)
    for outcome, at, seen in (
        (Outcome.STARTED, 0, 0),
        (Outcome.PROGRESS, 40, 40),
        (Outcome.DONE, 100, 100),
        (Outcome.PROGRESS, 80, 100),
        (Outcome.FAILED, 80, 100),
    ):
        story.tell("image", outcome, sent_bytes=at, total_bytes=100, status=206)
        assert (story.node()["bytes"], story.node()["total"]) == (seen, 100)
    (image,) = [part for part in story.node()["boot"] if part["stage"] == "image"]
    assert (image["outcome"], image["seconds"]) == ("done", 2.0)
    story.tell("image", Outcome.STARTED, sent_bytes=0, total_bytes=100, status=206)
    assert [part["stage"] for part in story.node()["boot"]] == ["stage1", "image", "image"], "fetched once more"


def test_what_a_node_tells_of_its_boot_stays_with_the_stage() -> None:
    story = Story()
    story.tell("image", Outcome.PROGRESS, sent_bytes=40, total_bytes=100, status=206)
    story.tell("stage1", Outcome.TOLD, detail="a piece was wrong")
    entry = story.node()
    assert (entry["stage"], entry["error"], entry["bytes"]) == ("image", "a piece was wrong", 40)
    assert entry["failed"]
    story.tell("image", sent_bytes=100, total_bytes=100, status=206)
    entry = story.node()
    assert "error" not in entry
    assert [(part["outcome"], part["told"]) for part in entry["boot"]] == [("done", "a piece was wrong")]


def test_image_of_which_a_node_has_parts_is_one_stage_beside_its_list() -> None:
    """What the cache of a node has is not fetched: the first piece, and the last one."""
    story = Story()
    story.tell("image", sent_bytes=7, total_bytes=7, status=200)
    story.tell("image", Outcome.PROGRESS, sent_bytes=40, total_bytes=100, status=206)
    story.tell("image", Outcome.PROGRESS, sent_bytes=60, total_bytes=100, status=206)
    story.tell("stage1", Outcome.TOLD, detail="the cache is damaged")
    story.tell("stage1", Outcome.NOTED, detail="80 MiB came from the cache")
    entry = story.node()
    assert ("error" in entry, entry["failed"]) == (False, False)
    list_, image = entry["boot"]
    assert (list_["bytes"], list_["total"]) == (7, 7)
    assert (image["bytes"], image["total"], image["outcome"]) == (60, 100, "done")
    assert image["told"] == "the cache is damaged; 80 MiB came from the cache"
