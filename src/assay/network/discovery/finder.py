"""What sources tell, on its way into the record book."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from assay.core.errors import EncodingError, InvalidSignature, RecordRefused
from assay.core.keys import Address
from assay.core.reach import Reach
from assay.core.record import ProviderRecord
from assay.network.discovery.book import RecordBook


class BookFinder:
    """Implements `Finder` over a record book; what is wrong with a record is counted, and ends nothing."""

    def __init__(
        self,
        book: RecordBook,
        *,
        clock: Callable[[], float] = time.time,
        count: Callable[[str, str], None] = lambda _source, _outcome: None,
    ) -> None:
        """`clock`: Unix seconds. `count`: told of each record by source and outcome: `new`, `known`, `malformed`,
        `forged`, or the reason of a `RecordRefused`."""
        self.book: Final = book
        self.clock: Final = clock
        self._count: Final = count

    def heard(self, data: bytes, source: str, reach: Reach) -> ProviderRecord | None:
        """See `Finder`."""
        try:
            record = ProviderRecord.decode(data)
            new = self.book.put(record, self.clock(), source, reach)
        except EncodingError:
            self._count(source, "malformed")
        except InvalidSignature:
            self._count(source, "forged")
        except RecordRefused as refusal:
            self._count(source, refusal.reason)
        else:
            self._count(source, "new" if new else "known")
            return record
        return None

    def gone(self, provider: Address, source: str | None = None) -> None:
        """See `Finder`."""
        self.book.gone(provider, source)
