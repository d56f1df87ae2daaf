"""Where auditors of level `exact` get traces: a file, or the provider itself."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from assay.core.bundle import Bundle
from assay.core.errors import AssayError, InvalidRequest, NotFound
from assay.core.keys import Address
from assay.network.traces import fetch_trace, provider_at
from assay.verify.exact import ServedTrace

Traces: TypeAlias = Callable[[Bundle], ServedTrace | None]
"""Where the traces of answers come from; None: of this one there is none."""
_BLOCK: Final = 1 << 20


def no_traces(_bundle: Bundle) -> ServedTrace | None:
    """There are none: everything is computed again."""
    return None


def traces_at(place: str, share: float = 1.0) -> Traces:
    """From a file, or from the provider at an address; `share` of the passes is audited, chosen at random now.

    Raises:
        InvalidRequest: there is no such file.
    """
    remote = place.startswith(("http://", "https://"))
    if not remote and not Path(place).is_file():
        raise InvalidRequest(f"{place} is neither a file nor an address", remedy="fetch it with `assay trace`")

    def served(bundle: Bundle) -> ServedTrace:
        passes = passes_of(bundle)
        positions = None if share >= 1 else _choose(passes, share)
        if remote:
            return ServedTrace(fetch_trace(place, bundle.request, passes, positions), positions)
        return ServedTrace(_blocks(Path(place)), positions, whole=True)

    return served


class ProviderTraces:
    """Implements `Traces` over the providers at these addresses, each asked once who it is."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._unknown: Final = [url.rstrip("/") for url in urls]
        self._known: Final[dict[Address, str]] = {}

    def __call__(self, bundle: Bundle) -> ServedTrace | None:
        """The trace of an answer by one of them."""
        url = self._find(bundle.receipt.provider)
        return ServedTrace(fetch_trace(url, bundle.request, passes_of(bundle))) if url else None

    def beginning(self, bundle: Bundle) -> Generator[bytes, None, None]:
        """The trace of an answer's first pass, which begins with what all passes are committed to.

        Raises:
            NotFound: its provider is none of these.
            AssayError: while blocks are taken: see `fetch_trace`.
        """
        url = self._find(bundle.receipt.provider)
        if url is None:
            raise NotFound("the provider's address is not known", "name it with --provider")
        return fetch_trace(url, bundle.request, passes_of(bundle), [0])

    def _find(self, provider: Address) -> str | None:
        if provider not in self._known:
            self._ask()
        return self._known.get(provider)

    def _ask(self) -> None:
        for url in list(self._unknown):
            try:
                self._known[provider_at(url)] = url
                self._unknown.remove(url)
            except AssayError:
                continue  # asked again with the next receipt


def passes_of(bundle: Bundle) -> int:
    """Passes of an answer: all its tokens but the last one, by the receipt's counts."""
    return max(0, bundle.receipt.prompt_count + bundle.receipt.output_count - 1)


def _choose(passes: int, share: float) -> Collection[int]:
    """Nobody who signs a receipt can know which."""
    return random.SystemRandom().sample(range(passes), min(passes, math.ceil(passes * share)))


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror})", remedy="check the path") from error
