"""Ten thousand mutated receipt files: none is read and holds, and none crashes the reader."""

from __future__ import annotations

import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core.bundle import Bundle
from assay.core.encoding import canonical, parse_canonical
from assay.core.errors import AssayError, EncodingError, VerificationError
from assay.core.receipt import Receipt, sign, verify_signature
from assay.core.request import LEVELS, Message, SamplerSettings
from assay.verify.binding import check_offline

KEY = tiny_key()
ALPHABET = (string.ascii_letters + string.digits + "-_").encode()


def make(level: Any) -> Bundle:
    """A receipt with something in every member of its request."""
    request = replace(
        tiny_request('Ça va ? Two lines,\nplease: "1, 2" 😀', level=level, max_tokens=9, temperature=0.8),
        sampler=SamplerSettings(800_000, 40, 950_000, 20_000),
        stop=("END", "\n\n"),
        nonce=bytes(range(7, 39)),
    )
    request = replace(
        request, messages=(Message("system", "Be brief."), *request.messages, Message("tool", "4", "", "c1", "f"))
    )
    return tiny_bundle(request, KEY, 1_790_000_000 << 20, amount=123_456_789_012_345_678_901)


BUNDLES = {level: make(level) for level in LEVELS}


def outcome(data: bytes) -> str:
    """How a file is refused; fails if it is not, or if anything but an error of ours comes out."""
    try:
        bundle = Bundle.decode(data)
    except EncodingError:
        return "not read"
    try:
        check_offline(bundle)
    except VerificationError:
        return "does not hold"
    pytest.fail(f"this holds: {data!r}")


# --- mutations of bytes: (random, file) -> file


def flip(rng: random.Random, data: bytes) -> bytes:
    """One bit."""
    i = rng.randrange(len(data))
    return data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :]


def overwrite(rng: random.Random, data: bytes) -> bytes:
    """One to four bytes, of the kind that is there."""
    i = rng.randrange(len(data))
    kinds = (string.digits.encode(), ALPHABET, b'"\\,:{}[] \n')
    kind = next((kind for kind in kinds if data[i] in kind), ALPHABET)
    n = rng.randint(1, 4)
    return data[:i] + bytes(rng.choices(kind, k=n)) + data[i + n :]


def insert(rng: random.Random, data: bytes) -> bytes:
    """A byte or something that JSON readers may pass over."""
    i = rng.randrange(len(data) + 1)
    what = rng.choice(
        [
            bytes([rng.randrange(256)]),
            b" ",
            b"\n",
            b"0",
            b"-",
            b"=",
            b"\\",
            b"null",
            b"\xef\xbb\xbf",
            b"\xed\xa0\x80",
            b"[" * 3000,
        ]
    )
    return data[:i] + what + data[i:]


