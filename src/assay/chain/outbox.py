"""Transactions of one key on one chain, none of which is lost: kept before they are broadcast, and sent until final.

Whatever happens between two lines here, the next `step` goes on from what is on disk: a nonce belongs to one
transaction for good, so that however often its signed forms are broadcast, one of them at most is mined.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from assay.chain.ethereum import Account, Web3
from assay.chain.fees import GWEI, Fee, Fees
from assay.chain.node import Asked, Head, MinedIn, Node, NodeRefused
from assay.chain.outbox_file import MAX_GAS, Attempt, Mined, OutboxFile, Row, Sent, Wish
from assay.core.errors import ChainFailed, NotFound, StoreError, TransactionFailed
from assay.core.keys import Address, Key

IN_FLIGHT: Final = 16
"""Transactions that wait in nodes at once: more, nodes do not promise to keep (geth's `accountslots`)."""
DEEP: Final = 64
"""Blocks that a chain may lose beyond what was taken for final; where it lost more, it is another chain."""
_TRIES: Final = 3
"""Times that a node must say something before it is believed, where nodes that are behind say it too."""
_STUBBORN: Final = 20
"""Times that an estimate may fail for no known reason."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    poll: float = 1.0
    """Between two looks at the chain."""
    again: float = 12.0
    """Until a transaction that is not mined is broadcast again."""
    stuck: float = 30.0
    """Until it is sent with higher fees."""
    lost: float = 60.0
    """Until a transaction whose nonce is used up, and which nobody has seen in a block, counts as replaced."""
    outage: float = 30.0
    """Between two attempts, at most, while a node is away."""


@dataclass(slots=True)
class _Timer:
    """When one that waits was last broadcast, and when its fees were last raised."""

    sent: float
    raised: float


class Outbox:
    """For use from several threads. `start` it, or call `step` or `wait`."""

    def __init__(
        self,
        path: Path | None,
        provider: Asked,
        key: Key,
        chain_id: int,
        *,
        confirmations: int = 5,
        max_fee: int = 200 * GWEI,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path`: an SQLite file (see `outbox_path`). `confirmations`: blocks on top of one until all in it is final;
        0 on chains that never take back a block. `max_fee`: wei for a unit of gas, at most, whatever the node says.
        `clock`: seconds from anywhere.

        Raises:
            StoreError: the file cannot be used, another process has it open, or it is of another key or chain.
        """
        self.address: Final[Address] = key.address
        self.node: Final = Node(provider, chain_id)
        self.confirmations: Final = confirmations
        self.pace: Final = pace or Pace()
        self._away = self._refusal = ""
        self._account: Final = Account.from_key(key.secret)
        self._fees: Final = Fees(self.node, max_fee)
        self._clock: Final = clock
        self._file: Final = OutboxFile(path, chain_id, key.address)
        self._stepping: Final = threading.Lock()
        self._changed: Final = threading.Condition()
        self._stop: Final = threading.Event()
        self._thread: threading.Thread | None = None
        self._timers: Final[dict[int, _Timer]] = {}
        self._doubts: Final[dict[int, tuple[int, int, float]]] = {}
        self._moved = False
        self._known = b""

    @property
    def trouble(self) -> str:
        """What keeps transactions from being mined, as far as is known; empty: nothing."""
        return self._away or self._refusal

    def send(self, name: str, to: Address, data: bytes, gas: int | None = None) -> Sent:
        """Send a transaction once, however often this is called with its name; it is on disk when this returns.

        `gas`: at most; None: it is estimated when its turn comes, and a call that would be reverted costs nothing.

        Raises:
            InvalidRequest: no node would take it.
            StoreError: it cannot be kept (nothing is sent), or the name is another transaction's.
        """
        return self.send_all([Wish(name, to, data, gas)])[-1]

    def send_all(self, wishes: list[Wish]) -> list[Sent]:
        """Several, all or none, with nothing of this key between them.

        Raises:
            InvalidRequest, StoreError: see `send`.
        """
        for each in wishes:
            each.check()
        self._file.add(wishes)
        self._tell()
        return [self.look(each.name) for each in wishes]

    def look(self, name: str) -> Sent:
        """How far a transaction has come.

        Raises:
            NotFound: none has this name.
        """
        return self._row(name).sent

    def unfinished(self, prefix: str = "") -> list[Sent]:
        """What has names that begin so, and is neither final nor failed."""
        return [row.sent for row in self._file.unfinished(prefix)]

    def last(self, prefix: str) -> Mined | None:
        """The latest of what has names that begin so, and is final; None: there is none."""
        row = self._file.last(prefix)
        return None if row is None else row.mined

    def result(self, name: str) -> Mined | None:
        """What became of a transaction; None: that is open.

        Raises:
            NotFound: none has this name.
            TransactionFailed: it was reverted, would have been, or its nonce is another's.
        """
        row = self._row(name)
        if row.state == "failed" or (row.state == "final" and (row.mined is None or not row.mined.ok)):
            raise TransactionFailed(name, row.reason)
        return row.mined if row.state == "final" else None

    def wait(self, name: str, timeout: float) -> Mined:
        """Wait, up to `timeout` seconds, until a transaction is final.

        Raises:
            NotFound: none has this name.
            TransactionFailed: it was reverted, would have been, or its nonce is another's.
            ChainFailed: it is not final yet; it stays in the outbox.
        """
        end = self._clock() + timeout
        while (found := self.result(name)) is None:
            left = end - self._clock()
            if left <= 0:
                why = f" ({self.trouble})" if self.trouble else ""
                raise ChainFailed(
                    f"the transaction {name} is not final after {timeout:g} s{why}", "it is sent until it is: wait on"
                )
            if (self._thread is not None and self._thread.is_alive()) or not self._try_step():
                with self._changed:
                    self._changed.wait(min(left, self.pace.poll))
        return found

    def new_name(self, prefix: str) -> str:
        """A name that no transaction has had; the same one until something is sent."""
        return f"{prefix}{self._file.total() + 1}"

    def start(self) -> None:
        """Send from a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self.run, name="outbox", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Send until `close`; outages are waited out."""
        wait = self.pace.poll
        while not self._stop.is_set():
            moved = self._try_step()
            wait = min(2 * wait, self.pace.outage) if moved is None else self.pace.poll
            if not moved:
                with self._changed:
                    self._changed.wait(wait)

    def close(self) -> None:
        """Stop sending; the file is free for others."""
        self._stop.set()
        self._tell()
        if self._thread is not None:
            self._thread.join()
        with self._stepping:
            self._file.close()

    def _try_step(self) -> bool | None:
        """See `step`; None: it failed, and `trouble` says why."""
        try:
            return self.step()
        except (ChainFailed, StoreError) as error:
            self._away = str(error)
            return None

    def step(self) -> bool:
        """Look at the chain once and do what is to be done; True: something was, so look again at once.

        Raises:
            ChainFailed: the node cannot be asked.
            StoreError: the file cannot be written.
        """
        with self._stepping:
            self._moved, rows = False, self._file.open(IN_FLIGHT)
            if not rows:
                self._away = self._refusal = ""
                return False
            head, count = self.node.head(), self.node.count(self.address)
            self._mend(head, count, rows)
            waiting = 0
            for row in rows:
                if row.state == "mined":
                    if head.hash != self._known:
                        self._confirm(row, head)
                elif row.nonce is not None and row.nonce < count:
                    self._look_for(row, head)
                elif row.nonce is not None:
                    waiting += 1
                    self._push(row, head)
                elif waiting >= IN_FLIGHT or not self._begin(row, head, count, alone=not waiting):
                    break
                else:
                    waiting += 1
            self._known, self._away = head.hash, ""
            return self._moved

    def _row(self, name: str) -> Row:
        row = self._file.find(name)
        if row is None:
            raise NotFound(f"no transaction is called {name!r}", "send it first")
        return row

    def _tell(self) -> None:
        self._moved = True
        with self._changed:
            self._changed.notify_all()

    def _mend(self, head: Head, count: int, rows: list[Row]) -> None:
        """What was final and is not any more is sent again: nothing after it could be mined."""
        open_nonces = {row.nonce for row in rows}
        missing = [n for n in range(count, min(self._file.following(), count + DEEP)) if n not in open_nonces]
        if not missing:
            self._doubts.pop(-1, None)
            return
        tries, _, _ = self._doubt(-1, head)
        lost = {row.nonce: row for row in self._file.done_from(count)}
        found = [lost.get(nonce) for nonce in missing]
        if any(row is None or row.mined is None or row.mined.block > head.number + DEEP for row in found):
            self._refusal = "the chain does not know transactions that it had: it is another one, or begins anew"
        elif tries >= _TRIES:
            for row in found:
                if row is not None and self._file.attempts(row):
                    self._file.reopen(row)
                    self._tell()

    def _begin(self, row: Row, head: Head, count: int, *, alone: bool) -> bool:
        """Give a transaction its nonce; False: it waits, and so does what follows. `alone`: all before it are mined."""
        gas = row.gas
        if gas is None:
            try:
                gas = min(self.node.estimate(self.address, row.to, row.data) * 5 // 4, MAX_GAS)
            except NodeRefused as error:
                return alone and self._unwilling(row, head, error)
        nonce = max(count, self._file.following())
        self._sign(row, nonce, gas, self._fees.now(head))
        return True

    def _unwilling(self, row: Row, head: Head, error: NodeRefused) -> bool:
        """The estimate failed though all before it is mined; True: for good."""
        tries, _, since = self._doubt(row.id, head)
        early = tries < (_TRIES if error.reverted else _STUBBORN) or self._clock() - since < 3 * self.pace.poll
        if error.unpaid or error.busy or early:
            self._refusal = f"{error.why} (gas is paid by {self.address})" if error.unpaid else error.message
            return False
        self._file.fail(row, error.why)
        self._doubts.pop(row.id)
        self._tell()
        return True

    def _sign(self, row: Row, nonce: int, gas: int, fee: Fee) -> None:
        """Sign, keep, and only then broadcast."""
        to = Web3.to_checksum_address(row.to)
        signed = self._account.sign_transaction({
            "type": 2, "chainId": self.node.chain_id, "nonce": nonce, "to": to, "value": 0, "data": row.data,
            "gas": gas, "maxFeePerGas": fee.most, "maxPriorityFeePerGas": fee.tip,
        })  # fmt: skip
        attempt = Attempt(bytes(signed.hash), fee, bytes(signed.raw_transaction))
        self._file.try_with(row, nonce, gas, attempt)
        self._timers[row.id] = _Timer(self._clock(), self._clock())
        self._broadcast(row, attempt)

    def _push(self, row: Row, head: Head) -> None:
        """One that is not mined: again, or with higher fees."""
        attempt = self._file.attempts(row)[-1]
        timer, now = self._timers.get(row.id), self._clock()
        if timer is None:  # since before a restart, or a reorganisation
            self._timers[row.id] = _Timer(now, now)
            self._broadcast(row, attempt)
        elif now - timer.raised >= self.pace.stuck or (
            attempt.fee.most < head.base_fee and now - timer.sent >= self.pace.poll
        ):
            self._raise(row, attempt, head)
        elif now - timer.sent >= self.pace.again:
            timer.sent = now
            self._broadcast(row, attempt)

    def _raise(self, row: Row, last: Attempt, head: Head) -> None:
        """By an eighth at least, which nodes want of a replacement; as it is where that would be too much."""
        fee = self._fees.more(last.fee, head)
        if fee is not None and row.nonce is not None and row.gas is not None:
            self._sign(row, row.nonce, row.gas, fee)
            return
        self._timers[row.id] = _Timer(self._clock(), self._clock())
        self._broadcast(row, last)
        self._refusal = f"no more than {self._fees.limit} wei are to be paid for a unit of gas: allow more, or wait"

    def _broadcast(self, row: Row, attempt: Attempt) -> None:
        try:
            self.node.send(attempt.raw)
        except NodeRefused as error:
            if not error.known:
                self._refusal = f"{error.why} (gas is paid by {self.address})" if error.unpaid else error.message
                if error.cheap:
                    self._timers[row.id].raised = float("-inf")
                return
        self._refusal = ""
        self._tell()

    def _look_for(self, row: Row, head: Head) -> None:
        """One whose nonce is used up: in which block is it?"""
        if self._seen(row, head):
            return
        tries, block, since = self._doubt(row.id, head)
        waited = head.number - block >= self.confirmations and self._clock() - since >= self.pace.lost
        if tries >= _TRIES and waited:
            self._file.fail(row, "another program sent something else with this key, in its place")
            self._doubts.pop(row.id)
            self._tell()

    def _confirm(self, row: Row, head: Head) -> None:
        """One that is in a block: still?"""
        if not self._seen(row, head):
            self._file.reopen(row)
            self._timers.pop(row.id, None)
            self._tell()

    def _seen(self, row: Row, head: Head) -> bool:
        """Whether any form of it is in a block; if so, that is kept."""
        for attempt in reversed(self._file.attempts(row)):
            found = self.node.receipt(attempt.hash)
            if found is None:
                continue
            final = head.number - found.block >= self.confirmations
            mined = Mined(
                row.name, attempt.hash, found.block, found.block_hash, found.ok, found.gas_used,
                found.gas_used * found.price, found.logs,
            )  # fmt: skip
            if final or mined != row.mined:
                self._file.found(row, mined, final=final, reason=self._why(row, found) if final else "")
                self._tell()
            if final:
                self._timers.pop(row.id, None)
            self._doubts.pop(row.id, None)
            return True
        return False

    def _why(self, row: Row, found: MinedIn) -> str:
        """Why it was reverted: what the same call says now."""
        if found.ok:
            return ""
        if found.gas_used == row.gas:
            return f"it used up its {row.gas} gas"
        try:
            self.node.call(row.to, row.data, sender=self.address)
        except NodeRefused as error:
            return error.why
        return "reverted; the same call would do now"

    def _doubt(self, what: int, head: Head) -> tuple[int, int, float]:
        """How often something strange was seen, and since which block and when."""
        tries, block, since = self._doubts.get(what, (0, head.number, self._clock()))
        self._doubts[what] = tries + 1, block, since
        return self._doubts[what]
