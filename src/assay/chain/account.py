"""What the transactions of a case said, move by move: digests, the numbers that were shown, and the last operation.

Everything is read from the chain: states from events, moves from the data of transactions, where a node has them.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from assay.chain.abi import CONFIG
from assay.chain.court import MOST_MOVE, CourtClient
from assay.chain.court_events import CHALLENGER, tail
from assay.chain.dispute import MOVE, RECEIPT, Shown
from assay.chain.game import UNNAMED, Descent, State, read_state
from assay.chain.history import Case
from assay.chain.node import Entry
from assay.chain.referees import KINDS, USES
from assay.core import eip712
from assay.core.errors import ChainFailed, EncodingError
from assay.core.hashing import Digest
from assay.core.keys import keccak256
from assay.core.receipt import DOMAIN, FIELDS, TYPE_NAME

Tree: TypeAlias = Literal["kept", "inputs", "cells"]
"""Keys and values of a pass; the inputs of its products; the cells that lead to what is disputed."""
_MOST: Final = 512
"""Transactions that are remembered, those that were asked for last."""
_SECONDS: Final = 15.0
"""For which one case is asked about, and then for the answer under way."""
_EXHIBIT: Final = 2048
_FACTS: Final = 13 * 32
_CHUNK: Final = 256
_OPEN: Final = keccak256(f"open({RECEIPT},bytes,bytes,bytes32,{CONFIG})".encode())[:4]
_DEMAND: Final = keccak256(f"demand({RECEIPT},bytes,bytes32)".encode())[:4]
_EQUIVOCATE: Final = keccak256(f"equivocate({RECEIPT},bytes,{RECEIPT},bytes)".encode())[:4]
_PROVE: Final = keccak256(f"prove({','.join(MOVE)})".encode())[:4]
_WORDS: Final = len(FIELDS)
"""Of a receipt in a call."""


class Named(NamedTuple):
    """A node that the challenger says differs from its own."""

    tree: Tree
    level: int
    """0: the leaves."""
    index: int
    count: int
    """Nodes of that level."""
    digest: Digest | None
    """That the provider showed there; None: nobody can tell."""


class Piece(NamedTuple):
    """256 numbers of a record as the provider shows them."""

    tree: Tree
    index: int
    """Of the chunk in its part of the record."""
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """What a dispute was opened over."""

    receipt: Mapping[str, int | Digest]
    """The receipt's members, by the names of `core.receipt.FIELDS`."""
    position: int | None = None
    """Of the disputed pass; None: data are demanded."""
    token: bool = False
    """Whether the token behind it is disputed."""
    rules: bytes = b""
    """By which tokens are drawn: see `core.request.rules_of`."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two receipts under one number."""

    one: Digest
    other: Digest
    sequence: int
    differ: tuple[str, ...]
    """Members in which they do."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one transaction said, as far as that can be read; empty: nobody can tell."""

    stage: str = ""
    """What was wanted: one of `game.STAGES`, `demand` or `open`."""
    roots: tuple[Named, ...] = ()
    """What the descent goes on from, each the top of its tree."""
    named: tuple[Named, ...] = ()
    """What the challenger names."""
    under: tuple[Named, ...] = ()
    """Under which nodes the provider shows what is there."""
    count: int = 0
    """Digests that the provider shows."""
    chunks: tuple[int, int] | None = None
    """How many both parts of the record have, by the provider's word."""
    pieces: tuple[Piece, ...] = ()
    entry: int | None = None
    """Place in the record of the number that is disputed."""
    committed: int | None = None
    """That number, as the receipt commits to it."""
    cells: int | None = None
    """How many there are."""
    judged: tuple[str, int, str] | None = None
    """Kind, layer and use of the cell that a contract computed again."""
    opening: Opening | None = None
    contradiction: Contradiction | None = None
    shown: Mapping[Tree, tuple[Digest, ...]] | None = None
    """All of those digests."""


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction of a case."""

    transaction: Digest
    block: int
    at: int
    """Of the block, Unix seconds."""
    gas: int | None
    """That the transaction used; None: the node does not tell."""
    told: Told


class Accounts:
    """Each transaction is asked for once. For use from several threads."""

    def __init__(self) -> None:
        self._steps: Final[OrderedDict[tuple[Digest, int], Step]] = OrderedDict()
        self._lock: Final = threading.Lock()

    def of(self, court: CourtClient, case: Case) -> list[Step]:
        """All transactions of a case, in their order.

        Raises:
            ChainFailed: the chain cannot be asked, or only slowly; what it has told is remembered.
        """
        with self._lock:
            until = time.monotonic() + _SECONDS
            events = [case.begun, *case.moved, *([] if case.ended is None else [case.ended])]
            found: list[Step] = []
            for n, entry in enumerate(events):
                name = entry.block_hash, entry.index
                if name not in self._steps:
                    if found and time.monotonic() > until:
                        raise ChainFailed("the node tells of a case slowly", "ask again: it goes on from there")
                    self._steps[name] = _step(court, case, n, entry, found)
                self._steps.move_to_end(name)
                found.append(self._steps[name])
            while len(self._steps) > _MOST:
                self._steps.popitem(last=False)
            return found


def _step(court: CourtClient, case: Case, n: int, entry: Entry, before: Sequence[Step]) -> Step:
    mined = court.node.receipt(entry.transaction)
    at = court.node.head(entry.block).timestamp
    if case.dispute is None:
        told = _contradiction(court, entry.transaction)
    elif n == 0:
        told = _opening(court, entry.transaction, case)
    elif n <= len(case.moved):
        told = _move(court, case, n, before)
    else:
        told = _end(court, case)
    return Step(entry.transaction, entry.block, at, None if mined is None else mined.gas_used, told)


def _opening(court: CourtClient, transaction: Digest, case: Case) -> Told:
    """Of the receipt and the exhibit. A transaction may open several: the receipt's digest tells which."""
    for call in court.said(transaction, _OPEN):
        shown, own = tail(call, _WORDS + 1, _EXHIBIT) or b"", _receipt(call)
        if _digest(own) == case.receipt and len(shown) >= 4 * 32:
            position, token = int.from_bytes(shown[:32], "big"), any(shown[32:64])
            return Told("open", opening=Opening(own, position, token, shown[160:193]))
    for call in court.said(transaction, _DEMAND):
        own = _receipt(call)
        if _digest(own) == case.receipt:
            return Told("demand", opening=Opening(own))
    return Told("demand" if case.kind == "demand" else "open")