def delete(rng: random.Random, data: bytes) -> bytes:
    """One byte or some."""
    i = rng.randrange(len(data))
    return data[:i] + data[i + rng.choice([1, 1, 1, 2, 4, 50]) :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    """The end cut off, and perhaps mended."""
    return data[: rng.choice([rng.randrange(len(data)), len(data) - 1, len(data) - 2])] + rng.choice(
        [b"", b"\n", b"}\n"]
    )


def exchange(rng: random.Random, data: bytes) -> bytes:
    """Two neighbouring slices."""
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def double(rng: random.Random, data: bytes) -> bytes:
    """A slice twice."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:b] + data[a:b] + data[b:]


def twice(rng: random.Random, data: bytes) -> bytes:
    """Two mutations in one file."""
    for _ in range(2):
        data = rng.choice([flip, overwrite, insert, exchange])(rng, data)
    return data


def matches(pattern: bytes, change: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, bytes], bytes]:
    """Change one match of `pattern`."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        match = rng.choice([*re.finditer(pattern, data)])
        return data[: match.start()] + change(rng, match[0]) + data[match.end() :]

    return mutate


def escape(rng: random.Random, character: bytes) -> bytes:
    """A character spelled by its number."""
    return rng.choice(["\\u%04x", "\\u%04X", "\\x%02x", "\\U%08x", "&#%d;", "%%%02x"]).encode() % ord(character)


def respell(rng: random.Random, number: bytes) -> bytes:
    """A number spelled otherwise, or nearly."""
    spelled = number.decode()
    arabic = spelled.translate({48 + i: 0x660 + i for i in range(10)})
    return rng.choice(
        [
            f"{spelled}.0",
            f"{spelled}e0",
            f"0{spelled}",
            f"+{spelled}",
            f"-{spelled}",
            f"{spelled}0",
            f'"{spelled}"',
            arabic,
            f"{spelled[0]}_{spelled[1:]}",
            f"0x{int(spelled):x}",
            f"{int(spelled) / 10}E1",
            "9" * 5000,
            "NaN",
            "1e999",
            "-0",
        ]
    ).encode()


def last_bits(rng: random.Random, text: bytes) -> bytes:
    """Another last character of a base64url text, padding, or the other alphabet."""
    other = bytes([rng.choice(ALPHABET)])
    swapped = text.translate(bytes.maketrans(b"-_", b"+/"))
    return rng.choice(
        [text[:-1] + other, text[:-1] + other, text + b"=", text + b"==", text + b"A", text[:-1], swapped + b"\\n"]
    )


def duplicate_member(rng: random.Random, member: bytes) -> bytes:
    """A member twice."""
    return member + b"," + member


BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flip": flip,
    "overwrite": overwrite,
    "insert": insert,
    "delete": delete,
    "truncate": truncate,
    "exchange": exchange,
    "double": double,
    "twice": twice,
    "escape": matches(rb"(?<=[\w ])[\w ](?=[\w ])", escape),
    "respell": matches(rb"(?<=[:,])\d+(?=[,}])", respell),
    "base64": matches(rb"[\w-]{40,}", last_bits),
    "duplicate": matches(rb'"\w+":(?:"[^"\\]*"|\d+)', duplicate_member),
    "white space": matches(rb"[,:{}\[\]]", lambda rng, item: rng.choice([b" ", b"\t", b"\n", b"\r"]) + item),
    "capitals": matches(rb"(?<=0x)[0-9]*[a-f]\w+", lambda _, item: item.upper()),
}


@pytest.mark.parametrize("level", LEVELS)
def test_mutated_bytes_never_hold(level: Any) -> None:
    """Thousands of files with bytes changed, each refused; most mutations that still can be read are tried as well."""
    rng, data = random.Random(f"bytes {level}"), BUNDLES[level].encode()
    outcomes: Counter[str] = Counter()
    check_offline(Bundle.decode(data))
    for mutate in BYTES.values():
        done = 0
        while done < 300:
            other = mutate(rng, data)
            if other != data:
                outcomes[outcome(other)] += 1
                done += 1
    assert outcomes.total() == 300 * len(BYTES)
    assert outcomes["does not hold"] > 200


def test_every_byte_flipped_and_every_length() -> None:
    """Each single bit of a file flipped in turn, and the file cut at each length."""
    data = BUNDLES["signed"].encode()
    outcomes: Counter[str] = Counter()
    for i in range(len(data)):
        outcomes[outcome(data[:i])] += 1
        if i < len(data) - 1:
            outcomes[outcome(data[:i] + b"\n")] += 1
    assert set(outcomes) == {"not read"}
    for i in range(len(data)):
        outcomes[outcome(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])] += 1
    assert outcomes["does not hold"] > 200


