"""Traces on their way: what is committed to arrives, and nothing else is read."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.exact.trace_kit import BODY, HEAD, LAYOUT, NONCE, accumulators_of, header_of, passes_of, roots_of

from assay.core.encoding import canonical
from assay.core.errors import EncodingError, TraceMismatch
from assay.engines.exact.chunks import decode_vector
from assay.engines.exact.record import chunk_digests
from assay.engines.exact.trace_header import MAX_HEADER, Planned, TraceHeader
from assay.engines.exact.trace_stream import (
    MAGIC,
    Computed,
    Found,
    TraceReader,
    WholePass,
    write_trace,
)

PASSES = passes_of(3, 3)
HEADER = header_of(3, 3, PASSES)
ROOTS = roots_of(PASSES)
PUBLIC = header_of(3, 3, PASSES, public=True)
ALL = HEADER.plan(range(5))
SOME = HEADER.plan([1, 3])


def written(plan: Sequence[Planned], passes: Sequence[Computed] = PASSES, header: TraceHeader = HEADER) -> bytes:
    """A whole stream."""
    whole = [passes[planned.position] for planned in plan if planned.whole] if header.public else []
    return b"".join(write_trace(header, ROOTS, plan, passes.__getitem__, accumulators=accumulators_of(whole)))


def read(data: bytes, plan: Sequence[Planned], size: int = 1 << 20, header: TraceHeader = HEADER) -> list[Found]:
    """Everything in it, fed in blocks of a size."""
    reader = TraceReader(header, plan, NONCE)
    found = [item for i in range(0, len(data), size) for item in reader.feed(data[i : i + size])]
    reader.finish()
    return found


def forms(found: Sequence[Found]) -> list[tuple[int, bool]]:
    """Positions, and whether they are there whole."""
    each = [[(x.position, True)] if isinstance(x, WholePass) else [(n, False) for n in x.positions] for x in found]
    return [one for some in each for one in some]


def check(found: Sequence[Found], plan: Sequence[Planned]) -> None:
    """These are the passes of the plan, each in its form."""
    assert forms(found) == list(plan)
    for item in found:
        if isinstance(item, WholePass):
            made = PASSES[item.position]
            assert (decode_vector(item.body, BODY) == made.body).all()
            assert (item.head is None) == (made.head is None)
            if item.head is not None and made.head is not None:
                assert (decode_vector(item.head, HEAD) == made.head).all()
            assert (item.digests == chunk_digests(made.record.reshape(-1, 256))).all()
        else:
            for position, kept in zip(item.positions, item.kept, strict=True):
                assert (kept == PASSES[position].record[: LAYOUT.kept_chunks * 256]).all()


@pytest.mark.parametrize("header", [HEADER, PUBLIC], ids=["secret", "public"])
@pytest.mark.parametrize("plan", [ALL, SOME, HEADER.plan([4]), HEADER.plan([0])], ids=["all", "some", "last", "first"])
def test_what_is_written_is_read(plan: Sequence[Planned], header: TraceHeader) -> None:
    """Whole passes with and without a head, and keys and values of those before, in blocks of any size."""
    data = written(plan, header=header)
    for size in (1, 7, 1000, 4096, len(data)) if plan is SOME else (4096, len(data)):
        check(read(data, plan, size, header), plan)


def test_a_plan_is_all_that_later_passes_need() -> None:
    """Up to the last audited position, audited or not, and nothing behind it."""
    assert SOME == ((0, False), (1, True), (2, False), (3, True))
    assert all(planned.whole for planned in ALL)
    for audited in ([], [-1], [5], [0, 5]):
        with pytest.raises(EncodingError, match="0 to 4"):
            HEADER.plan(audited)


def test_every_truncation_is_noticed() -> None:
    """At each byte of the frame and many of the chunks: what was complete is given, the end is refused."""
    data = written(SOME)
    cuts = {*range(900), *range(900, len(data), 97), len(data) - 1}
    for cut in sorted(cuts):
        reader = TraceReader(HEADER, SOME, NONCE)
        found = reader.feed(data[:cut])
        check(found, SOME[: len(forms(found))])
        with pytest.raises(EncodingError, match="too early"):
            reader.finish()


@pytest.mark.parametrize("plan", [ALL, SOME], ids=["all", "some"])
def test_mutations_of_a_public_trace_never_pass(plan: Sequence[Planned]) -> None:
    """Flipped bits, and slices cut out, doubled and exchanged, everywhere: refused by an error of ours."""
    rng, data = random.Random(f"{len(plan)}"), written(plan, header=PUBLIC)
    frame = len(MAGIC) + 1000
    for i in range(600):
        a, b, c = sorted(rng.randrange(len(data) if i % 2 else frame) for _ in range(3))
        other = [
            data[:a] + bytes([data[a] ^ 1 << rng.randrange(8)]) + data[a + 1 :],
            data[:a] + data[b:],
            data[:b] + data[a:b] + data[b:],
            data[:a] + data[b:c] + data[a:b] + data[c:],
            data[:a] + rng.randbytes(b - a) + data[b:],
        ][i % 5]
        if other == data:
            continue
        with pytest.raises((EncodingError, TraceMismatch)):
            read(other, plan, rng.choice([500, 1 << 20]), PUBLIC)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_anything_at_all(noise: bytes, keep: int) -> None:
    """Noise behind any beginning of a trace."""
    with pytest.raises((EncodingError, TraceMismatch)):
        read(written(SOME)[:keep] + noise, SOME)


@settings(deadline=None, max_examples=200)
@given(st.randoms(use_true_random=False))
def test_mutations_of_a_secret_trace_never_crash(rng: random.Random) -> None:
    """What the audit has to test is read, or refused by an error of ours."""
    data = bytearray(written(SOME))
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    with suppress(EncodingError, TraceMismatch):
        read(bytes(data), SOME, rng.choice([500, 1 << 20]))


def test_other_activations_are_refused_with_their_position() -> None:
    """A record that was not committed to, in either form."""
    for plan in (ALL, SOME):
        for planned in plan:
            other = PASSES[planned.position].record.copy()
            other[40] ^= 1
            forged = [*PASSES]
            forged[planned.position] = replace(PASSES[planned.position], record=other)
            with pytest.raises(TraceMismatch) as caught:
                read(written(plan, forged), plan)
            assert caught.value.position == planned.position


def test_accumulators_other_than_those_announced_are_refused() -> None:
    """In a public trace, the audit's numbers follow from them."""
    data = written(ALL, header=PUBLIC)
    forged = [replace(each, body=each.body + (i == 3)) for i, each in enumerate(PASSES)]
    other = written(ALL, forged, header=PUBLIC)
    start = len(MAGIC) + 4 + len(PUBLIC.encode()) + 32 * 5
    with pytest.raises(TraceMismatch) as caught:
        read(data[: start + 160] + other[start + 160 :], ALL, header=PUBLIC)
    assert caught.value.position == 3


