"""What the chain costs: gas of deposits, claims, payments and disputes, on both chains, and what a voucher takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks._court import disputes, small_answer
from benchmarks._referees import gas_of, largest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, address, anvil, embedded, town_of

from assay.apps.figures import Figure, Say
from assay.core.keys import Key
from assay.core.voucher import channels_domain, sign_voucher

BATCH: Final = 100
"""Channels that are claimed at once: what one transaction takes."""
REQUESTS: Final = 1000
"""Of each channel between two claims: only the last voucher is claimed."""
VOUCHERS: Final = 500
DISPUTE: Final = 1_500_000
"""Gas that a whole dispute should take."""
STEP: Final = 3_000_000
"""Of one step of a dispute, judged by itself."""
DOT: Final = 250_000
"""Of one that is a product of 576 numbers."""
ADA, BOB = PEOPLE[1:3]


def measure(say: Say) -> Iterator[Figure]:
    """Both chains do the same; then vouchers."""
    answer, cases = small_answer(), largest(say)
    town = town_of(embedded())
    found = {"embedded": _gas(town) | disputes(town, answer) | gas_of(town, cases)}
    say("the embedded chain is done")
    with anvil() as web3:
        town = Town(web3)
        found["anvil"] = _gas(town) | disputes(town, answer) | gas_of(town, cases)
    say("anvil is done")
    own, real = found["embedded"], found["anvil"]
    compared = [name for name in own if not name.startswith("dispute.") or name.endswith(".bare")]
    apart = sum(abs(own[name] - real[name]) for name in compared)
    yield Figure("chains.difference", apart, "gas", 0, apart == 0, len(compared))
    per = {name: own[f"claim.{name}"] / BATCH + own["settle"] / BATCH for name in ("compact", "x402")}
    yield Figure("thousand_requests.compact", per["compact"], "gas", 18_500, per["compact"] <= 18_500, BATCH)
    yield Figure("thousand_requests.x402", per["x402"], "gas", 21_000, per["x402"] <= 21_000, BATCH)
    yield Figure("deposit", own["deposit"], "gas", 80_000, own["deposit"] <= 80_000, 1)
    for name in ("deposit.again", "claim.compact.one", "claim.x402.one", "settle"):
        yield Figure(name, own[name], "gas", None, None, 1)
    for name, gas in own.items():
        if name.startswith("dispute."):
            bar = DISPUTE if name == "dispute.operations" else None
            yield Figure(name, gas, "gas", bar, None if bar is None else gas <= bar, 1)
        if name.startswith("judge."):
            bar = DOT if name.startswith("judge.product.") and name != "judge.product.down" else STEP
            yield Figure(name, gas, "gas", bar, gas <= bar, 1)
    yield from _vouchers()


def _gas(town: Town) -> dict[str, int]:
    """Of a payer with many channels to one receiver, whose contract has been used before."""
    functions, spent = town.channels.functions, {}
    terms = [town.terms(ADA, BOB, salt) for salt in range(BATCH + 1)]
    town.deposit(ADA, terms[0], 10**9)
    for each in terms[1:]:
        spent["deposit"] = town.deposit(ADA, each, 10**9)["gasUsed"]
    spent["deposit.again"] = town.deposit(ADA, terms[1], 10**9)["gasUsed"]
    settle = partial(functions.settle, address(BOB), town.token.address)
    args = (address(BOB), town.token.address, terms[0].withdraw_delay)
    # Once before, so that what is measured is neither the receiver's first claim nor its first token.
    town.send(BOB, functions.claimCompact(*args, b"".join(town.compact(ADA, each, REQUESTS) for each in terms[1:])))
    town.send(BOB, settle())
    compact = b"".join(town.compact(ADA, each, 2 * REQUESTS) for each in terms[1:])
    spent["claim.compact"] = town.send(BOB, functions.claimCompact(*args, compact))["gasUsed"]
    spent["settle"] = town.send(BOB, settle())["gasUsed"]
    claims = [town.claim_of(ADA, each, 3 * REQUESTS) for each in terms[1:]]
    spent["claim.x402"] = town.send(BOB, functions.claim(claims))["gasUsed"]
    spent["claim.compact.one"] = town.send(
        BOB, functions.claimCompact(*args, town.compact(ADA, terms[1], 4 * REQUESTS))
    )["gasUsed"]
    spent["claim.x402.one"] = town.send(BOB, functions.claim([town.claim_of(ADA, terms[2], 4 * REQUESTS)]))["gasUsed"]
    return spent


def _vouchers() -> Iterator[Figure]:
    """Signing one and checking it."""
    key = Key.from_secret(bytes([9]) * 32)
    domain = channels_domain(CHAIN_ID, ADA.address)
    started = time.perf_counter()
    for amount in range(VOUCHERS):
        sign_voucher(key, domain, bytes(32), amount).check(domain, key.address)
    spent = (time.perf_counter() - started) / VOUCHERS * 1000
    yield Figure("voucher", spent, "ms", 1.0, spent <= 1.0, VOUCHERS)
