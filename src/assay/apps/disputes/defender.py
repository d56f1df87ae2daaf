"""A provider that defends itself, unattended: it answers disputes over its receipts, and demands for data."""

from __future__ import annotations

from typing import Final

from assay.apps.disputes.party import Means, Party, Stuck
from assay.chain.court_events import PROVER
from assay.chain.docket import Case
from assay.core.evidence import evidence_salt


class Defender:
    """For one thread. It keeps nothing: see `Docket` and `Seat`."""

    def __init__(self, means: Means) -> None:
        self._means: Final = means
        self._party: Final = Party(means, PROVER)

    def look(self) -> int:
        """Do once what is to be done; the number of open disputes.

        Raises:
            ChainFailed: the chain cannot be asked.
            StoreError: receipts or transactions cannot be read or written.
        """
        self._party.collect()
        cases = [case for case in self._party.docket.look() if case.dispute.provider == self._means.court.address]
        self._party.play(cases, self._produce)
        return len(cases)

    def _produce(self, case: Case) -> None:
        """What is demanded: the salt of the evidence, and the commitments of all passes."""
        dispute = case.dispute
        if self._party.now() > dispute.deadline:
            raise Stuck("its time is over", "nothing can be done any more")
        bundle = self._means.find(dispute.receipt)
        if bundle is None:
            raise Stuck("the demanded receipt is not kept here", "restore the database of receipts")

        def make() -> bytes:
            data = evidence_salt(bundle.request.nonce) + b"".join(self._means.bench.leaves(bundle))
            return dispute.producing(bundle.receipt, data)

        self._party.send(case, f"dispute/{dispute.id}/{dispute.receipt.hex()[:16]}/produce", make)
