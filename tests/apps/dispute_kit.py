"""A chain with a court, a provider with a bond, a validator, and small answers to dispute about."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from tests.chain.kit import Clock, key
from tests.chain.nodes import Wire
from tests.engines.exact.dispute.kit import SETTINGS, VARIANTS, run
from tests.engines.exact.models import write_model
from typing_extensions import override

from assay.apps.disputes.accuser import Accuser
from assay.apps.disputes.defender import Defender
from assay.apps.disputes.limits import Limits
from assay.apps.disputes.party import Means
from assay.apps.disputes.workbench import Workbench
from assay.apps.logs import logger
from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.court import CourtClient
from assay.chain.devnet import MINTER, Devnet
from assay.chain.outbox import Outbox, Pace
from assay.chain.provider import EmbeddedProvider
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt
from assay.core.errors import ProviderFailed
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.receipt import attest
from assay.core.request import Request, SamplerSettings
from assay.engines.exact.auditor import profile_of
from assay.engines.exact.convert import convert
from assay.engines.exact.dispute.plan import Rules
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.record import CHUNK, evidence_leaves, record_roots
from assay.engines.exact.reference import Model
from assay.engines.exact.tracing import HONEST, Alteration

PROVIDER, VALIDATOR, EVE = key(21), key(22), key(23)
BOND = 100 * 10**18
QUICK = Pace(poll=0.001, again=0.1, stuck=0.2, lost=0.01, outage=0.05)
PROMPT, COUNT = 4, 3


@dataclass(frozen=True)
class Small:
    """A model file, converted."""

    path: Path
    digest: Digest
    model: Model
    program: Program


@cache
def small(folder: Path, name: str) -> Small:
    """A variant of `VARIANTS`, written once."""
    path = write_model(folder / f"{name}.gguf", **VARIANTS[name])
    model = convert(path)
    return Small(path, hashlib.sha256(path.read_bytes()).digest(), model, program_of(model))


class Letters:
    """A reader: a token for each letter."""

    def render(self, request: Request) -> Prompt:
        """See `Reads`."""
        text = request.prompt.encode()
        return Prompt(text, tuple(3 + each for each in text))


@dataclass
class Wrong:
    """What is wrong with an answer; nothing."""

    position: int | None = None
    """Of the pass with a wrong number."""
    index: int = 0
    """Of that number in its record."""
    token: int | None = None
    """Of the answer, which is another one than was drawn; by so much."""
    by: int = 1
    padded: bool = False
    """Records have a chunk more, of zeros."""

    @property
    def alteration(self) -> Alteration:
        """As engines take it."""

        def record(_program: Program, position: int, record: np.ndarray) -> np.ndarray:
            if position != self.position:
                return record
            changed = record.copy()
            changed[self.index] += 1 if changed[self.index] < 0 else -1
            return changed

        return HONEST if self.position is None else Alteration(record=record)


def answered(
    found: Small, signer: Key, issued: int, wrong: Wrong, *, sequence: int = 1, drawn: bool = False
) -> tuple[Bundle, list[Digest]]:
    """An answer by a provider, and what its passes are committed to."""
    dice = Random(sequence)
    settings = SETTINGS if drawn else SamplerSettings(temperature=0)
    prompt_text = "".join(chr(dice.randrange(97, 123)) for _ in range(PROMPT))
    request = Request(
        model="small", kind="completion", messages=(), prompt=prompt_text,
        sampler=settings, max_tokens=COUNT, stop=(), tools="", tool_choice="auto", response_format="", level="exact",
        nonce=dice.randbytes(32), created=issued,
    )  # fmt: skip
    prompt = Letters().render(request)
    rules = Rules(settings, request.seed, PROMPT)
    tokens, records = run(found.model, prompt.tokens, PROMPT + COUNT, rules)
    if wrong.token is not None:
        at = PROMPT + wrong.token
        tokens[at] = tokens[at] + wrong.by
        tokens, records = tokens[: at + 1], records[:at]
    records = np.stack([wrong.alteration.record(found.program, n, record) for n, record in enumerate(records)])
    roots = record_roots(found.program.layout, records)
    if wrong.padded:
        shape = padded(Shape.of(found.model))
        roots = record_roots(shape.layout, pad(records, shape))
    output = tuple(tokens[PROMPT:])
    completion = Completion(
        prompt, output, "", "length" if wrong.token is None else "cancelled", tuple(evidence_leaves(roots, PROMPT))
    )
    profile = profile_of(found.program, 512)
    receipt = attest(
        request, completion, model=found.digest, profile=profile, key=signer, sequence=sequence, issued=issued,
        amount=700,
    )  # fmt: skip
    return Bundle(receipt, request, profile, output), roots


def padded(shape: Shape) -> Shape:
    """One with a chunk too much in the first part of its records."""
    other, layout = replace(shape), replace(shape.layout)
    layout.__dict__["kept_chunks"] = shape.layout.kept_chunks + 1
    other.__dict__["layout"] = layout
    return other


def pad(records: np.ndarray, shape: Shape) -> np.ndarray:
    """Records as they are in that shape."""
    at = (shape.layout.kept_chunks - 1) * CHUNK
    return np.concatenate([records[:, :at], np.zeros((len(records), CHUNK), np.int16), records[:, at:]], axis=1)


class PaddedBench(Workbench):
    """That of a provider whose records have a chunk more."""

    @property
    @override
    def shape(self) -> Shape:
        """See `Workbench`."""
        return padded(super().shape)

    @override
    def response(self, bundle: Bundle, passes: int | None = None) -> Response:
        """See `Workbench`."""
        own = super().response(bundle, passes)
        made = Response(
            own.model, own.parameters.parameters, own.tokens, own.prompt, pad(own.records, self.shape), own.nonce,
            own.rules,
        )  # fmt: skip
        made.shape = self.shape
        return made


@dataclass
class Counted:
    """Implements `Counts`."""

    found: dict[tuple[int, str], int] = field(default_factory=dict)

    def dispute(self, side: int, what: str) -> None:
        """See `Counts`."""
        self.found[side, what] = self.found.get((side, what), 0) + 1

    def slashed(self, side: int, wei: int) -> None:
        """See `Counts`."""
        self.found[side, "wei"] = self.found.get((side, "wei"), 0) + wei


class Stage:
    """All of it; every side can be started anew at any moment from what is on disk."""

    def __init__(
        self, folder: Path, name: str = "llama", *, models: Path | None = None, confirmations: int = 0
    ) -> None:
        self.folder, self.confirmations = folder, confirmations
        self.clock = Clock()
        self.wire = Wire(None)
        self._open_chain()
        self.small = small(models or folder, name)
        self.addresses = Addresses.from_config({"chain_id": 31_337, **_named(self.devnet)})
        self.outboxes: dict[Key, Outbox] = {}
        self.bundles: dict[Digest, Bundle] = {}
        self.leaves: dict[Digest, Sequence[Digest]] = {}
        self.counted = Counted()
        self.asked: list[Digest] = []
        self.served: Callable[[Bundle], Sequence[Digest]] = self._not_served
        for each in (PROVIDER, VALIDATOR, EVE):
            self.devnet.fund(each.address)
        court = self.court(PROVIDER)
        court.bond(BOND, "bond")
        self.finish(PROVIDER)
        self.values = court.values()

    def _open_chain(self) -> None:
        self.devnet = Devnet(self.folder / "chain.sqlite3", clock=self.clock)
        self.chain = self.devnet.chain
        self.wire.provider = EmbeddedProvider(self.chain)

    def take_back(self, blocks: int) -> None:
        """The chain loses its last blocks."""
        last = self.chain.head.number - blocks
        self.devnet.close()
        with closing(sqlite3.connect(self.folder / "chain.sqlite3")) as log, log:
            log.execute("DELETE FROM blocks WHERE number > ?", (last,))
        self._open_chain()

    def court(self, who: Key) -> CourtClient:
        """Somebody's view, with an outbox that is opened anew from its file."""
        if who in self.outboxes:
            self.outboxes.pop(who).close()
        outbox = Outbox(
            self.folder / f"{who.address}.sqlite3", self.wire, who, 31_337, confirmations=self.confirmations, pace=QUICK
        )
        self.outboxes[who] = outbox
        return CourtClient(ChainClient(self.wire, self.addresses, who, outbox))

    def finish(self, *who: Key) -> None:
        """Send what waits."""
        for each in who or self.outboxes:
            for _ in range(200):
                if not self.outboxes[each].unfinished():
                    break
                if not self.outboxes[each].step() and self.confirmations:
                    self.chain.pass_time(0)

    def answer(self, wrong: Wrong | None = None, **more: Any) -> Bundle:
        """A receipt of the provider's that everybody has."""
        found, roots = answered(self.small, PROVIDER, int(self.clock.now), wrong or Wrong(), **more)
        self.bundles[found.receipt.digest] = found
        self.leaves[found.receipt.digest] = roots
        return found

    def bench(self, wrong: Wrong | None = None) -> Workbench:
        """Where somebody computes answers again."""
        found = self.small
        alter = (wrong or Wrong()).alteration
        kind = PaddedBench if wrong is not None and wrong.padded else Workbench
        return kind(found.path, found.digest, found.program, Letters(), alter=alter)

    def means(self, who: Key, bench: Workbench) -> Means:
        """What a side needs."""
        return Means(
            self.court(who), self.bundles.get, bench, logger("test"), self.counted, clock=self.clock, gas_worth=0.0
        )

    def defender(self, wrong: Wrong | None = None) -> Defender:
        """The provider, just started."""
        return Defender(self.means(PROVIDER, self.bench(wrong)))

    def accuser(self, who: Key = VALIDATOR, wrong: Wrong | None = None, **limits: Any) -> Accuser:
        """A validator, just started; `wrong`: what a malicious one claims to have computed."""
        values: dict[str, Any] = {"budget": 100 * 10**18, **limits}
        return Accuser(self.means(who, self.bench(wrong)), who, self._roots, Limits(**values))

    def play(self, *looks: Callable[[], object], turns: int = 18) -> None:
        """Let sides look in turn until silence has ended everything, and once more to collect."""
        for seconds in [61] * turns + [3601, 61, 61]:
            for look in looks:
                look()
                self.finish()
            self.pass_time(seconds)

    def pass_time(self, seconds: int) -> None:
        """On the chain, and for everybody."""
        self.clock.now += seconds
        self.chain.pass_time(0)

    def tokens(self, who: str) -> int:
        """Of somebody."""
        return self.court(EVE).client.token_balance(who)

    def _roots(self, bundle: Bundle) -> Sequence[Digest]:
        self.asked.append(bundle.receipt.digest)
        return self.served(bundle)

    def serve(self, bundle: Bundle) -> Sequence[Digest]:
        """What an honest server of traces begins with: of an answer that was made here."""
        return self.leaves[bundle.receipt.digest]

    def _not_served(self, _bundle: Bundle) -> Sequence[Digest]:
        raise ProviderFailed("nobody serves traces here")

    def close(self) -> None:
        """Let go of the files."""
        for each in self.outboxes.values():
            each.close()
        self.devnet.close()


def _named(devnet: Devnet) -> dict[str, str]:
    found = devnet.contracts
    return {"channels": found.channels, "token": found.token, "vault": found.vault, "court": found.court}


__all__ = ["BOND", "EVE", "MINTER", "PROVIDER", "VALIDATOR", "Stage", "Wrong"]
