"""The court: disputes, each a timeline down to the operation that was disputed. For everybody to read.

`GET /window/court` lists them, `GET /window/court/NAME` tells one, and the owner may have the disputed number computed
again: `POST /window/court/NAME/number`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.window.courtroom import Courtroom, Hearing, Point
from assay.apps.window.shell import Entry, Shell, answer
from assay.apps.window.sources import Sources
from assay.chain.account import Named, Step, Told
from assay.chain.court_events import CHALLENGER, Slashing
from assay.chain.history import Case, Place, Seen
from assay.core.encoding import b64
from assay.core.errors import InvalidRequest, NotFound
from assay.core.hashing import Digest
from assay.store.receipts import ReceiptStore

ENTRY: Final = Entry("court", "/court")
MOST_LISTED: Final = 25
"""Cases of one page of the list."""
_MOST_DIGESTS: Final = 16
"""Of each tree that a move shows."""
_MOST_SAID: Final = 3
"""Sentences of validators that are shown."""
_NAME: Final = re.compile(r"[0-9]{1,15}|[0-9a-f]{64}-[0-9]{1,9}")
_WHO: Final = re.compile(r"(0x)?[0-9a-f]{4,64}")
_PLACE: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,9})")
_WANTED: Final[Mapping[str, Callable[[Case], bool]]] = {
    "": lambda _: True,
    "open": lambda case: case.state == "open",
    "decided": lambda case: case.state != "open",
}


def routes(shell: Shell, sources: Sources) -> list[Route]:
    """The two pages, and what they ask for."""
    room, store = sources.court, sources.store

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "")
        return shell.render(request, "court", case=name if _NAME.fullmatch(name) else "", there=room is not None)

    async def listed(request: Request) -> Response:
        seen, trouble = await _there(room).seen()
        return answer({**_list(request, seen), "trouble": trouble})

    async def told(request: Request) -> Response:
        hearing = await _there(room).hear(_name(request))
        receipt = hearing.case.receipt
        said: Sequence[str] = () if receipt is None else await asyncio.to_thread(_said, store, receipt)
        return answer({**_hearing(hearing), "said": said})

    async def number(request: Request) -> Response:
        await sources.owner.heard(request)
        committed, follows, bundle = await _there(room).compute(_name(request), store)
        return answer({"committed": committed, "follows": follows, "name": b64(bundle.request.call)})

    return [
        Route("/court", page, methods=["GET"]),
        Route("/court/{name}", page, methods=["GET"]),
        Route("/window/court", listed, methods=["GET"]),
        Route("/window/court/{name}", told, methods=["GET"]),
        Route("/window/court/{name}/number", number, methods=["POST"]),
    ]


def _there(room: Courtroom | None) -> Courtroom:
    if room is None:
        raise NotFound("no chain is configured here", "set [chain] url, or start the gateway with --chain URL")
    return room


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if not _NAME.fullmatch(name):
        raise NotFound("no case can have this name", "see the list of the court's cases")
    return name


def _list(request: Request, seen: Seen) -> dict[str, object]:
    """A page of the list: `state` (`open`, `decided`), `with` (an address, or a receipt's digits), `before` (a place
    in the list, as `next` said)."""
    state, who = request.query_params.get("state", ""), request.query_params.get("with", "").strip().lower()
    if state not in _WANTED:
        raise InvalidRequest("there is no such state", field="state", remedy="leave it out, or say open or decided")
    if who and not _WHO.fullmatch(who):
        raise InvalidRequest(
            "this is no address and no receipt", field="with", remedy="give at least 4 hexadecimal digits"
        )
    before, wanted = _place(request.query_params.get("before", "")), _WANTED[state]
    fitting = [case for case in seen.cases if wanted(case) and (not who or case.concerns(who))]
    rest = [case for case in fitting if before is None or case.place < before]
    cases, head = rest[:MOST_LISTED], seen.head
    return {
        "cases": [_case(each) for each in cases],
        "next": "{}-{}".format(*cases[-1].place) if len(rest) > len(cases) else None,
        "count": len(fitting),
        "open": sum(case.state == "open" for case in seen.cases),
        "block": None if head is None else head.number,
        "now": None if head is None else head.timestamp,
        "back": seen.back,
        "whole": seen.whole,
    }


def _place(text: str) -> Place | None:
    if not text:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InvalidRequest("`before` is no place in the list", field="before", remedy="give what `next` said")
    return int(found[1]), int(found[2])


def _case(case: Case) -> dict[str, object]:
    dispute, loss = case.dispute, case.slashing
    running = case.state == "open" and dispute is not None
    return {
        "name": case.name,
        "kind": case.kind,
        "state": case.state,
        "provider": case.provider,
        "challenger": case.challenger,
        "receipt": None if case.receipt is None else case.receipt.hex(),
        "at": case.at,
        "block": case.begun.block,
        "moves": None if dispute is None else dispute.moves,
        "turn": _side(dispute.turn) if running else None,
        "deadline": dispute.deadline if running else None,
        "deposit_wei": None if dispute is None else str(dispute.deposit),
        "slashed_wei": None if loss is None else str(loss.bond + loss.held),
    }


def _side(turn: int) -> str:
    return "challenger" if turn == CHALLENGER else "provider"


def _hearing(hearing: Hearing) -> dict[str, object]:
    case = hearing.case
    return {
        "case": _case(case),
        "steps": [_step(case, n, step) for n, step in enumerate(hearing.steps)],
        "point": None if hearing.point is None else _point(hearing.point),
        "split": None if case.slashing is None else _split(case.slashing),
        "trouble": hearing.trouble,
    }


def _step(case: Case, n: int, step: Step) -> dict[str, object]:
    what, side = _what(case, n)
    return {
        "what": what,
        "by": side,
        "transaction": step.transaction.hex(),
        "block": step.block,
        "at": step.at,
        "gas": step.gas,
        **_told(step.told),
    }


def _what(case: Case, n: int) -> tuple[str, str | None]:
    """What a case's transaction did, and for which side; None: anybody may have done it."""
    if case.dispute is None:
        return "equivocation", "challenger"
    if n == 0:
        return ("demanded" if case.kind == "demand" else "opened"), "challenger"
    if n <= len(case.moved):
        return "moved", _side(case.shown[n - 1].turn)
    last = case.shown[-1]
    if case.state == "void":
        return "void", None
    if case.kind == "demand":
        return ("produced", "provider") if case.state == "provider" else ("not-produced", None)
    if case.state == "challenger":
        return "provider-silent", None
    return ("challenger-silent", None) if last.turn == CHALLENGER else ("proven", "provider")


