"""Requests: one encoding, one digest, one seed, and nothing malformed gets in."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.encoding import MAX_INTEGER, canonical, parse_canonical
from assay.core.errors import EncodingError
from assay.core.request import LEVELS, Message, Opening, Request, SamplerSettings, read_rules, seeded_nonce

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NATURAL = st.integers(0, MAX_INTEGER)
REQUESTS = st.builds(
    Request,
    model=TEXT,
    kind=st.sampled_from(["chat", "completion"]),
    messages=st.lists(
        st.builds(
            Message, st.sampled_from(["system", "developer", "user", "assistant", "tool"]), TEXT, TEXT, TEXT, TEXT
        ),
        max_size=3,
    ).map(tuple),
    prompt=TEXT,
    sampler=st.builds(SamplerSettings, NATURAL, NATURAL, NATURAL, NATURAL),
    max_tokens=NATURAL,
    stop=st.lists(TEXT, max_size=3).map(tuple),
    tools=TEXT,
    tool_choice=TEXT,
    response_format=TEXT,
    level=st.sampled_from(LEVELS),
    nonce=st.binary(min_size=32, max_size=32),
    created=NATURAL,
    choice=NATURAL,
    continues=st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple),
).filter(lambda request: request.max_tokens + len(request.continues) <= MAX_INTEGER)
REQUEST = Request(
    model="m",
    kind="chat",
    messages=(Message("user", "hello"), Message("tool", "4", tool_call_id="c1", name="add")),
    prompt="",
    sampler=SamplerSettings(),
    max_tokens=5,
    stop=("END",),
    tools="",
    tool_choice="auto",
    response_format="",
    level="pinned",
    nonce=bytes(range(32)),
    created=1_790_000_000,
)


@given(REQUESTS)
def test_requests_come_back(request: Request) -> None:
    """Encoding and decoding give the same request, digest and seed."""
    again = Request.from_json(parse_canonical(canonical(request.to_json()), what="it"))
    assert again == request
    assert (again.digest, again.seed) == (request.digest, request.seed)


@given(REQUESTS, REQUESTS)
def test_different_requests_have_different_digests(one: Request, other: Request) -> None:
    """The digest tells requests apart, and the seed too."""
    assert (one == other) == (one.digest == other.digest) == (one.seed == other.seed)


def test_every_member_changes_digest_and_seed() -> None:
    """No member of the request is left out of its digest."""
    changed = {
        "model": "n",
        "kind": "completion",
        "messages": (),
        "prompt": "p",
        "sampler": SamplerSettings(top_k=1),
        "max_tokens": 6,
        "stop": ("END", ""),
        "tools": "[]",
        "tool_choice": "none",
        "response_format": "json_object",
        "level": "signed",
        "nonce": bytes(32),
        "created": 0,
        "choice": 1,
        "continues": (0,),
    }
    assert set(changed) == {f.name for f in fields(Request)}
    variants = [REQUEST, *(replace(REQUEST, **{name: value}) for name, value in changed.items())]
    variants += [
        replace(REQUEST, messages=(replace(REQUEST.messages[0], **{f.name: "tool"}),)) for f in fields(Message)
    ]
    variants += [replace(REQUEST, sampler=SamplerSettings(**{f.name: 7})) for f in fields(SamplerSettings)]
    assert len({item.digest for item in variants}) == len({item.seed for item in variants}) == len(variants)


@given(REQUESTS, st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4))
def test_what_asks_for_the_rest_leads_back_to_the_whole(request: Request, tokens: list[int]) -> None:
    """However often an answer was broken off, the request for its rest names the whole call, and nothing but what came
    and what is left differs."""
    whole = replace(request, continues=(), max_tokens=0 if request.max_tokens < 9 else request.max_tokens)
    rest = whole.after(tokens[:2]).after(tokens[2:])
    assert rest.continues == tuple(tokens)
    assert rest.max_tokens == (whole.max_tokens - len(tokens) if whole.max_tokens else 0)
    assert rest.whole == whole
    assert rest.call == whole.call
    assert replace(rest, continues=(), max_tokens=whole.max_tokens) == whole
    assert len({rest.name, whole.name, rest.seed, whole.seed}) == 4


@pytest.mark.parametrize(
    ("continues", "said"), [("", "leaves"), ("AAA", "32-bit"), ("AAAAAA==", "base64url"), (1, "not a string")]
)
def test_one_spelling_of_what_is_continued(continues: object, said: str) -> None:
    """Nothing continued is no member: an empty one would give a request two digests."""
    assert "continues" not in REQUEST.to_json()
    with pytest.raises(EncodingError, match=said):
        Request.from_json({**REQUEST.to_json(), "continues": continues})  # type: ignore[dict-item]
    with pytest.raises(EncodingError, match="delivered before"):
        Request.from_json({**replace(REQUEST, max_tokens=MAX_INTEGER).to_json(), "continues": "AAAAAA"})


@given(REQUESTS)
def test_the_digest_opens(request: Request) -> None:
    """Body, seed and rules are under it, and the rules are the request's."""
    opening = request.opening
    assert opening.digest == request.digest
    assert opening.seed == request.seed
    assert read_rules(opening.rules)[0] == request.sampler
    assert (len(opening.body), len(opening.seed), len(opening.rules)) == (32, 32, 33)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_another_opening_has_another_digest(part: int) -> None:
    """Of a byte changed anywhere in body, seed or rules."""
    opening = REQUEST.opening
    for at in range(len(opening[part])):
        parts = [bytearray(each) for each in opening]
        parts[part][at] ^= 1
        assert Opening(*map(bytes, parts)).digest != REQUEST.digest