# --- mutations of values


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value within a JSON value, containers included, with the way to it."""
    if path:
        yield path, value
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))


def replaced(value: Any, path: tuple[str | int, ...], item: Any) -> Any:
    """`value` with `item` at the end of the way; with DROP, without what was there."""
    if not path:
        return item
    copy = value.copy()
    if item is DROP and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = replaced(copy[path[0]], path[1:], item)
    return copy


DROP = object()
WORDS = [
    *LEVELS,
    "stop",
    "length",
    "cancelled",
    "failed",
    "chat",
    "completion",
    "user",
    "assistant",
    "gumbel/1",
    "gumbel/2",
    "foreign",
]


def alternatives(value: Any, rng: random.Random) -> list[Any]:
    """Other values for a place: of other types, neighbours, and of the same type and shape."""
    other: list[Any] = [None, True, False, 0, 1, -1, 2**53 - 1, "", "0", "x", "\u0000", [], {}, [[]], {"v": 1}, DROP]
    if isinstance(value, bool):
        return [*other, not value]
    if isinstance(value, int):
        return [*other, value + 1, value - 1, value * 2, str(value), [value]]
    if isinstance(value, dict):
        return [*other, value | {"extra": 1}, [*value.values()], dict(list(value.items())[1:])]
    if isinstance(value, list):
        return [*other, [*value, *value], value[::-1], [*value, None], dict(enumerate(map(str, value)))]
    other += [
        *WORDS,
        value + "A",
        value[:-1],
        value + " ",
        value.upper(),
        value.lower(),
        value[::-1],
        [value],
        "Ａ" + value[1:],
    ]
    for _ in range(6 if len(value) > 20 else 1):
        i = rng.randrange(max(len(value), 1))
        other.append(value[:i] + chr(rng.choice(ALPHABET)) + value[i + 1 :])
    return other


@pytest.mark.parametrize("level", LEVELS)
def test_mutated_values_never_hold(level: Any) -> None:
    """Every single value replaced by others, spelled canonically: what can still be read does not hold."""
    rng, bundle = random.Random(f"values {level}"), BUNDLES[level]
    good = json.loads(bundle.encode())
    outcomes: Counter[str] = Counter()
    for path, value in leaves(good):
        for item in alternatives(value, rng):
            if type(item) is type(value) and item == value:
                continue
            try:
                data = canonical(replaced(good, path, item))
            except EncodingError:  # a dictionary whose keys are no strings any more
                continue
            outcomes[outcome(data + b"\n")] += 1
    assert outcomes["not read"] > 500
    assert outcomes["does not hold"] > 250


def test_members_of_other_receipts_never_hold() -> None:
    """A bundle with any part, or any member of any part, of another honest bundle does not hold."""
    other_level = {level: LEVELS[i - 1] for i, level in enumerate(LEVELS)}
    second = {
        level: tiny_bundle(tiny_request("Another.", level=level, max_tokens=9), tiny_key(2), 4) for level in LEVELS
    }
    tried = 0
    for level in LEVELS:
        good = json.loads(BUNDLES[level].encode())
        for donor in (BUNDLES[other_level[level]], second[level], second[other_level[level]]):
            other = json.loads(donor.encode())
            for part in good:
                parts = [{part: other[part]}]
                if isinstance(good[part], dict):
                    parts += [{part: good[part] | {name: other[part][name]}} for name in good[part]]
                for change in parts:
                    if good | change != good:
                        outcome(canonical(good | change) + b"\n")
                        tried += 1
    assert tried > 130


def test_mutated_receipts_alone_never_hold() -> None:
    """A receipt by itself, as in an API reply: any change is not read or not signed."""
    rng = random.Random("receipts")
    data = BUNDLES["pinned"].receipt.encode()
    verify_signature(Receipt.from_json(parse_canonical(data, what="it")))
    unsigned = 0
    for mutate in (flip, overwrite, insert, delete, exchange, BYTES["respell"], BYTES["base64"], BYTES["duplicate"]):
        for _ in range(200):
            other = mutate(rng, data)
            if other == data:
                continue
            try:
                receipt = Receipt.from_json(parse_canonical(other, what="it"))
            except EncodingError:
                continue
            with pytest.raises(VerificationError):
                verify_signature(receipt)
            unsigned += 1
    assert unsigned > 100


def test_receipts_signed_again_by_a_stranger_do_not_hold() -> None:
    """Whoever changes a receipt can sign it with a key of their own only, and the receipt names the provider."""
    for bundle in BUNDLES.values():
        with pytest.raises(VerificationError):
            check_offline(replace(bundle, receipt=sign(bundle.receipt, tiny_key(3))))


def test_the_provider_s_own_lies_within_a_bundle_do_not_hold() -> None:
    """Even signed by the provider, a receipt that contradicts what stands beside it does not hold."""
    for bundle in BUNDLES.values():
        receipt = bundle.receipt
        lies: list[dict[str, Any]] = [{name: bytes(32)} for name in ("request", "profile", "output")]
        lies += [{"output_count": receipt.output_count + 1}, {"output_count": 0}, {"prompt_count": 2**32 - 1}]
        lies += [{"level": level} for level in LEVELS if level != receipt.level]
        if receipt.level in ("signed", "statistical"):
            lies.append({"evidence": bytes(32)})
        for lie in lies:
            with pytest.raises(VerificationError):
                check_offline(replace(bundle, receipt=sign(replace(receipt, **lie), KEY)))


def test_errors_are_ours() -> None:
    """Both kinds of refusal are AssayErrors, so that one `except` shows them all."""
    assert issubclass(EncodingError, AssayError)
    assert issubclass(VerificationError, AssayError)