def _told(told: Told) -> dict[str, object]:
    found: dict[str, object] = {"stage": told.stage}
    found |= {
        name: [_node(each) for each in nodes]
        for name, nodes in (("roots", told.roots), ("named", told.named), ("under", told.under))
        if nodes
    }
    if told.shown:
        found["count"] = told.count
        found["shown"] = {
            tree: [each.hex() for each in digests[:_MOST_DIGESTS]] for tree, digests in told.shown.items()
        }
    if told.chunks is not None:
        found["chunks"] = told.chunks
    if told.pieces:
        found["pieces"] = [{"tree": each.tree, "index": each.index, "numbers": each.numbers} for each in told.pieces]
    if told.entry is not None:
        found |= {"entry": told.entry, "committed": told.committed}
    if told.cells is not None:
        found["cells"] = told.cells
    if told.judged is not None:
        found["judged"] = dict(zip(("kind", "layer", "use"), told.judged, strict=True))
    if told.opening is not None:
        receipt = told.opening.receipt
        found |= {
            "position": told.opening.position, "token": told.opening.token, "model": _hex(receipt["model"]),
            "prompt_count": receipt["promptCount"], "output_count": receipt["outputCount"],
        }  # fmt: skip
    if told.contradiction is not None:
        both = told.contradiction
        found |= {
            "receipts": [both.one.hex(), both.other.hex()], "sequence": str(both.sequence), "differ": both.differ
        }  # fmt: skip
    return found


def _node(node: Named) -> dict[str, object]:
    return {**node._asdict(), "digest": None if node.digest is None else node.digest.hex()}


def _point(point: Point) -> dict[str, object]:
    return {
        "position": point.opening.position,
        "token": point.opening.token,
        "entry": point.entry,
        "committed": point.committed,
        "number": None if point.number is None else point.number._asdict(),
        "chunks": point.chunks,
        "cells": point.cells,
        "cell": point.cell,
        "operation": None if point.operation is None else point.operation._asdict(),
    }


def _split(loss: Slashing) -> dict[str, str]:
    """Where what was lost went, wei."""
    burned = loss.bond + loss.held - loss.compensation - loss.reward - loss.insured
    amounts = {
        "bond": loss.bond, "held": loss.held, "compensation": loss.compensation, "reward": loss.reward,
        "insured": loss.insured, "burned": burned,
    }  # fmt: skip
    return {name: str(amount) for name, amount in amounts.items()} | {"wronged": loss.wronged}


def _said(store: ReceiptStore, receipt: Digest) -> Sequence[str]:
    """Why checks found that the receipt does not hold, if any were handed in here."""
    found = [
        str(finding["reason"])
        for verdict in store.verdicts_on(receipt)
        for finding in _findings(verdict)
        if finding.get("outcome") == "fails"
    ]
    return list(dict.fromkeys(found))[:_MOST_SAID]


def _findings(verdict: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    found = verdict.get("findings")
    return found if isinstance(found, list) else []


def _hex(value: int | Digest) -> str:
    return value.hex() if isinstance(value, bytes) else hex(value)
