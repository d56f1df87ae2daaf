"""The text of a token stream as it grows: characters across token borders, and stop strings across them too.

Token ids are the truth and text is derived from them. `final_text` says what the text of an answer is; `TextStream`
gives the same text piece by piece, and only what no later token can take back.

The text ends where, reading character by character, a stop string is first complete; it is cut before the longest
stop string that is complete there.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from assay.core.errors import InvalidRequest

MAX_STOPS: Final = 16
"""Most stop strings of one request."""
MAX_STOP_CHARS: Final = 1024
"""Most characters of one stop string."""


def final_text(data: bytes, stops: Sequence[str]) -> tuple[str, bool]:
    """The text of a whole answer, and whether a stop string ended it.

    `data` is all pieces in a row; bytes that are not UTF-8 become U+FFFD as `bytes.decode` has it. This is the
    definition: `TextStream` is the fast way to the same result.

    Raises:
        InvalidRequest: a stop string is empty or too long, or there are too many.
    """
    check_stops(stops)
    text = data.decode("utf-8", errors="replace")
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    if not ends:
        return text, False
    # The first occurrence of each stop has its earliest end; of those that end first, the longest starts first.
    return text[: min(ends)[1]], True


def spelled(pieces: Callable[[int], bytes], tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, str]:
    """What tokens say: as far as it can be shown while others may follow, and all of it if none does.

    Raises:
        InvalidRequest: as `TextStream`.
    """
    stream = TextStream(pieces, stops)
    shown = "".join(map(stream.push, tokens))
    return shown, shown + stream.finish()


def check_stops(stops: Sequence[str]) -> None:
    """Accept stop strings that a stream can look for.

    Raises:
        InvalidRequest: one is empty or longer than `MAX_STOP_CHARS`, or there are more than `MAX_STOPS`.
    """
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"{len(stops)} stop strings are over the limit of {MAX_STOPS}", field="stop")
    for stop in stops:
        if not 0 < len(stop) <= MAX_STOP_CHARS:
            raise InvalidRequest(f"a stop string has 1 to {MAX_STOP_CHARS} characters, not {len(stop)}", field="stop")


class TextStream:
    """Turns tokens into text that is safe to show now. Constant time per character, whatever the stop strings.

    `pieces` gives the bytes of a token (nothing for control tokens), `stops` are the strings that end the text.

    Raises:
        InvalidRequest: a stop string is empty or too long, or there are too many.
    """

    def __init__(self, pieces: Callable[[int], bytes], stops: Sequence[str]) -> None:
        check_stops(stops)
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._search = _Search(stops) if stops else None
        self._held = ""
        self._state = 0
        self.stopped = False
        """A stop string is complete: the text has ended."""

    def push(self, token: int) -> str:
        """The text that can be shown after `token`; nothing once the text has ended."""
        return "" if self.stopped else self._take(self._decoder.decode(self._pieces(token)))

    def finish(self) -> str:
        """The rest of the text: no token follows."""
        if self.stopped:
            return ""
        shown = self._take(self._decoder.decode(b"", final=True))
        if not self.stopped:
            shown += self._held
        self._held = ""
        return shown

    def _take(self, new: str) -> str:
        search = self._search
        if search is None:
            return new
        text = self._held + new
        state = self._state
        for at, char in enumerate(new, len(self._held) + 1):
            state = search.step(state, char)
            if cut := search.cut[state]:
                self.stopped, self._held = True, ""
                return text[: at - cut]
        self._state = state
        # What ends like the beginning of a stop string waits; `depth` is how much that is.
        keep = len(text) - search.depth[state]
        self._held = text[keep:]
        return text[:keep]


class _Search:
    """Aho and Corasick's automaton (doi:10.1145/360825.360855): after any text, its state is the longest end of the
    text that begins a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fail = [0]
        self.depth = [0]
        """Characters of that end, by state."""
        self.cut = [0]
        """Characters of the longest stop string that is complete, or 0, by state."""
        for stop in stops:
            self._add(stop)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for char, child in self._next[state].items():
                self._fail[child] = self.step(self._fail[state], char)
                self.cut[child] = self.cut[child] or self.cut[self._fail[child]]
                queue.append(child)

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._fail.append(0)
                self.depth.append(self.depth[state] + 1)
                self.cut.append(0)
            state = self._next[state][char]
        self.cut[state] = len(stop)

    def step(self, state: int, char: str) -> int:
        """The state after one more character."""
        while state and char not in self._next[state]:
            state = self._fail[state]
        return self._next[state].get(char, 0)
