"""Those who ask: with the official client, streamed and not, to the end or not."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import openai
from benchmarks.soak.town import MODEL
from tests.e2e.kit import bundles

from assay.core.errors import VerificationError
from assay.verify.binding import check_offline

KEPT: Final = 500
"""Answers whose receipts are looked at again in the end."""
WORDS: Final = ("rivers", "the sea", "winter", "an old house", "bread", "music", "a long road", "stars")
PAUSE: Final = 0.4
"""Seconds between two requests of one consumer, on average."""


class Consumers:
    """Threads that ask until they are told to stop, and what has come of it."""

    def __init__(self, url: str) -> None:
        self.outcomes: Final = Counter[str]()
        """`answered`, `refused` (with a clear error), `unclear` (anything else), `hung up`."""
        self.errors: Final = Counter[str]()
        """First words of what was said instead of answers."""
        self.false: Final[list[str]] = []
        """Receipts that were given out and do not hold."""
        self.names: Final[deque[str]] = deque(maxlen=KEPT)
        """Of answers that came."""
        self.seconds: Final[list[float]] = []
        """That answers took."""
        self._url: Final = url
        self._lock: Final = threading.Lock()
        self._over: Final = threading.Event()

    @contextmanager
    def asking(self, ways: Sequence[str]) -> Iterator[None]:
        """One for each of `ways`: `whole`, `stream` or `hang up`."""
        threads = [threading.Thread(target=self._run, args=(way, seed)) for seed, way in enumerate(ways)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    @property
    def due(self) -> int:
        """Requests that somebody waited for."""
        return sum(self.outcomes[kind] for kind in ("answered", "refused", "unclear"))

    def _run(self, way: str, seed: int) -> None:
        dice = random.Random(seed)
        asks: dict[str, Callable[[openai.OpenAI, dict[str, Any], random.Random], str]] = {
            "whole": _whole,
            "stream": _stream,
            "hang up": _hang_up,
        }
        with openai.OpenAI(base_url=f"{self._url}/v1", api_key="-", max_retries=0, timeout=120) as client:
            while not self._over.wait(dice.uniform(0, 2 * PAUSE)):
                body: dict[str, Any] = {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"say something of {dice.choice(WORDS)}"}],
                    "max_tokens": dice.choice((8, 60, 200)),
                    "temperature": dice.choice((0, 1)),
                }
                self._ask(lambda: asks[way](client, body, dice))  # noqa: B023 - called at once

    def _ask(self, ask: Callable[[], str]) -> None:
        began, said, name = time.monotonic(), "", ""
        try:
            name = ask()
            outcome = "answered" if name else "hung up"
        except openai.APIConnectionError as error:  # which a timeout is too
            outcome, said = "unclear", repr(error)
        except openai.APIError as error:
            outcome, said = "refused" if error.message else "unclear", str(error.message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no clear error
            outcome, said = "unclear", repr(error)
        with self._lock:
            self.outcomes[outcome] += 1
            if said:
                self.errors[f"{outcome}: {said[:160]}"] += 1
            if name:
                self.names.append(name)
                self.seconds.append(time.monotonic() - began)
        if name:
            self._check(name)

    def _check(self, name: str) -> None:
        """Every part whose receipt is there by now."""
        try:
            for bundle in bundles(self._url, name):
                check_offline(bundle)
        except (VerificationError, AssertionError) as error:
            self.false.append(f"{name}: {error}")


def _whole(client: openai.OpenAI, body: dict[str, Any], _dice: random.Random) -> str:
    reply = client.chat.completions.create(**body)
    assert reply.choices[0].finish_reason in ("stop", "length"), reply
    assert reply.model_extra is not None
    assert reply.model_extra["assay"]["receipts"], reply
    return reply.id


def _stream(client: openai.OpenAI, body: dict[str, Any], _dice: random.Random) -> str:
    chunks = list(client.chat.completions.create(**body, stream=True))
    ends = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert ends, chunks[-1]
    assert ends[-1].choices[0].finish_reason in ("stop", "length"), ends
    extra = [(chunk.model_extra or {}).get("assay") or {} for chunk in chunks]
    assert any(each.get("receipts") for each in extra), chunks[-1]
    return chunks[0].id


def _hang_up(client: openai.OpenAI, body: dict[str, Any], dice: random.Random) -> str:
    left = dice.randrange(20)
    with client.chat.completions.create(**{**body, "max_tokens": 200}, stream=True) as reply:
        for _ in reply:
            left -= 1
            if left <= 0:
                break
    return ""