def _contradiction(court: CourtClient, transaction: Digest) -> Told:
    for call in court.said(transaction, _EQUIVOCATE):
        one, other = _receipt(call), _receipt(call[32 * (_WORDS + 1) :])
        differ = tuple(name for name in one if one[name] != other[name])
        sequence = one["sequence"]
        assert isinstance(sequence, int)
        return Told(contradiction=Contradiction(_digest(one), _digest(other), sequence, differ))
    return Told()


def _end(court: CourtClient, case: Case) -> Told:
    """The last move, where there was one: a cell that a contract computed again, and found right."""
    assert case.ended is not None
    stage = _state(case.shown[-1]).stage if case.shown[-1].state else "demand"
    if stage != "step" or case.state != "provider":
        return Told(stage)
    for call in court.said(case.ended.transaction, _PROVE):
        words = tail(call, 7, MOST_MOVE) or b""
        kind, layer, use = (int.from_bytes(words[i : i + 32], "big", signed=True) for i in (740, 772, 804))
        if call[:32] == int(case.name).to_bytes(32, "big") and 0 <= kind < len(KINDS) and 0 <= use < len(USES):
            return Told(stage, judged=(KINDS[kind], layer, USES[use]))
    return Told(stage)


def _move(court: CourtClient, case: Case, n: int, steps: Sequence[Step]) -> Told:
    was, then = case.shown[n - 1], case.shown[n]
    before, after = _state(was), _state(then)
    data = court.moved(then.transaction, int(case.name), was.state) or b""
    if was.turn == CHALLENGER:
        if before.stage == "entry":
            if len(data) < 4 + 2 * _CHUNK:
                return Told("entry")
            entry = int.from_bytes(data[:4], "big")
            (committed,) = struct.unpack_from("<h", data, 4 + 2 * (entry % _CHUNK))
            return Told("entry", entry=entry, committed=committed)
        shown = next((step.told.shown for step in reversed(steps) if step.told.shown is not None), {})
        named = [
            Named(
                tree, now.below, now.named, _wide(now.count, now.below), _at(shown.get(tree, ()), now.named - now.first)
            )
            for (tree, now), (_, old) in zip(_trees(after, before.stage), _trees(before, before.stage), strict=True)
            if now.on and old.named == UNNAMED
        ]
        return Told(before.stage, named=tuple(named))
    if before.stage == "chunks":
        on = [(tree, now) for tree, now in _trees(after, before.stage) if now.on]
        pieces = [
            Piece(tree, now.index, struct.unpack_from(f"<{_CHUNK}h", data, 2 * _CHUNK * i))
            for i, (tree, now) in enumerate(on)
            if len(data) >= 2 * _CHUNK * (i + 1)
        ]
        return Told("chunks", pieces=tuple(pieces))
    lowered = [(tree, now) for tree, now in _trees(after, before.stage) if now.on and now.named == UNNAMED]
    at, digests = {"tops": 64 + _FACTS, "cells": 32}.get(before.stage, 0), dict[Tree, tuple[Digest, ...]]()
    for tree, now in lowered:
        stop = at + 32 * _shown(now)
        digests[tree] = tuple(data[i : i + 32] for i in range(at, min(stop, len(data) // 32 * 32), 32))
        at = stop
    tops = tuple(Named(tree, now.level, now.index, _wide(now.count, now.level), now.node) for tree, now in lowered)
    first = before.stage in ("tops", "cells")
    return Told(
        before.stage, roots=tops if first else (), under=() if first else tops,
        count=sum(map(len, digests.values())), cells=after.one.count if before.stage == "cells" else None,
        chunks=(after.one.count, after.other.count) if before.stage == "tops" else None, shown=digests,
    )  # fmt: skip


def _trees(state: State, stage: str) -> list[tuple[Tree, Descent]]:
    """The descents under way in a move: in both parts of a record, or in the cells."""
    if stage.startswith("cell"):
        return [("cells", state.one)]
    return [("kept", state.one), ("inputs", state.other)]


def _wide(count: int, level: int) -> int:
    """Digests of a level of a tree over so many leaves, 16 children a node."""
    return count + (1 << 4 * level) - 1 >> 4 * level


def _shown(descent: Descent) -> int:
    """How many nodes are shown under the one that is known."""
    stop = min(descent.index + 1 << 4 * (descent.level - descent.below), _wide(descent.count, descent.below))
    return max(0, min(stop - descent.first, _CHUNK))


def _at(digests: Sequence[Digest], place: int) -> Digest | None:
    return digests[place] if 0 <= place < len(digests) else None


def _state(shown: Shown) -> State:
    """Of an event; one that makes no sense stands for the beginning."""
    try:
        return read_state(shown.state)
    except EncodingError:
        nowhere = Descent(bytes(32), 0, 0, 0, 0, UNNAMED)
        return State("tops", bytes(32), nowhere, nowhere)


def _receipt(call: bytes) -> Mapping[str, int | Digest]:
    """That with which a call's arguments begin."""
    words = [call[32 * i : 32 * i + 32].ljust(32, b"\0") for i in range(_WORDS)]
    return {
        name: word if kind == "bytes32" else int.from_bytes(word, "big")
        for (name, kind), word in zip(FIELDS, words, strict=True)
    }


def _digest(receipt: Mapping[str, int | Digest]) -> Digest:
    """The one that is signed; every member is a word."""
    members = b"".join(_word(receipt[name]) for name, _ in FIELDS)
    return eip712.signing_digest(DOMAIN, keccak256(eip712.type_hash(TYPE_NAME, FIELDS) + members))


def _word(value: int | Digest) -> bytes:
    return value if isinstance(value, bytes) else value.to_bytes(32, "big")