@pytest.mark.parametrize(
    ("changes", "masked"),
    [
        ({}, False),
        ({"tools": "[]"}, False),
        ({"tool_choice": "none"}, False),
        ({"tool_choice": "required"}, True),
        ({"tool_choice": "function:f"}, True),
        ({"response_format": "json_object"}, True),
        ({"response_format": '{"type":"object"}', "tool_choice": "none"}, True),
        ({"tool_choice": "anything"}, True),
    ],
)
def test_rules_say_where_there_may_be_a_mask(changes: dict[str, str], masked: bool) -> None:
    """For a format, or a call that has to be made."""
    assert read_rules(replace(REQUEST, **changes).opening.rules) == (REQUEST.sampler, masked)


@pytest.mark.parametrize("rules", [b"", bytes(32), bytes(34), bytes(32) + b"\2", b"\x00\x20" + bytes(31), b"\xff" * 33])
def test_rules_that_are_none(rules: bytes) -> None:
    """Another length, a mask that is neither there nor not, numbers over 2^53: refused."""
    with pytest.raises(EncodingError):
        read_rules(rules)


def test_settings_that_do_not_fit() -> None:
    """A negative setting has no digest."""
    with pytest.raises(EncodingError):
        _ = replace(REQUEST, sampler=SamplerSettings(top_k=-1)).digest


def test_choices_of_one_call() -> None:
    """The answers of one call differ in their number only, draw from different seeds, and share the call's name."""
    choices = [REQUEST.for_choice(i) for i in range(3)]
    assert len({choice.seed for choice in choices}) == 3
    assert len({choice.name for choice in choices}) == 3
    assert {choice.call for choice in choices} == {REQUEST.name}
    assert {replace(choice, choice=0) for choice in choices} == {REQUEST}


def test_seeded_nonce() -> None:
    """A seed always gives the same nonce, others give others; seeds over 128 bits are refused."""
    seeds = (0, 1, -1, 2**63, 2**127 - 1, -(2**127))
    assert len({seeded_nonce(seed) for seed in seeds}) == len(seeds)
    assert seeded_nonce(5) == seeded_nonce(5)
    assert len(seeded_nonce(5)) == 32
    for seed in (2**127, -(2**127) - 1, 10**5000):
        with pytest.raises(EncodingError):
            seeded_nonce(seed)


WRONG: list[Any] = [None, True, 1.0, -1, 2**53, 10**400, "\ud800", [], {}, [1], {"a": 1}, "", "x", 3]


@pytest.mark.parametrize("name", sorted(REQUEST.to_json()))
def test_members_of_other_types_are_refused(name: str) -> None:
    """A member of another type, missing or added is refused; what is accepted has a digest and comes back."""
    good: dict[str, Any] = json.loads(canonical(REQUEST.to_json()))
    refused = 0
    for value in WRONG:
        try:
            request = Request.from_json(good | {name: value})
        except EncodingError:
            refused += 1
        else:
            assert len(request.digest) == 32
            assert request.to_json()[name] == value
            assert type(request.to_json()[name]) is type(value)
    assert refused >= len(WRONG) - 3
    for other in ({k: v for k, v in good.items() if k != name}, good | {name + "_": 1}):
        with pytest.raises(EncodingError):
            Request.from_json(other)


@pytest.mark.parametrize("value", [None, 1, "request", [], [{}], {}, REQUEST.to_json() | {"messages": [None]}])
def test_other_things_are_no_requests(value: Any) -> None:
    """Anything but an object with exactly the members is refused."""
    with pytest.raises(EncodingError):
        Request.from_json(value)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"role": "user", "content": "x"},
        {"role": "robot", "content": "", "tool_calls": "", "tool_call_id": "", "name": ""},
        {"role": "user", "content": None, "tool_calls": "", "tool_call_id": "", "name": ""},
        {"role": "user", "content": "\udc00", "tool_calls": "", "tool_call_id": "", "name": ""},
        {"role": ["user"], "content": "", "tool_calls": "", "tool_call_id": "", "name": ""},
    ],
)
def test_malformed_messages_are_refused(message: Any) -> None:
    """Unknown roles, missing members, contents that are no text."""
    with pytest.raises(EncodingError):
        Request.from_json(REQUEST.to_json() | {"messages": [message]})


def test_a_lone_surrogate_has_no_digest() -> None:
    """A request made in Python with text that has no UTF-8 is refused when it is hashed, with an error of ours."""
    with pytest.raises(EncodingError):
        _ = replace(REQUEST, prompt="\ud800").digest
