"""What foreign servers tell with each token: read from the shapes that llama-server, vLLM and Ollama send.

shape      who                     log-probabilities of one choice
content    llama-server, Ollama    {"content": [{"id"?, "token", "bytes"?, "logprob", "top_logprobs": [same]}]}
columns    vLLM, OpenAI            {"tokens": […], "token_logprobs": […], "top_logprobs": [{token: logprob}]}

A token is `token_id:N` where vLLM was asked for that; vLLM also puts `token_ids` beside the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from assay.core.errors import ProviderFailed
from assay.core.ports import Tokenizer
from assay.engines.proxy_upstream import Object

_PLACEHOLDER: Final = "token_id:"
_LEAST: Final = -1e30
_MAX_WITHHELD: Final = 64
"""Most bytes of tokens that a server sends late."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """One output token as the server tells of it."""

    token: int | None
    """None: the server does not say, and its text does not tell."""
    given: bool
    """The server named the id itself."""
    data: bytes | None
    """What it stands for, as the server says; with tokens before it that the server had kept back."""
    logprob: float | None
    top: tuple[tuple[int, float], ...]
    """Alternatives, best first, the lowest id first among equals."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a streamed completion."""

    text: str
    emitted: tuple[Emitted, ...]
    finish: str | None
    made: int | None
    """How many tokens the server has made so far (llama-server says so with each)."""
    prompt_tokens: int | None
    """How many tokens the server read."""
    completion_tokens: int | None
    """How many tokens the answer has, or has so far."""


class Names:
    """A vocabulary by what its tokens stand for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer: Final = tokenizer

    def find(self, text: str, data: bytes | None) -> int | None:
        """The one token that stands for `data` (or for `text`); None if there is none, or more than one."""
        if data is None:
            if not text or "\ufffd" in text:
                return None
            data = text.encode("utf-8", "surrogatepass")
        found = self._by_bytes.get(data)
        if found is not None:
            return found if found >= 0 else None
        spelled = self._tokenizer.encode(text, special=True) if _encodable(text) else ()
        return spelled[0] if len(spelled) == 1 and self._tokenizer.is_control(spelled[0]) else None

    def fill(self, data: bytes, count: int) -> tuple[int, ...] | None:
        """The `count` tokens that make up `data`, which was kept back because each of them leaves a character
        unfinished. Where several sequences do, the tokenizer's own one; None if that is none of them.
        """
        if not 0 < count <= len(data) <= _MAX_WITHHELD:
            return None
        ways: list[tuple[int, ...]] = []
        self._split(data, 0, count, (), ways)
        if len(ways) == 1:
            return ways[0]
        own = self.spell(data)
        return own if own in ways else None

    def spell(self, data: bytes) -> tuple[int, ...]:
        """Some tokens that make up exactly `data`: the tokenizer's own way if it keeps every byte, else the longest
        first.

        Raises:
            ProviderFailed: the vocabulary has no tokens for it.
        """
        try:
            own = self._tokenizer.encode(data.decode(), special=False)
            if b"".join(map(self._tokenizer.piece, own)) == data:
                return own
        except UnicodeDecodeError:
            pass
        ids: list[int] = []
        at = 0
        while at < len(data):
            for end in range(min(len(data), at + self._longest), at, -1):
                if (token := self._any.get(data[at:end])) is not None:
                    ids.append(token)
                    at = end
                    break
            else:
                raise ProviderFailed("the server sends text that its vocabulary cannot write", "check the model")
        return tuple(ids)

    def _split(self, data: bytes, at: int, count: int, ids: tuple[int, ...], ways: list[tuple[int, ...]]) -> None:
        if len(ways) > 32:
            return
        if count == 0:
            if at == len(data):
                ways.append(ids)
            return
        for end in range(at + 1, len(data) - count + 2):
            token = self._by_bytes.get(data[at:end], -1)
            if token >= 0 and unfinished(data[:end]):
                self._split(data, end, count - 1, (*ids, token), ways)

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        """Token by bytes; -1 where several tokens stand for the same."""
        tokens: dict[bytes, int] = {}
        for token in range(self._tokenizer.n_vocab):
            if not self._tokenizer.is_control(token) and (data := self._tokenizer.piece(token)):
                tokens[data] = -1 if data in tokens else token
        return tokens

    @cached_property
    def _any(self) -> dict[bytes, int]:
        """The lowest token by bytes."""
        tokens: dict[bytes, int] = {}
        for token in range(self._tokenizer.n_vocab):
            if not self._tokenizer.is_control(token) and (data := self._tokenizer.piece(token)):
                tokens.setdefault(data, token)
        return tokens

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._any), default=0)


def unfinished(data: bytes) -> bool:
    """Whether `data` ends within a UTF-8 character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            return back < (2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 0)
    return False