def test_passes_in_another_order_form_or_number_are_refused() -> None:
    """The stream is exactly what was asked for."""
    for plan in (ALL[::-1], ALL[1:], HEADER.plan([4]), (ALL[0], *ALL)):
        with pytest.raises(EncodingError, match="another pass"):
            read(written(plan), ALL)
    with pytest.raises(EncodingError, match="behind its last"):
        read(written(ALL), ALL[:2])
    with pytest.raises(EncodingError, match="too early"):
        read(written(ALL[:2]), ALL)


def test_a_trace_of_something_else_is_refused() -> None:
    """Another receipt, another model, another nonce: named."""
    data = written(SOME)
    for other, named in (
        (replace(HEADER, evidence=bytes(32)), "evidence"),
        (replace(HEADER, prompt=2, output=4), "prompt, output"),
        (replace(HEADER, head=778), "head"),
    ):
        with pytest.raises(TraceMismatch, match=named):
            read(data, SOME, header=other)
    with pytest.raises(TraceMismatch, match="roots"):
        TraceReader(HEADER, SOME, bytes(32)).feed(data)


def test_a_reader_that_has_refused_stays_so() -> None:
    """Nothing can be fed behind an error, and the end is not the end of a trace."""
    reader = TraceReader(HEADER, SOME, NONCE)
    with pytest.raises(EncodingError):
        reader.feed(b"x" * 100)
    for step in (lambda: reader.feed(written(SOME)), reader.finish):
        with pytest.raises(EncodingError, match="no trace"):
            step()


def test_memory_is_bounded_by_what_is_expected() -> None:
    """A header is refused by its announced length, chunks by widths that do not exist: before anything is kept."""
    with pytest.raises(EncodingError, match="larger than"):
        TraceReader(HEADER, SOME, NONCE).feed(MAGIC + (MAX_HEADER + 1).to_bytes(4, "big"))
    data = written(ALL)
    start = len(MAGIC) + 4 + len(HEADER.encode()) + 32 * 5 + 5 + 32 * LAYOUT.chunks
    with pytest.raises(EncodingError, match=r"position 0: .*width"):
        TraceReader(HEADER, ALL, NONCE).feed(data[:start] + b"\xff" * 25)


def test_headers() -> None:
    """What is encoded is decoded; other members, numbers out of range and wrong sums are refused."""
    assert TraceHeader.decode(HEADER.encode()) == HEADER
    good = json.loads(HEADER.encode())
    changes = [
        *({"prompt": wrong} for wrong in (0, 2**20 + 1, "3", True, None)),
        *({name: wrong} for name in ("layers", "body", "head", "width") for wrong in (0, 2**32 + 1, [1], None, True)),
        *({"public": wrong} for wrong in (0, 1, None)),
        *({"evidence": wrong} for wrong in ("AA", 1)),
        {"output": 0},
        {"more": 1},
    ]
    for change in changes:
        with pytest.raises(EncodingError):
            TraceHeader.decode(canonical(good | change))
    for data in (b"", b"[]", HEADER.encode() + b" ", b"\xff", canonical({"body": 1})):
        with pytest.raises(EncodingError):
            TraceHeader.decode(data)
