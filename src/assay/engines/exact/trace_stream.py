"""A trace on its way from provider to auditor: the accumulators of one response's passes, read as they arrive.

    magic     MAGIC
    header    its length (4 bytes), then canonical JSON: what the trace is of
    leaves    32 bytes for each pass: first the prompt's, then one for each output token that was fed back
    passes    those of the plan, in its order; each begins with its position (4 bytes) and its form (1 byte)
      whole     the body, then the head if the pass had one: widths (1 byte a chunk), then the chunks
      kept      the chunks that hold keys and values, likewise; the digests of all other chunks of the body;
                the root of the head if the pass had one

Lengths and positions are big-endian. The leaves are checked against the receipt's evidence and each pass against its
leaf, so a reader gives nothing that was not committed to. An audit of some passes needs of the ones before them only
what attention keeps, the form for which is an eighth of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from assay.core.errors import AssayError, EncodingError, TraceMismatch
from assay.core.evidence import evidence_root
from assay.core.hashing import ZERO, Digest
from assay.engines.exact.accumulators import CHUNK, chunk_count, evidence_leaves, token_leaf
from assay.engines.exact.chunks import (
    Chunks,
    decode_chunks,
    decode_vector,
    digest_list,
    encode_vector,
    packed_size,
    root_of,
)
from assay.engines.exact.trace_header import MAX_HEADER, Planned, TraceHeader

MAGIC: Final = b"assay/exact-trace/1\n"
"""How every trace begins; the number rises when anything in it changes."""
_WHOLE: Final = b"\x00"
_KEPT: Final = b"\x01"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPass:
    """The encoded accumulators of a pass, as a provider has them."""

    body: Chunks
    head: Chunks | None

    @classmethod
    def of(cls, body: np.ndarray, head: np.ndarray | None) -> EncodedPass:
        """Encode int64 [body size] and, where it had one, int64 [vocabulary]."""
        return cls(encode_vector(body), None if head is None else encode_vector(head))

    @property
    def leaf(self) -> Digest:
        """What it is committed to."""
        return token_leaf(self.body.root(), ZERO if self.head is None else self.head.root())


@dataclass(frozen=True, slots=True, eq=False)
class WholePass:
    """A pass to be audited."""

    position: int
    body: np.ndarray
    """int64 [body size]."""
    head: np.ndarray | None
    """int64 [vocabulary]; None: logits were not wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptPass:
    """What later passes need of one that is not audited."""

    position: int
    body: np.ndarray
    """int64 [body size]; only at `Layout.kept_spans` there is what the pass committed to."""


Pass: TypeAlias = WholePass | KeptPass
"""What a reader gives."""


def write_trace(
    header: TraceHeader, leaves: Sequence[Digest], plan: Sequence[Planned], fetch: Callable[[int], EncodedPass]
) -> Iterator[bytes]:
    """The stream, block by block; `fetch` gives the pass at a position, and is asked for one at a time."""
    encoded = header.encode()
    yield MAGIC + len(encoded).to_bytes(4, "big") + encoded
    yield b"".join(leaves)
    kept = header.layout.kept_chunks()
    for planned in plan:
        found = fetch(planned.position)
        yield planned.position.to_bytes(4, "big") + (_WHOLE if planned.whole else _KEPT)
        if planned.whole:
            for vector in (found.body, found.head):
                if vector is not None:
                    yield vector.widths.tobytes()
                    yield vector.data.tobytes()
        else:
            chosen = found.body.chosen(kept)
            yield chosen.widths.tobytes()
            yield chosen.data.tobytes()
            yield np.delete(found.body.digests(), kept, axis=0).tobytes()
            yield b"" if found.head is None else found.head.root()


class TraceReader:
    """Reads a stream in blocks of any size; holds at most one pass's bytes, or the leaves, beside a block."""

    def __init__(self, header: TraceHeader, plan: Sequence[Planned], nonce: bytes) -> None:
        """Expect this trace: `header` and `plan` as the auditor has them from receipt and model."""
        self._expected: Final = header
        self._plan: Final = plan
        self._nonce: Final = nonce
        self._body: Final = header.layout.body
        self._kept: Final = header.layout.kept_chunks()
        self._others: Final = np.setdiff1d(np.arange(chunk_count(self._body)), self._kept)
        self._ready: list[Pass] = []
        self._refused: AssayError | None = None
        self._buffer = bytearray()
        self._filled = 0
        self._parser: Final = self._parse()
        self._need: int | None = next(self._parser)
        """Bytes that the parser waits for; None: all is read."""

    def feed(self, block: bytes) -> list[Pass]:
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
                    self._buffer = bytearray(need)
                take = min(need - self._filled, len(block))
                self._buffer[self._filled : self._filled + take] = block[:take]
                self._filled += take
                block = block[take:]
                if self._filled < need:
                    return
                part = memoryview(self._buffer)
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
        self._expected.require(TraceHeader.decode(bytes((yield size))))
        leaves = digest_list(np.frombuffer((yield 32 * self._expected.passes), dtype=np.uint8))
        if evidence_root(evidence_leaves(leaves, self._expected.prompt), self._nonce) != self._expected.evidence:
            raise TraceMismatch("the passes' leaves are not those that the receipt's evidence covers")
        for planned in self._plan:
            place = bytes((yield 5))
            if place != planned.position.to_bytes(4, "big") + (_WHOLE if planned.whole else _KEPT):
                raise EncodingError(f"another pass stands where that at position {planned.position} should")
            try:
                found, leaf = (
                    yield from self._whole(planned.position) if planned.whole else self._part(planned.position)
                )
            except EncodingError as error:
                raise EncodingError(f"the pass at position {planned.position}: {error.message}") from error
            if leaf != leaves[planned.position]:
                raise TraceMismatch(
                    f"the pass at position {planned.position} is not the one that was committed to",
                    position=planned.position,
                )
            self._ready.append(found)

    def _whole(self, position: int) -> Generator[int, memoryview, tuple[Pass, Digest]]:
        body, body_root = yield from self._vector(self._body)
        if not self._expected.has_head(position):
            return WholePass(position, body, None), token_leaf(body_root)
        head, head_root = yield from self._vector(self._expected.layout.head)
        return WholePass(position, body, head), token_leaf(body_root, head_root)

    def _vector(self, size: int) -> Generator[int, memoryview, tuple[np.ndarray, Digest]]:
        packed = yield from self._chunks(chunk_count(size))
        return decode_vector(packed, size), packed.root()

    def _chunks(self, count: int) -> Generator[int, memoryview, Chunks]:
        widths = bytes((yield count))
        return Chunks.of(widths, (yield packed_size(np.frombuffer(widths, dtype=np.uint8))))

    def _part(self, position: int) -> Generator[int, memoryview, tuple[Pass, Digest]]:
        packed = yield from self._chunks(len(self._kept))
        count = len(self._kept) + len(self._others)
        body = np.zeros((count, CHUNK), dtype=np.int64)
        body[self._kept] = decode_chunks(packed).reshape(-1, CHUNK)
        digests = np.empty((count, 32), dtype=np.uint8)
        digests[self._kept] = packed.digests()
        digests[self._others] = np.frombuffer((yield 32 * len(self._others)), dtype=np.uint8).reshape(-1, 32)
        head_root = bytes((yield 32)) if self._expected.has_head(position) else ZERO
        vector = body.reshape(-1)
        if vector[self._body :].any():
            raise EncodingError("the last chunk of accumulators is not filled up with zeros")
        return KeptPass(position, vector[: self._body]), token_leaf(root_of(digests), head_root)
