"""A request: everything that decides the answer, frozen, with one digest and one sampler seed."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from assay.core.encoding import MAX_INTEGER, Json, b64, canonical, pack_ids, unb64, unpack_ids
from assay.core.errors import EncodingError
from assay.core.hashing import Digest, digest

Level: TypeAlias = Literal["signed", "statistical", "pinned", "exact"]
"""Assurance levels, weakest first."""
LEVELS: tuple[Level, ...] = get_args(Level)

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks in a chat message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, as received."""

    role: Role
    content: str
    tool_calls: str = ""
    """Canonical JSON of the assistant's tool calls, or nothing."""
    tool_call_id: str = ""
    """The call that a `tool` message answers."""
    name: str = ""

    def to_json(self) -> dict[str, Json]:
        """Canonical form."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How a token is chosen from logits; fractions are in millionths."""

    temperature: int = 1_000_000
    """0 takes the largest logit."""
    top_k: int = 0
    """0 keeps all."""
    top_p: int = 1_000_000
    min_p: int = 0

    def to_json(self) -> dict[str, Json]:
        """Canonical form."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Opening(NamedTuple):
    """What a request's digest is made of: shows how tokens are to be drawn, and no word of the request."""

    body: Digest
    """Of the request's canonical bytes, the nonce among them."""
    seed: Digest
    """Of the sampler."""
    rules: bytes
    """33 bytes: see `rules_of`."""

    @property
    def digest(self) -> Digest:
        """The request's."""
        return digest("assay/request/2", *self)


@dataclass(frozen=True, slots=True)
class Request:
    """What a consumer asks of one model for one answer."""

    model: str
    """The model's name, as the consumer wrote it; the receipt binds the digest of the file."""
    kind: Literal["chat", "completion"]
    messages: tuple[Message, ...]
    """Of a chat; empty for a completion."""
    prompt: str
    """Of a completion; empty for a chat."""
    sampler: SamplerSettings
    max_tokens: int
    """Largest number of output tokens; 0 is as many as the context holds."""
    stop: tuple[str, ...]
    """Texts that end the answer and are not part of it."""
    tools: str
    """Canonical JSON of the tool definitions, or nothing."""
    tool_choice: str
    """`auto`, `none`, `required`, or `function:NAME`."""
    response_format: str
    """Nothing, `json_object`, or the canonical JSON of a JSON schema."""
    level: Level
    nonce: bytes
    """32 bytes of the consumer's choice: salts every digest and seeds the sampler."""
    created: int
    """When the consumer accepted the request, Unix seconds; the clock that chat templates see."""
    choice: int = 0
    """Which of the `n` answers of one call this is, from 0."""
    continues: tuple[int, ...] = ()
    """Output tokens that others delivered before they failed: the model reads them after the prompt, and the answer
    goes on after them. `max_tokens` is what is left, and everything else is as it was asked for."""

    @property
    def digest(self) -> Digest:
        """The digest that the receipt carries (salted: the nonce is part of the request)."""
        return self.opening.digest

    @property
    def opening(self) -> Opening:
        """What the digest is made of."""
        body = digest("assay/request-body/1", canonical(self.to_json()))
        return Opening(body, digest("assay/seed/2", self.nonce, body), rules_of(self))

    @property
    def name(self) -> Digest:
        """What opens the answer's bundle to whoever knows the request. It follows from nothing in a receipt, so a
        receipt can be shown around: the digest says which request it is for, and leads to no word of it."""
        return digest("assay/name/1", canonical(self.to_json()))

    @property
    def call(self) -> Digest:
        """The name of the first of the `n` answers' requests: names the whole call, also where parts of it came from
        others."""
        return self.whole.for_choice(0).name

    @property
    def whole(self) -> Request:
        """The request for the whole answer, of which this one may ask for the rest."""
        left = self.max_tokens and self.max_tokens + len(self.continues)
        return replace(self, max_tokens=left, continues=())

    @property
    def seed(self) -> Digest:
        """The sampler's seed: fresh with every nonce and bound to every word of the request."""
        return self.opening.seed

    def to_json(self) -> dict[str, Json]:
        """Canonical form; `continues` is base64url of the packed ids, and left out where there are none."""
        continues: dict[str, Json] = {"continues": b64(pack_ids(self.continues))} if self.continues else {}
        return continues | {
            "model": self.model,
            "kind": self.kind,
            "messages": [message.to_json() for message in self.messages],
            "prompt": self.prompt,
            "sampler": self.sampler.to_json(),
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
            "tools": self.tools,
            "tool_choice": self.tool_choice,
            "response_format": self.response_format,
            "level": self.level,
            "nonce": b64(self.nonce),
            "created": self.created,
            "choice": self.choice,
        }

    @classmethod
    def from_json(cls, value: Json) -> Request:
        """Inverse of `to_json`; every member must be there and have its type.

        Raises:
            EncodingError: anything else.
        """
        named = isinstance(value, Mapping) and "continues" in value
        members = _members(value, cls, "request", without=() if named else ("continues",))
        continues = unpack_ids(_bytes(members["continues"], None, "continues"), what="continues") if named else ()
        if named and not continues:
            raise EncodingError("a request that continues nothing leaves `continues` out")
        max_tokens = natural(members["max_tokens"], "max_tokens")
        natural(max_tokens + len(continues), "max_tokens and what was delivered before")
        kind, level = members["kind"], members["level"]
        if kind not in ("chat", "completion") or level not in LEVELS:
            raise EncodingError("the request's kind or level is unknown")
        messages, stop = members["messages"], members["stop"]
        if not isinstance(messages, list) or not isinstance(stop, list):
            raise EncodingError("the request's messages and stop are lists")
        return cls(
            model=text(members["model"], "model"),
            kind=kind,
            messages=tuple(_message(item) for item in messages),
            prompt=text(members["prompt"], "prompt"),
            sampler=_sampler(members["sampler"]),
            max_tokens=max_tokens,
            stop=tuple(text(item, "stop") for item in stop),
            tools=text(members["tools"], "tools"),
            tool_choice=text(members["tool_choice"], "tool_choice"),
            response_format=text(members["response_format"], "response_format"),
            level=level,
            nonce=_bytes(members["nonce"], 32, "nonce"),
            created=natural(members["created"], "created"),
            choice=natural(members["choice"], "choice"),
            continues=continues,
        )

    def for_choice(self, choice: int) -> Request:
        """The same request for another of the `n` answers."""
        return replace(self, choice=choice)

    def after(self, tokens: Sequence[int]) -> Request:
        """The request for the rest, when `tokens` of this one's answer were delivered: fewer than `max_tokens`, if that
        is a limit."""
        left = self.max_tokens and self.max_tokens - len(tokens)
        return replace(self, max_tokens=left, continues=(*self.continues, *tokens))