def read_event(value: Object, names: Names) -> Event:
    """One event of a streamed completion.

    Raises:
        ProviderFailed: a member has a type or a value that it cannot have.
    """
    choices = value.get("choices", [])
    if not isinstance(choices, list) or len(choices) > 1:
        raise _strange("choices is not a list of one")
    choice = _member(choices[0]) if choices else {}
    text, finish = choice.get("text", ""), choice.get("finish_reason")
    if not isinstance(text, str) or not (finish is None or isinstance(finish, str)):
        raise _strange("a choice has no text")
    usage, timings = _member(value.get("usage")), _member(value.get("timings"))
    return Event(
        text=text,
        emitted=_emitted(choice, names),
        finish=finish or None,
        made=_count(timings.get("predicted_n")),
        prompt_tokens=_count(usage.get("prompt_tokens")) or _sum(timings.get("cache_n"), timings.get("prompt_n")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _emitted(choice: Object, names: Names) -> tuple[Emitted, ...]:
    logprobs = _member(choice.get("logprobs"))
    given = _items(choice.get("token_ids"))
    ids = [_id(item) for item in given]
    content = logprobs.get("content")
    if content is not None:
        told = tuple(_from_content(_member(entry), names) for entry in _items(content))
    elif logprobs.get("tokens") is not None:
        told = _from_columns(logprobs, names)
    else:
        return tuple(Emitted(token, True, None, None, ()) for token in ids)
    if not ids:
        return told
    if len(ids) != len(told):
        raise _strange(f"{len(ids)} token ids come with {len(told)} log-probabilities")
    return tuple(
        Emitted(token, True, entry.data, entry.logprob, entry.top) for token, entry in zip(ids, told, strict=True)
    )


def _from_content(entry: Object, names: Names) -> Emitted:
    token, given, data = _named(entry, names)
    alternatives = [_member(item) for item in _items(entry.get("top_logprobs"))]
    top = [(_named(item, names)[0], _logprob(item.get("logprob"))) for item in alternatives]
    return Emitted(token, given, data, _optional(entry.get("logprob")), _ranked(top))


def _from_columns(logprobs: Object, names: Names) -> tuple[Emitted, ...]:
    tokens, values = _items(logprobs.get("tokens")), _items(logprobs.get("token_logprobs"))
    tops = _items(logprobs.get("top_logprobs")) or [None] * len(tokens)
    if not len(tokens) == len(values) == len(tops):
        raise _strange("the columns of the log-probabilities differ in length")
    emitted: list[Emitted] = []
    for name, value, alternatives in zip(tokens, values, tops, strict=True):
        token, given = _by_name(name, names)
        top = [(_by_name(other, names)[0], _logprob(lp)) for other, lp in _member(alternatives).items()]
        emitted.append(Emitted(token, given, None, _optional(value), _ranked(top)))
    return tuple(emitted)


def _named(entry: Object, names: Names) -> tuple[int | None, bool, bytes | None]:
    """Id, whether the server gave it, and bytes."""
    text, listed = entry.get("token"), entry.get("bytes")
    if not isinstance(text, str):
        raise _strange("a token has no text")
    try:
        data = None if listed is None else bytes(_id(item) for item in _items(listed))
    except ValueError as error:
        raise _strange("a token's bytes are not bytes") from error
    if "id" in entry:
        return _id(entry["id"]), True, data
    token, given = _by_name(text, names, data)
    return token, given, data


def _by_name(name: object, names: Names, data: bytes | None = None) -> tuple[int | None, bool]:
    if not isinstance(name, str):
        raise _strange("a token is no text")
    number = name.removeprefix(_PLACEHOLDER)
    if number != name and number.isascii() and number.isdigit() and len(number) <= 10:
        return _id(int(number)), True
    return names.find(name, data), False


def _ranked(top: Sequence[tuple[int | None, float]]) -> tuple[tuple[int, float], ...]:
    """Best first; nothing if one alternative has no id, since then another may be hidden behind its text."""
    known = {token: value for token, value in top if token is not None}
    if len(known) != len(top):
        return ()
    return tuple(sorted(known.items(), key=lambda item: (-item[1], item[0])))


def _member(value: object) -> Object:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _strange("a member is no object")
    return value


def _items(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > 2**20:
        raise _strange("a member is no list")
    return value


def _id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise _strange("a token id is no number")
    return value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _sum(one: object, other: object) -> int | None:
    left, right = _count(one), _count(other)
    return None if left is None or right is None else left + right


def _optional(value: object) -> float | None:
    return None if value is None else _logprob(value)


def _logprob(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value) or value > 1e-3:
        raise _strange("a log-probability is no number up to 0")
    return float(max(min(value, 0.0), _LEAST))


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _strange(what: str) -> ProviderFailed:
    return ProviderFailed(f"the server left the protocol: {what}", "check that it is an OpenAI server of this version")
