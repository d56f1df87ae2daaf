"""A validator that disputes, unattended: receipts that failed an exact audit, and receipts that contradict each other.

What is to be disputed follows from the verdicts that are kept, how far that has come from chain and outbox; salts
follow from the key. So nothing has to be remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from assay.apps.disputes.limits import Limits
from assay.apps.disputes.party import Means, Party
from assay.apps.disputes.seat import terms_of
from assay.apps.disputes.sending import done, free_name, has_failed
from assay.chain.court import DAY, MOST_TOKENS, Values, commitment, demand_fee, demanding, opening
from assay.chain.court_events import CHALLENGER, topic_of
from assay.chain.game import exhibit
from assay.chain.node import Entry
from assay.core.bundle import Bundle
from assay.core.errors import AssayError, ChainFailed
from assay.core.evidence import evidence_root
from assay.core.hashing import Digest
from assay.core.keys import Key, keccak256
from assay.core.receipt import Receipt, verify_signature
from assay.engines.exact.dispute.moves import Challenge
from assay.engines.exact.record import evidence_leaves

Roots: TypeAlias = Callable[[Bundle], Sequence[Digest]]
"""What the passes of an answer are committed to, asked of its provider; AssayError: it does not tell."""
GAS: Final = 3_000_000
"""Of a whole dispute, at most about."""
LATE: Final = 3600
"""Seconds before a receipt is too old after which no dispute over it is begun."""


@dataclass(slots=True)
class _Plan:
    """A receipt that is to be disputed."""

    receipt: Receipt
    leaves: Sequence[Digest] = ()
    """What its passes are committed to; empty: not known yet."""
    challenge: Challenge | None = None
    told: str = ""
    """Why it waits."""


class Accuser:
    """For one thread. It keeps nothing that is not found again: see `Docket` and `Seat`."""

    def __init__(self, means: Means, key: Key, roots: Roots, limits: Limits) -> None:
        """`key`: that of the court in `means`."""
        self._means: Final = means
        self._court: Final = means.court
        self._outbox: Final = means.court.client.outbox
        self._bench: Final = means.bench
        self._roots: Final = roots
        self._limits: Final = limits
        self._secret: Final = keccak256(b"assay/dispute-salt/1" + key.secret)
        self._party: Final = Party(means, CHALLENGER)
        self._plans: Final[dict[Digest, _Plan]] = {}
        self._done: Final[set[Digest]] = set()
        """Receipts of which nothing more is wanted."""

    def look(self, failed: Iterable[Digest], contradictions: Iterable[tuple[Digest, Digest]] = ()) -> int:
        """Do once what is to be done; the number of open disputes. `failed`: receipts with a verdict that proves them
        wrong, oldest first; `contradictions`: pairs under one number.

        Raises:
            ChainFailed: the chain cannot be asked.
            StoreError: receipts or transactions cannot be read or written.
        """
        self._party.collect()
        wanted = [digest for digest in dict.fromkeys(failed) if digest not in self._done]
        own = {digest: self._numbers(digest) for digest in wanted}
        found = self._party.docket.look(number for numbers in own.values() for number in numbers.values())
        cases = [case for case in found if case.dispute.challenger == self._court.address]
        self._party.play(cases, lambda _: None)
        unread = self._party.docket.unread
        busy = {case.dispute.receipt for case in cases}
        busy |= {digest for digest, numbers in own.items() if not unread.isdisjoint(numbers.values())}
        left = self._limits.budget - sum(case.dispute.deposit for case in cases)
        places = self._limits.at_once - len(cases)
        for digest in wanted:
            if digest in busy:
                continue
            if places <= 0:
                break
            try:
                spent = self._pursue(digest, own[digest], left)
            except ChainFailed:
                raise
            except AssayError as error:
                self._drop(digest, error.message)
                continue
            left, places = left - spent, places - (spent > 0)
        for one, other in contradictions:
            self._expose(one, other)
        return len(cases)

    def _numbers(self, digest: Digest) -> dict[str, int]:
        """Numbers of own disputes over a receipt, open or not, by what was sent."""
        found: dict[str, int] = {}
        for kind in ("demand", "open"):
            mined = done(self._outbox, _name(digest, kind))
            if mined is not None:
                logs = mined.logs or self._court.happened("Opened", mined.block, mined.block, [None, None, digest])
                found[kind] = next(int.from_bytes(each.topics[1], "big") for each in logs if _is_opening(each))
        return found

    def _pursue(self, digest: Digest, own: dict[str, int], left: int) -> int:
        """Take the next step towards a dispute; what it will cost as a deposit, if one was taken."""
        plan = self._plans.get(digest)
        bundle = self._means.find(digest) if plan is None else None
        if plan is None:
            if bundle is None or bundle.receipt.level != "exact":
                return self._drop(digest, "the receipt is not kept here, or no chain can judge it")
            verify_signature(bundle.receipt)
            terms_of(bundle, self._bench.shape, self._bench.root)
            plan = self._plans[digest] = _Plan(bundle.receipt)
        receipt, values = plan.receipt, self._court.values()
        if self._court.is_slashed(digest):
            return self._drop(digest, "it has been slashed")
        if "open" in own:
            return self._drop(digest, "the dispute over it was not won")
        if receipt.issued + values.age - min(LATE, values.age // 4) < self._party.now():
            return self._drop(digest, "it is too old")
        if why := self._against(receipt, values, left):
            return self._wait(plan, why)
        bundle = bundle or self._means.find(digest)
        if bundle is None:
            return self._drop(digest, "the receipt is not kept here any more")
        known = bool(plan.leaves) or self._ask(plan, bundle)
        if known and plan.challenge is None:
            plan.challenge = self._bench.fault(bundle, plan.leaves)
            if plan.challenge is None:
                return self._drop(digest, "what it commits to is what follows: there is nothing to dispute")
        if not known and self._court.is_answered(digest):
            return self._wait(plan, "what it commits to is on the chain, and cannot be read there yet")
        if not known and receipt.prompt_count + receipt.output_count > MOST_TOKENS:
            return self._drop(digest, "its provider serves no trace, and it is too long to demand one")
        return self._begin(plan, bundle, values, first="demand" not in own)

    def _ask(self, plan: _Plan, bundle: Bundle) -> bool:
        """Find out what the passes are committed to: from the provider, or from what it produced."""
        receipt = plan.receipt
        try:
            found = self._roots(bundle)
        except AssayError:
            data = self._party.docket.produced(receipt) or b""
            found = [data[i : i + 32] for i in range(32, len(data), 32)]
        count = receipt.prompt_count + receipt.output_count - 1
        if len(found) != count:
            return False
        if evidence_root(evidence_leaves(found, receipt.prompt_count), bundle.request.nonce) != receipt.evidence:
            return False
        plan.leaves = found
        return True

    def _begin(self, plan: _Plan, bundle: Bundle, values: Values, *, first: bool) -> int:
        """Announce a dispute, and open it when that is old enough; until then its provider may still tell what it has
        committed to. `first`: nothing has been demanded."""
        receipt = plan.receipt
        digest = receipt.digest
        kind, deposit = ("open", values.deposit) if plan.challenge else ("demand", demand_fee(values, receipt))
        name = _name(digest, kind)
        if free_name(self._outbox, name) is None:
            if why := has_failed(self._outbox, name):
                return self._drop(digest, why)
            return deposit  # on its way
        salt = keccak256(self._secret + digest)
        announced = commitment(digest, self._court.address, salt)
        since, now = self._court.committed_at(announced), self._party.now()
        if since == 0 or now > since + DAY - LATE:
            free = free_name(self._outbox, _name(digest, f"commit/{int(first)}/{since}"))
            if free is not None:
                self._court.commit(announced, free)
        elif now >= since + values.commit_age:
            call = self._opening(bundle, plan.challenge, salt) if plan.challenge else demanding(receipt, salt)
            if self._court.refusal(call) not in ("committed too late", "not committed", "demanded already"):
                free = free_name(self._outbox, name) or name
                self._court.pay(call, deposit, free)
                self._means.log.info("dispute_begun", receipt=digest.hex(), what=free, deposit_wei=str(deposit))
        return deposit

    def _opening(self, bundle: Bundle, challenge: Challenge, salt: Digest) -> bytes:
        shown = exhibit(
            challenge.position, token=challenge.token, parameters=self._bench.root, opening=bundle.request.opening,
            profile=bundle.profile,
        )  # fmt: skip
        return opening(bundle.receipt, shown, salt, self._means.channel(bundle.receipt.channel))

    def _against(self, receipt: Receipt, values: Values, left: int) -> str:
        """What speaks against a dispute now; empty: nothing."""
        deposit = max(values.deposit, demand_fee(values, receipt))
        if left < deposit:
            return f"deposits in disputes would be more than the budget: {left} wei are left of it"
        if self._court.client.token_balance(self._court.address) < deposit:
            return f"{self._court.address} does not have the deposit of {deposit} wei"
        if not self._is_worth_it(receipt, values):
            return "its provider has less at stake than a dispute costs"
        return ""

    def _is_worth_it(self, receipt: Receipt, values: Values) -> bool:
        """Whether the reward is worth gas and trouble."""
        client = self._court.client
        bond = self._court.stake(receipt.provider).bond
        held = client.token_balance(client.vault_of(receipt.provider))
        reward = (bond * values.slashed // 10_000 + held) * values.challenger // 10_000
        gas = int(GAS * client.gas_price() * self._means.gas_worth)
        return reward > 0 and reward >= self._limits.least + gas

    def _expose(self, one: Digest, other: Digest) -> None:
        """Show two receipts under one number."""
        if other in self._done:
            return
        first, second = self._means.find(one), self._means.find(other)
        if first is None or second is None:
            return
        a, b = first.receipt, second.receipt
        if self._court.has_equivocated(b.provider, b.sequence):
            self._done.add(other)
        elif self._is_worth_it(b, self._court.values()):
            name = free_name(self._outbox, f"equivocate/{b.provider}/{b.sequence}")
            if name is not None:
                self._court.equivocate(a, b, name)
                self._means.log.info("contradiction_shown", provider=b.provider, sequence=b.sequence)

    def _wait(self, plan: _Plan, why: str) -> int:
        """Tell once why a dispute is not begun yet."""
        if plan.told != why:
            plan.told = why
            self._means.log.info("dispute_waits", receipt=plan.receipt.digest.hex(), reason=why)
        return 0

    def _drop(self, digest: Digest, why: str) -> int:
        self._done.add(digest)
        self._plans.pop(digest, None)
        self._means.log.info("dispute_not_wanted", receipt=digest.hex(), reason=why)
        return 0


def _name(digest: Digest, kind: str) -> str:
    return f"accuse/{digest.hex()}/{kind}"


def _is_opening(entry: Entry) -> bool:
    return entry.topics[0] == topic_of("Opened")
