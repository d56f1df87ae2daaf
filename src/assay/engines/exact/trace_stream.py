"""A trace on its way from provider to auditor: the accumulators of one response's passes, read as they arrive.

    magic     MAGIC
    header    its length (4 bytes), then canonical JSON: what the trace is of
    roots     32 bytes for each pass, of its record: first the prompt's, then those of the output but the last
    public    if the trace is that: 32 bytes for each pass that is whole, see `chunks.accumulators_root`
    passes    those of the plan, in its order; each begins with its position (4 bytes) and its form (1 byte)
      whole     the digests of its record's chunks; the body's accumulators, then the head's if the pass had one: widths
                (1 byte a chunk), then the chunks
      kept      the first part of its record: keys and values; the root of the second

Lengths and positions are big-endian. The roots are checked against the receipt's evidence, and digests and chunks
against the roots. Of accumulators the receipt says nothing: the audit tests them, and computes the record from them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np

from assay.core.errors import AssayError, EncodingError, TraceMismatch
from assay.core.evidence import evidence_root
from assay.core.hashing import Digest
from assay.engines.exact.chunks import (
    Chunks,
    accumulators_root,
    chunk_count,
    encode_vector,
    packed_size,
)
from assay.engines.exact.record import (
    CHUNK,
    CHUNK_BYTES,
    both_parts,
    chunk_digests,
    digest_list,
    evidence_leaves,
    root_of,
    roots_of,
    roots_of_records,
)
from assay.engines.exact.trace_header import MAX_HEADER, Planned, TraceHeader

MAGIC: Final = b"assay/exact-trace/1\n"
"""How every trace begins; the number rises when anything in it changes."""
_WHOLE: Final = b"\x00"
_KEPT: Final = b"\x01"


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """A pass as the provider computed it."""

    record: np.ndarray
    """int16 [256 * chunks]."""
    body: np.ndarray
    """int64 [accumulators of all layers]."""
    head: np.ndarray | None
    """int64 [vocabulary]; None: logits were not wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class WholePass:
    """A pass to be audited."""

    position: int
    digests: np.ndarray
    """Of the record's chunks, uint8 [chunks, 32]: what the receipt commits to."""
    body: Chunks
    """The accumulators of all layers, yet to be tested."""
    head: Chunks | None
    """Those of the head; None: logits were not wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptPasses:
    """What later passes need of some, one after the other, that are not audited."""

    positions: range
    kept: np.ndarray
    """int16 [n, numbers]: the first parts of their records."""


Found: TypeAlias = WholePass | KeptPasses
"""What a reader gives."""
TOGETHER: Final = 16
"""Passes of one form that are checked at a time."""


def write_trace(
    header: TraceHeader,
    roots: Sequence[Digest],
    plan: Sequence[Planned],
    fetch: Callable[[int], Computed],
    *,
    accumulators: Sequence[Digest] = (),
) -> Iterator[bytes]:
    """The stream, block by block; `fetch` gives the pass at a position, and is asked for one at a time.

    `accumulators`: of a public trace, the root of each pass that is whole.
    """
    encoded = header.encode()
    yield MAGIC + len(encoded).to_bytes(4, "big") + encoded
    yield b"".join(roots)
    yield b"".join(accumulators)
    kept = header.layout.kept_chunks
    for planned in plan:
        found = fetch(planned.position)
        yield planned.position.to_bytes(4, "big") + (_WHOLE if planned.whole else _KEPT)
        chunks = found.record.reshape(-1, CHUNK)
        digests = chunk_digests(chunks)
        if planned.whole:
            yield digests.tobytes()
            for vector in (found.body, found.head):
                if vector is not None:
                    encoding = encode_vector(vector)
                    yield encoding.widths.tobytes()
                    yield encoding.data.tobytes()
        else:
            yield chunks[:kept].astype("<i2").tobytes()
            yield root_of(digests[kept:])


def read_roots(blocks: Iterable[bytes], passes: int) -> list[Digest]:
    """What the passes are committed to, from the beginning of a stream: unchecked, and no more is read than that.

    Raises:
        EncodingError: this is no beginning of a trace of so many passes.
        AssayError: whatever `blocks` raise.
    """
    data, head, size = bytearray(), len(MAGIC) + 4, 0
    for block in blocks:
        data += block
        if len(data) >= head:
            header = int.from_bytes(data[len(MAGIC) : head], "big")
            size = head + header + 32 * passes
            if data[: len(MAGIC)] != MAGIC or header > MAX_HEADER:
                break
            if len(data) >= size:
                return [bytes(data[i : i + 32]) for i in range(head + header, size, 32)]
    raise EncodingError("this is no beginning of a trace of that answer")


class TraceReader:
    """Reads a stream in blocks of any size; holds at most TOGETHER passes' bytes, or the roots, beside a block."""

    def __init__(self, header: TraceHeader, plan: Sequence[Planned], nonce: bytes) -> None:
        """Expect this trace: `header` and `plan` as the auditor has them from receipt and model;
        the provider decides whether it is public.
        """
        self.accumulators: tuple[Digest, ...] | None = None
        """Of a public trace, once they were read: the roots of the accumulators of whole passes."""
        self._expected: Final = header
        self._plan: Final = plan
        self._nonce: Final = nonce
        self._ready: list[Found] = []
        self._refused: AssayError | None = None
        self._buffer = bytearray()
        self._filled = 0
        self._parser: Final = self._parse()
        self._need: int | None = next(self._parser)
        """Bytes that the parser waits for; None: all is read."""

    def feed(self, block: bytes) -> list[Found]:
        """The passes that `block` completes, checked, in the plan's order.

        Raises:
            EncodingError: this is no trace, or more than was asked for.
            TraceMismatch: it is not the one that the receipt commits to. A reader that has refused stays so.
        """
        if self._refused is not None:
            raise self._refused
        try:
            self._advance(memoryview(block))
        except AssayError as error:
            self._refused = error
            raise
        ready = self._ready.copy()
        self._ready.clear()
        return ready

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            EncodingError: before everything was read.
        """
        if self._refused is not None:
            raise self._refused
        if self._need is not None:
            raise EncodingError(f"the trace ends {self._need - self._filled} bytes too early, or more")

    def _advance(self, block: memoryview) -> None:
        while self._need is not None:
            need = self._need
            if not self._filled and len(block) >= need:
                part, block = block[:need], block[need:]
            else:
                if not self._filled:
                    if not len(block):
                        return
                    if len(self._buffer) < need:
                        self._buffer = bytearray(need)
                take = min(need - self._filled, len(block))
                self._buffer[self._filled : self._filled + take] = block[:take]
                self._filled += take
                block = block[take:]
                if self._filled < need:
                    return
                part = memoryview(self._buffer)[:need]
            self._filled = 0
            try:
                self._need = self._parser.send(part)
            except StopIteration:
                self._need = None
        if len(block):
            raise EncodingError("the trace goes on behind its last pass")

    def _parse(self) -> Generator[int, memoryview, None]:
        """The grammar: yields how many bytes it wants, and is sent exactly those."""
        if (yield len(MAGIC)) != MAGIC:
            raise EncodingError("this is no trace of version 1")
        size = int.from_bytes((yield 4), "big")
        if size > MAX_HEADER:
            raise EncodingError(f"the trace's header is larger than {MAX_HEADER} bytes")
        served = TraceHeader.decode(bytes((yield size)))
        self._expected.require(served)
        expected = self._expected
        roots = digest_list(np.frombuffer((yield 32 * expected.passes), dtype=np.uint8))
        if evidence_root(evidence_leaves(roots, expected.prompt), self._nonce) != expected.evidence:
            raise TraceMismatch("the records' roots are not those that the receipt's evidence covers")
        whole = sum(planned.whole for planned in self._plan)
        if served.public:
            self.accumulators = tuple(digest_list(np.frombuffer((yield 32 * whole), dtype=np.uint8)))
        accumulators = iter(self.accumulators or ())
        for whole, group in groupby(self._plan, lambda planned: planned.whole):
            positions = [planned.position for planned in group]
            for start in range(0, len(positions), TOGETHER):
                part = positions[start : start + TOGETHER]
                check = self._whole(part, accumulators) if whole else self._kept(part)
                found, mine = yield from check
                for position, root in zip(part, mine, strict=True):
                    if root != roots[position]:
                        raise TraceMismatch(
                            f"the pass at position {position} is not the one that was committed to", position=position
                        )
                self._ready += found

    def _begin(self, position: int, form: bytes) -> Generator[int, memoryview, None]:
        if bytes((yield 5)) != position.to_bytes(4, "big") + form:
            raise EncodingError(f"another pass stands where that at position {position} should")

    def _whole(self, positions: Sequence[int], accumulators: Iterator[Digest]) -> _Checked:
        """Passes that are to be audited, and their roots."""
        expected, count = self._expected, self._expected.layout.chunks
        found: list[WholePass] = []
        for position in positions:
            yield from self._begin(position, _WHOLE)
            digests = np.frombuffer(bytes((yield 32 * count)), dtype=np.uint8).reshape(count, 32)
            body = yield from self._chunks(position, chunk_count(expected.body))
            head = None
            if expected.has_head(position):
                head = yield from self._chunks(position, chunk_count(expected.head))
            announced = next(accumulators, None)
            if announced is not None and accumulators_root(body, head) != announced:
                raise TraceMismatch(
                    f"the accumulators at position {position} are not those that were announced", position=position
                )
            found.append(WholePass(position, digests, body, head))
        return found, roots_of_records(expected.layout, np.stack([each.digests for each in found]))

    def _kept(self, positions: Sequence[int]) -> _Checked:
        """What is kept of passes, and their roots."""
        chunks = self._expected.layout.kept_chunks
        kept = np.empty((len(positions), CHUNK * chunks), np.int16)
        others: list[Digest] = []
        for row, position in zip(kept, positions, strict=True):
            yield from self._begin(position, _KEPT)
            row[:] = np.frombuffer((yield CHUNK_BYTES * chunks), dtype="<i2")
            others.append(bytes((yield 32)))
        mine = roots_of(chunk_digests(kept.reshape(-1, CHUNK)).reshape(len(kept), chunks, 32))
        run = KeptPasses(range(positions[0], positions[-1] + 1), kept)
        return [run], [both_parts(*parts) for parts in zip(mine, others, strict=True)]

    def _chunks(self, position: int, count: int) -> Generator[int, memoryview, Chunks]:
        widths = np.frombuffer(bytes((yield count)), dtype=np.uint8)
        try:
            size = packed_size(widths)
        except EncodingError as error:
            raise EncodingError(f"the pass at position {position}: {error.message}") from error
        data = yield size
        return Chunks(widths, np.frombuffer(bytes(data) if data.obj is self._buffer else data, dtype=np.uint8))


_Checked: TypeAlias = Generator[int, memoryview, tuple[Sequence[Found], list[Digest]]]