_RULES: Final = struct.Struct(">4QB")


def rules_of(request: Request) -> bytes:
    """How tokens are drawn: temperature, `top_k`, `top_p` and `min_p`, 8 bytes each, then 1 byte: whether a mask may
    restrict them.

    There may be one wherever a format or a call is asked for (`engines/grammar.py`).

    Raises:
        EncodingError: a setting does not fit.
    """
    sampler, masked = request.sampler, bool(request.response_format) or request.tool_choice not in ("auto", "none")
    try:
        return _RULES.pack(sampler.temperature, sampler.top_k, sampler.top_p, sampler.min_p, masked)
    except struct.error as error:
        raise EncodingError("a sampler setting is not an unsigned integer") from error


def read_rules(rules: bytes) -> tuple[SamplerSettings, bool]:
    """Inverse of `rules_of`: settings, and whether there may be a mask.

    Raises:
        EncodingError: not 33 bytes, or with a number that no request has.
    """
    if len(rules) != _RULES.size:
        raise EncodingError(f"rules have {_RULES.size} bytes, not {len(rules)}")
    *numbers, masked = _RULES.unpack(rules)
    if masked > 1 or max(numbers) > MAX_INTEGER:
        raise EncodingError("rules with a number that no request has")
    return SamplerSettings(*numbers), bool(masked)


def seeded_nonce(seed: int) -> bytes:
    """The nonce of a consumer who wants the same answer again (OpenAI's `seed`).

    Freshness is given up knowingly, and so is the salt: whoever guesses the seed can confirm a guess of the text.

    Raises:
        EncodingError: not within a signed 128-bit integer.
    """
    if not -(2**127) <= seed < 2**127:
        raise EncodingError("the seed does not fit into 128 bits")
    return digest("assay/nonce/1", seed.to_bytes(16, "big", signed=True))


def text(value: Json, what: str) -> str:
    """`value` if it is a string that has a UTF-8 encoding.

    Raises:
        EncodingError: it is not, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise EncodingError(f"{what} is not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise EncodingError(f"{what} holds a lone surrogate") from error
    return value


MAX_AMOUNT: Final = (1 << 128) - 1
"""Wei; more than there is of any token."""


def decimal(digits: str, *, what: str, most: int = MAX_AMOUNT) -> int:
    """A number of wei, at most `most`, from its one decimal spelling.

    Raises:
        EncodingError: another spelling, or more.
    """
    if not digits.isascii() or not digits.isdigit() or len(digits) > 39 or str(int(digits)) != digits:
        raise EncodingError(f"{what} is not a decimal integer")
    number = int(digits)
    if number > most:
        raise EncodingError(f"{what} is more than {most}")
    return number


def natural(value: Json, what: str) -> int:
    """`value` if it is an integer from 0 to MAX_INTEGER.

    Raises:
        EncodingError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
        raise EncodingError(f"{what} is not an integer from 0 to 2^53 - 1")
    return value


def _message(value: Json) -> Message:
    members = _members(value, Message, "message")
    role = members["role"]
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise EncodingError("a message's role is unknown")
    return Message(role, *(text(members[name], name) for name in ("content", "tool_calls", "tool_call_id", "name")))


def _sampler(value: Json) -> SamplerSettings:
    members = _members(value, SamplerSettings, "sampler")
    return SamplerSettings(**{name: natural(item, name) for name, item in members.items()})


def _bytes(value: Json, size: int | None, what: str) -> bytes:
    return unb64(text(value, what), size=size, what=what)


def _members(value: Json, cls: type, what: str, *, without: Collection[str] = ()) -> Mapping[str, Json]:
    names = {f.name for f in fields(cls)}.difference(without)
    if not isinstance(value, Mapping) or set(value) != names:
        raise EncodingError(f"a {what} has exactly the members {', '.join(sorted(names))}")
    return value
