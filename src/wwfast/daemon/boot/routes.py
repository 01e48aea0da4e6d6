"""The HTTP surface: paths and queries to (stage, node), the checks in their order, the answer.

Routes and status codes are those of Warewulf: /STAGE/WWID?..., /provision/WWID?stage=..., /status; /kmods/ is ours.
A HEAD answers as GET does and changes nothing: no discovery, no event, no phase.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from wwfast.boot import ways
from wwfast.boot.plan import UNSEEN, BootPlan, Planner, refreshes
from wwfast.boot.stages import Stage
from wwfast.boot.standing import UnresolvedError
from wwfast.daemon.boot.discovery import Discovery
from wwfast.daemon.boot.files import SiteFiles
from wwfast.daemon.boot.guard import Guard
from wwfast.daemon.boot.identity import Neighbours, is_asset, normal
from wwfast.daemon.boot.making import Deriving, Making, Writing
from wwfast.daemon.boot.target import OVERLAYS, Target, held, is_stage, loads, parse, refusal
from wwfast.daemon.state.board import Board
from wwfast.daemon.traffic.racks import Racks
from wwfast.daemon.upkeep import Upkeep
from wwfast.errors import WwfastError
from wwfast.images import names
from wwfast.net.http.message import Request, Response
from wwfast.net.names import tame
from wwfast.net.transfer import Outcome, Transfer
from wwfast.nodes.machines import Machines

if TYPE_CHECKING:
    from wwfast.archive.artefact import Artefact
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Registry, Snapshot

RETRY_AFTER = 2
#: Names by content: a cache may keep for ever what there is, and for seconds that there is nothing.
FOR_EVER, GONE = "public, max-age=31536000, immutable", "public, max-age=5"
#: For the overlays of a script: most are made in 1 ms, the first ones of a cold cache in a second. It then goes out all
#: the same, and the node asks for them when it has its image.
SCRIPT_SECONDS = 3.0
LOOKS = 6  # for an image, a kernel, the two overlays of a script, and what may change meanwhile


class SupersededError(Exception):
    """nodes.conf says something else of the node by now: nobody looks up what it said when the request came."""


@dataclass(slots=True)
class Overlays:
    """The overlays of one answer: what is known to be fresh, and what was made for it or failed. `missing`: stage and
    format of the last one that was asked for and is neither; with `late` they pass for being there."""

    fresh: Callable[[Node, str, str], Artefact | None]
    made: dict[tuple[str, str], Artefact | WwfastError] = field(default_factory=dict)
    missing: tuple[str, str] = ("", "")
    late: bool = False

    def __call__(self, node: Node, stage: str, fmt: str) -> Artefact | None:
        found = self.made.get((stage, fmt)) or self.fresh(node, stage, fmt)
        if isinstance(found, WwfastError):
            raise found
        if found is None:
            self.missing = (stage, fmt)
            return UNSEEN if self.late else None
        return found


class Routes:
    """Answers requests from memory, or waits for a thread that does not have to be waited for by others.

    Everything it needs is handed in by the composition root. `peek` is the overlay of a node that is known to be
    fresh; `writing` and `strangers` run scripts of the site; `aside` is a thread for questions to the kernel.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        planner: Planner,
        upkeep: Upkeep,
        peek: Callable[[Snapshot, Node, str, str], Artefact | None],
        making: Making,
        deriving: Deriving,
        writing: Writing,
        strangers: Writing,
        guard: Guard,
        machines: Machines,
        board: Board,
        discovery: Discovery,
        binaries: Callable[[str], bytes | None],
        files: SiteFiles,
        render_file: Callable[[Snapshot, Node, str], bytes],
        rendering: Executor,
        aside: Executor,
        outlook: Callable[[str], tuple[int, float]],
        tell: Callable[[Transfer], None],
        racks: Racks | None = None,
        neighbour: Callable[[str], str] | None = None,
    ) -> None:
        self._registry = registry
        self._planner = planner
        self._upkeep = upkeep
        self._peek = peek
        self._making = making
        self._deriving = deriving
        self._writing, self._strangers = writing, strangers
        self._guard = guard
        self._machines = machines
        self._board = board
        self._discovery = discovery
        self._binaries = binaries
        self._files = files
        self._render_file, self._rendering = render_file, rendering
        self._aside = aside
        self._outlook = outlook
        self._tell = tell
        self._racks = racks or Racks()
        self._neighbour = neighbour or Neighbours()
        self._begun: dict[str, str] = {}  # of nodes that boot by dracut: the build that their script had

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        parts = [part for part in request.path.split("/") if part]
        if ".." in parts:
            return refusal(404, "no such path")
        if parts == ["status"]:
            return self._status(request)
        if parts and parts[0] == "efiboot":
            return self._binary("/".join(parts[1:]))
        if parts and parts[0] == "blob":
            return self._blob("/".join(parts[1:]))
        if parts and parts[0] == "files":
            return self._file("/".join(parts[1:]), request)
        told = parts[1] if len(parts) > 1 else request.query.get("wwid", "")
        wwid = tame(normal(told))
        if not wwid and is_stage(parts):
            return self._find_out(parts, request)
        return self._route(parts, wwid, request)

    async def _find_out(self, parts: list[str], request: Request) -> Response:
        """Who does not say who it is."""
        loop = asyncio.get_running_loop()
        wwid = await loop.run_in_executor(self._aside, self._neighbour, request.peer_ip)
        answer = self._route(parts, wwid, request)
        return await answer if isinstance(answer, Awaitable) else answer

    def _route(self, parts: list[str], wwid: str, request: Request) -> Response | Awaitable[Response]:
        target = parse(parts, wwid, request, self._outlook)
        if isinstance(target, Response):
            return target
        node = self._registry.snapshot().by_mac(target.wwid)
        if node is None and target.stage is Stage.IPXE and not request.is_head:
            return self._discover(target, request)
        return self._answer(node, target, request)

    async def _discover(self, target: Target, request: Request) -> Response:
        node = await self._discovery.claim(target.wwid)
        answer = self._answer(node, target, request)
        return await answer if isinstance(answer, Awaitable) else answer

    def _answer(self, node: Node | None, target: Target, request: Request) -> Response | Awaitable[Response]:
        refused = self._checked(node, target, request)
        if refused is not None:
            return refused
        if node is not None and not request.is_head:
            self._guard.went_on(node, target.stage, target.wwid, request.peer_ip)
            self._reported(node, target, request)
        if node is not None and target.stage is Stage.IPXE:
            target = self._remembered(node, target)
        if node is not None and target.stage is Stage.IMAGE and not target.ask.image:
            target = self._continued(node, target)
        if target.said and node is not None:
            return self._hear(node, target, request)
        if (cache := request.query.get("from")) and node is not None and not request.is_head:
            return self._in_turn(cache, node, target, request)
        return self._serve(node, target, request)

    async def _in_turn(self, cache: str, node: Node, target: Target, request: Request) -> Response:
        """Stage-1 goes on to a cache when it has this: not before its turn there."""
        if target.stage is Stage.IMAGE and self._guard.is_own(node, target.wwid, request.peer_ip):
            await self._racks.turn(cache, target.wwid)
        answer = self._serve(node, target, request)
        return await answer if isinstance(answer, Awaitable) else answer

    def _serve(self, node: Node | None, target: Target, request: Request) -> Response | Awaitable[Response]:
        closes = target.stage is Stage.RUNTIME and not request.is_head
        closes = closes and self._guard.closes(target.wwid, request.peer_port)
        if not closes and (node is None or not self._upkeep.behind):
            plan = self._plan(node, target)
            if plan is not None and plan.script is None:
                return self._respond(plan, node, target, request)
        return self._wait(node, target, request, closes)

    def _reported(self, node: Node, target: Target, request: Request) -> None:
        """Keep what Linux says of its machine, for boots whose loader cannot say it; or that it said nothing."""
        if not self._guard.is_own(node, target.wwid, request.peer_ip):
            return
        memory = target.ask.machine.memory if target.stage is not Stage.IPXE else 0
        if target.stage is Stage.STAGE1 and not target.said:
            self._machines.unheard.add(node.id)
        elif target.stage is Stage.IMAGE:
            self._machines.unheard.discard(node.id)
        if memory and self._guard.believes(node, target.wwid, request.peer_ip, request.peer_port):
            self._machines.tell(node.id, memory)

    def _remembered(self, node: Node, target: Target) -> Target:
        """With the memory that Linux told earlier, where its boot loader tells none, or more: some is reserved."""
        machine, memory = target.ask.machine, self._machines.memory(node.id)
        if memory and (not machine.memory or memory < machine.memory):
            machine = machine._replace(memory=memory, former=True)
        if node.id in self._machines.unheard:
            machine = machine._replace(silent=True)
        return replace(target, ask=replace(target.ask, machine=machine))

    def _continued(self, node: Node, target: Target) -> Target:
        """With the build that the boot began with, where a module of dracut names none: its kernel is of that."""
        begun = self._begun.get(node.id, "")
        name, build = names.split(begun)
        if name == node.image_name and build in self._upkeep.standing.builds.get(name, ()):
            return replace(target, ask=replace(target.ask, image=begun))
        return target

    def _begins(self, plan: BootPlan, node: Node, target: Target, request: Request) -> None:
        """Keep which build a boot by dracut began with, until it is over."""
        if request.is_head or not self._guard.is_own(node, target.wwid, request.peer_ip):
            return
        if plan.way is not None and plan.way.root == ways.DRACUT:
            self._begun[node.id] = plan.image
        elif plan.stage in (Stage.IPXE, Stage.RUNTIME):
            self._begun.pop(node.id, None)

    def _hear(self, node: Node, target: Target, request: Request) -> Response:
        """A node says what went wrong with it, or well: a line in log and status, from memory to memory."""
        if not request.is_head:
            said = (request.peer_ip, target.wwid, node.id)
            outcome = Outcome.NOTED if request.query.get("well") else Outcome.TOLD
            self._tell(Transfer(target.stage, outcome, time.time(), *said, detail=target.said))
            if self._guard.is_own(node, target.wwid, request.peer_ip):
                self._racks.heard(target.wwid, request.query)
        return Response(waits=False)

    def _plan(self, node: Node | None, target: Target) -> BootPlan | None:
        """From memory; None where something must be waited for."""
        try:
            peek = partial(self._peek, self._registry.snapshot())
            return self._planner.plan(self._upkeep.standing, node, target.stage, target.ask, peek)
        except UnresolvedError:
            return None

    async def _wait(
        self, node: Node | None, target: Target, request: Request, closes: bool, again: bool = True
    ) -> Response:
        """`closes`: a runtime overlay goes out only when the system overlay is closed."""
        try:
            plan = await self._sought(node, target, request)
            while plan is None and held(request) is None:
                await asyncio.sleep(RETRY_AFTER)
                plan = await self._sought(node, target, request)
        except SupersededError:
            return await self._once_more(target, request)
        if plan is None:
            headers = {"Retry-After": str(RETRY_AFTER)}
            why = "still in the making; it was told to come again"
            return refusal(
                503, why, stage=target.stage, wwid=target.wwid, node=node.id if node else "", headers=headers
            )
        if closes and not plan.failed:
            await self._guard.fetched_runtime(target.wwid)
        return self._respond(plan, node, target, request, again)

    async def _once_more(self, target: Target, request: Request) -> Response:
        """By what nodes.conf says now."""
        node = self._registry.snapshot().by_mac(target.wwid)
        refused = self._checked(node, target, request)
        if refused is not None:
            return refused
        answer = self._serve(node, target, request)
        return await answer if isinstance(answer, Awaitable) else answer

    async def _sought(self, node: Node | None, target: Target, request: Request) -> BootPlan | None:
        """With whatever has to be made or found first; None when that takes longer than this client is kept waiting."""
        if target.stage in OVERLAYS and node is not None:
            plan = await self._make(node, target, request)
        else:
            plan = await self._look_up(node, target, request)
        while plan is not None and plan.script is not None:
            plan = await self._write(plan, target, request)
        return plan

    async def _look_up(self, node: Node | None, target: Target, request: Request) -> BootPlan | None:
        """What a thread is about to find out, and for a script the overlays that its node is going to ask for: what is
        wrong with them is said before the image is fetched. None when the client had better come again. Raises
        SupersededError."""
        reference, overlays = "", Overlays(partial(self._peek, self._registry.snapshot()))
        for _ in range(LOOKS):
            await self._upkeep.caught_up(reference)
            try:
                plan = self._planner.plan(self._upkeep.standing, node, target.stage, target.ask, overlays)
            except UnresolvedError as error:
                if node is not None and self._registry.snapshot().by_mac(target.wwid) is not node:
                    raise SupersededError from None
                reference = error.reference
                try:
                    if error.format and not await self._deriving.get(reference, error.format, held(request)):
                        return None
                except WwfastError as wrong:
                    return self._planner.failed(node, target.stage, wrong) if node is not None else None
                continue
            if plan is not None or node is None:
                return plan
            await self._add(overlays, node)
        return None

    async def _write(self, plan: BootPlan, target: Target, request: Request) -> BootPlan | None:
        """With the text of its script, run where templates are; None when the client had better come again. Strangers
        have a thread of their own, so that no node waits for them."""
        assert plan.script is not None
        writing = self._writing if plan.node else self._strangers
        try:
            text = await writing.get(plan.script, held(request))
        except WwfastError as error:
            return self._planner.instead(self._upkeep.standing, plan, target.ask, error)
        return plan.with_text(text) if text is not None else None

    async def _add(self, overlays: Overlays, node: Node) -> None:
        """Make the overlay that is missing, if that does not take too long."""
        stage, fmt = overlays.missing
        try:
            made = await self._making.get(self._registry.snapshot(), node, stage, fmt, SCRIPT_SECONDS)
        except WwfastError as error:
            overlays.made[stage, fmt] = error.with_traceback(None)
            return
        if made is not None:
            overlays.made[stage, fmt] = made
        overlays.late = made is None

    async def _make(self, node: Node, target: Target, request: Request) -> BootPlan | None:
        """With the overlay, made if need be; None when the client had better come again."""
        plan = self._plan(node, target) if not self._upkeep.behind else None
        if plan is not None:
            return plan
        snapshot, stage, fmt = self._registry.snapshot(), target.stage, target.ask.format
        try:
            made = await self._making.get(snapshot, node, stage.value, fmt, held(request))
        except WwfastError as error:
            return self._planner.failed(node, stage, error)
        return self._planner.plan(self._upkeep.standing, node, stage, target.ask, lambda *_: made)

    def _checked(self, node: Node | None, target: Target, request: Request) -> Response | None:
        """The checks of a known node before anything is looked up, in the order of the routes' facts."""
        if node is None:
            return None
        refused = self._guard.refuses(node, target.stage, target.wwid, request.peer_ip, request.peer_port)
        if refused is not None:
            status, reason = refused
            return refusal(status, reason, stage=target.stage, wwid=target.wwid, node=node.id, sent="BAD_REQUEST")
        if node.asset_key and not is_asset(node.asset_key, target.assetkey):
            return refusal(401, "wrong asset key", stage=target.stage, wwid=target.wwid, node=node.id, sent="BAD_ASSET")
        return None

    def _respond(
        self, plan: BootPlan, node: Node | None, target: Target, request: Request, again: bool = True
    ) -> Response:
        if plan.unfit and target.ask.machine.former:
            self._machines.forget(plan.node)  # it may have more by now, and could never tell
        if node is not None:
            self._begins(plan, node, target, request)
        if plan.failed:
            return refusal(plan.status, plan.reason, stage=plan.stage, wwid=target.wwid, node=plan.node, sent=plan.sent)
        body = plan.artefact if plan.artefact is not None else (plan.text or "").encode()
        return Response(
            status=200,
            body=body,
            content_type="text/plain; charset=utf-8" if plan.text is not None else "application/octet-stream",
            wwid=target.wwid,
            node=plan.node,
            stage=plan.stage.value,
            sent=plan.sent,
            detail=plan.reason,
            way=plan.way.why if plan.way else "",
            share=node.cluster_name if node else "",
            waits=plan.stage is not Stage.RUNTIME,
            # Warewulf's dracut module, which names no build, has its image after a first system overlay.
            last=plan.stage is Stage.SYSTEM and (bool(target.ask.image) or loads(request)),
            more=plan.stage is Stage.RUNTIME and node is not None and refreshes(node) and loads(request),
            again=partial(self._wait, node, target, request, False, False) if again and plan.artefact else None,
        )

    def _binary(self, name: str) -> Response:
        """iPXE binaries for UEFI HTTP boot: at once, with length, named .efi; never redirected, never refused late."""
        data = self._binaries(name)
        if data is None:
            return refusal(404, f"no boot file {name}")
        return Response(status=200, body=data, content_type="application/efi", stage=Stage.EFIBOOT.value, sent=name)

    def _blob(self, name: str) -> Response:
        """Whatever has this content, for whoever knows its name; no look at a node."""
        body = self._upkeep.standing.blobs.get(name)
        if body is None:
            return refusal(404, "nothing here has this content", headers={"Cache-Control": GONE})
        etag = f'"{name}"' if isinstance(body, bytes) else ""
        return Response(
            status=200,
            body=body,
            content_type="application/octet-stream",
            headers={"Cache-Control": FOR_EVER},
            etag=etag,
            stage=Stage.BLOB.value,
            sent=name,
            waits=False,
        )

    async def _file(self, path: str, request: Request) -> Response:
        """A file of the site. It is no stage of a boot: nothing is discovered, nothing waits for a turn."""
        loop, query = asyncio.get_running_loop(), request.query
        wwid = tame(normal(query.get("wwid", "")))
        if not wwid:
            wwid = await loop.run_in_executor(self._aside, self._neighbour, request.peer_ip)
        snapshot = self._registry.snapshot()
        node = snapshot.by_mac(wwid) if wwid else None
        refused = self._files.refuses(node, query.get("assetkey"), request.peer_port, query.get("render"))
        if refused is not None or node is None:
            return refusal(*(refused or (401, "")))
        if "render" in query:
            if not self._guard.is_own(node, wwid, request.peer_ip):
                return refusal(403, f"render: {request.peer_ip} is not the address of {node.id}")
            return await loop.run_in_executor(self._rendering, self._render, snapshot, node, path)
        found = await loop.run_in_executor(self._aside, self._files.find, path)
        if found is None:
            return refusal(404, "no such file")
        return Response(status=200, body=found, content_type="application/octet-stream", waits=False)

    def _render(self, snapshot: Snapshot, node: Node, path: str) -> Response:
        """For a thread."""
        template = self._files.template(path)
        if not isinstance(template, str):
            return refusal(*template)
        try:
            text = self._render_file(snapshot, node, template)
        except WwfastError as error:  # in words that hold no value: who writes templates sees them at once
            said = error.message.encode() + b"\n"
            return Response(status=500, body=said, content_type="text/plain; charset=utf-8", waits=False)
        return Response(status=200, body=text, content_type="application/octet-stream", waits=False)

    def _status(self, request: Request) -> Response | Awaitable[Response]:
        node = request.query.get("node", "")
        return _json(self._board.one(node)) if node else self._whole_status()

    async def _whole_status(self) -> Response:
        return _json(await self._board.ask())


def _json(body: bytes) -> Response:
    return Response(status=200, body=body, content_type="application/json")
