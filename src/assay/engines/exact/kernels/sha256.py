"""SHA-256 (FIPS 180-4) of many messages at once: sixteen side by side, one in each lane of AVX-512's registers.

Written as LLVM IR, because numba has no vectors. LLVM turns the funnel shifts into rotations; `vpternlogd` computes the
three Boolean functions in one instruction each. Where the processor lacks AVX-512, hashlib gives the same digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from itertools import islice
from math import isqrt
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import njit, types

from assay.core.hashing import Tag, prefix
from assay.engines.exact.kernels.emit import compiled_for, declared, generated

LANES: Final = 16
_BLOCK: Final = 64
_BYTE: Final = ir.IntType(8)
_WORD: Final = ir.IntType(32)
_LONG: Final = ir.IntType(64)
_VECTOR: Final = ir.VectorType(_WORD, LANES)
_AHEAD: Final = 256
"""Bytes that are fetched before they are needed."""
_XOR3: Final = 0x96
"""Truth tables of `vpternlogd`: x ^ y ^ z, then FIPS 180-4's Ch and Maj."""
_CHOOSE: Final = 0xCA
_MAJORITY: Final = 0xE8


def _primes() -> list[int]:
    sieve = (n for n in range(2, 312) if all(n % d for d in range(2, isqrt(n) + 1)))
    return list(islice(sieve, 64))


def _cube_root(n: int) -> int:
    low, high = 0, 1 << 36
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= n else (low, middle)
    return low


_ROUND: Final = tuple(_cube_root(p << 96) & 0xFFFFFFFF for p in _primes())
"""The first 32 bits of the fractional parts of the cube roots of the first 64 primes."""
_INITIAL: Final = np.array([isqrt(p << 64) & 0xFFFFFFFF for p in _primes()[:8]], dtype=np.uint32)
"""Likewise of the square roots of the first eight."""


@cache
def side_by_side() -> bool:
    """Whether the sixteen lanes can be used."""
    return compiled_for("avx512f", "avx512bw")


def tagged_digests(tag: Tag, data: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The tagged digests of n messages that stand one behind the other: uint8 [n, 32].

    Message i has 64 · `blocks[i]` bytes (uint8 [n]) of `data`, uint8, contiguous.
    """
    if not side_by_side():
        return _one_by_one(tag, data, blocks)
    out = np.empty((len(blocks), 8), dtype=np.uint32)
    _digest_all(data.ctypes.data, blocks, _midstate(tag), out)
    return out.view(np.uint8)


def _one_by_one(tag: Tag, data: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    start, view, at = hashlib.sha256(prefix(tag)), data.data, 0
    digests: list[bytes] = []
    for count in blocks.tolist():
        state = start.copy()
        state.update(view[at : at + _BLOCK * count])
        digests.append(state.digest())
        at += _BLOCK * count
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


@cache
def _midstate(tag: Tag) -> np.ndarray:
    """The state behind the block that precedes everything under a tag: uint32 [8]."""
    state = np.repeat(_INITIAL[:, None], LANES, axis=1)
    block = np.frombuffer(prefix(tag), dtype=np.uint8)
    lanes = np.full(LANES, block.ctypes.data, dtype=np.int64)
    _run(state, lanes, 1)
    return np.ascontiguousarray(state[:, 0])


class _Writer:
    """FIPS 180-4's functions of sixteen words each, as instructions."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self._builder = builder
        self._turn = declared(builder, "llvm.fshr.v16i32", _VECTOR, [_VECTOR] * 3)
        self._logic = declared(builder, "llvm.x86.avx512.pternlog.d.512", _VECTOR, [*[_VECTOR] * 3, _WORD])
        self._swap = declared(builder, "llvm.bswap.v16i32", _VECTOR, [_VECTOR])
        self._fetch = declared(builder, "llvm.prefetch.p0", ir.VoidType(), [_BYTE.as_pointer(), *[_WORD] * 3])

    def fetch(self, address: ir.Value) -> None:
        """Have a line of memory in the cache soon: sixteen messages are more than the processor foresees itself."""
        place = self._builder.inttoptr(address, _BYTE.as_pointer())
        self._builder.call(self._fetch, [place, *(ir.Constant(_WORD, how) for how in (0, 3, 1))])

    def _rotated(self, x: ir.Value, by: int) -> ir.Value:
        return self._builder.call(self._turn, [x, x, _splat(by)])

    def logic(self, x: ir.Value, y: ir.Value, z: ir.Value, table: int) -> ir.Value:
        return self._builder.call(self._logic, [x, y, z, ir.Constant(_WORD, table)])

    def swapped(self, x: ir.Value) -> ir.Value:
        """Little-endian words from big-endian ones."""
        return self._builder.call(self._swap, [x])

    def big_sigma(self, x: ir.Value, turns: tuple[int, int, int]) -> ir.Value:
        a, b, c = (self._rotated(x, by) for by in turns)
        return self.logic(a, b, c, _XOR3)

    def small_sigma(self, x: ir.Value, first: int, second: int, shift: int) -> ir.Value:
        shifted = self._builder.lshr(x, _splat(shift))
        return self.logic(self._rotated(x, first), self._rotated(x, second), shifted, _XOR3)

    def sum(self, first: ir.Value, *rest: ir.Value) -> ir.Value:
        for x in rest:
            first = self._builder.add(first, x)
        return first

    def transposed(self, rows: list[ir.Value]) -> list[ir.Value]:
        """Word i of each row, for every i: four rounds of exchanges between rows 8, 4, 2 and 1 apart."""
        for distance in (8, 4, 2, 1):
            keep = [LANES + (k ^ distance) if k & distance else k for k in range(LANES)]
            take = [LANES + k if k & distance else k | distance for k in range(LANES)]
            for i in range(LANES):
                if not i & distance:
                    pair = rows[i], rows[i | distance]
                    rows[i], rows[i | distance] = (
                        self._builder.shuffle_vector(*pair, ir.Constant(_VECTOR, mask)) for mask in (keep, take)
                    )
        return rows

    def rounds(self, state: list[ir.Value], words: list[ir.Value]) -> list[ir.Value]:
        """The state after a block (FIPS 180-4, section 6.2.2); `words` are used up."""
        a, b, c, d, e, f, g, h = state
        for i, constant in enumerate(_ROUND):
            word = words[i % 16]
            if i >= 16:
                word = words[i % 16] = self.sum(
                    word,
                    self.small_sigma(words[(i + 1) % 16], 7, 18, 3),
                    words[(i + 9) % 16],
                    self.small_sigma(words[(i + 14) % 16], 17, 19, 10),
                )
            sigma = self.sum(self.big_sigma(e, (6, 11, 25)), self.logic(e, f, g, _CHOOSE))
            first = self.sum(self.sum(h, _splat(constant), word), sigma)
            second = self.sum(self.big_sigma(a, (2, 13, 22)), self.logic(a, b, c, _MAJORITY))
            a, b, c, d, e, f, g, h = self.sum(first, second), a, b, c, self.sum(d, first), e, f, g
        return [self.sum(old, new) for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def _splat(word: int) -> ir.Constant:
    return ir.Constant(_VECTOR, [word] * LANES)


@generated
def _compress(context: Any, state: Any, lanes: Any, offset: Any) -> tuple[Any, Callable[..., Any]]:
    """One block of sixteen messages: `state` is the address of uint32 [8, 16], `lanes` that of their int64 [16]."""

    def generate(target: Any, builder: ir.IRBuilder, _: Any, arguments: list[ir.Value]) -> ir.Value:
        write = _Writer(builder)
        states = builder.inttoptr(arguments[0], _VECTOR.as_pointer())
        addresses = builder.inttoptr(arguments[1], _LONG.as_pointer())
        rows: list[ir.Value] = []
        for lane in range(LANES):
            start = builder.load(builder.gep(addresses, [ir.Constant(_LONG, lane)]))
            block = builder.inttoptr(builder.add(start, arguments[2]), _VECTOR.as_pointer())
            write.fetch(builder.add(builder.add(start, arguments[2]), ir.Constant(_LONG, _AHEAD)))
            rows.append(write.swapped(builder.load(block, align=1)))
        places = [builder.gep(states, [ir.Constant(_LONG, i)]) for i in range(8)]
        before = [builder.load(place, align=4) for place in places]
        for place, after in zip(places, write.rounds(before, write.transposed(rows)), strict=True):
            builder.store(after, place, align=4)
        return target.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp), generate


@njit(nogil=True, cache=True)
def _run(state: np.ndarray, lanes: np.ndarray, blocks: int) -> None:
    """So many blocks of sixteen messages at the addresses `lanes`, int64 [16]; `state` is uint32 [8, 16]."""
    for block in range(blocks):
        _compress(np.uintp(state.ctypes.data), np.uintp(lanes.ctypes.data), block * _BLOCK)


@njit(nogil=True, cache=True)
def _digest_all(address: int, blocks: np.ndarray, midstate: np.ndarray, out: np.ndarray) -> None:
    """See `tagged_digests`; the messages are at `address`, `out` is uint32 [n, 8]."""
    start = np.empty(len(blocks), np.int64)
    begin = np.zeros(257, np.int64)
    at = np.int64(address)
    for i in range(len(blocks)):
        start[i] = at
        at += np.int64(blocks[i]) * _BLOCK
        begin[np.int64(blocks[i]) + 1] += 1
    order = np.empty(len(blocks), np.int64)
    begin = np.cumsum(begin)
    for i in range(len(blocks)):
        order[begin[blocks[i]]] = i
        begin[blocks[i]] += 1
    state = np.empty((8, LANES), np.uint32)
    lanes = np.empty(LANES, np.int64)
    last = np.zeros(_BLOCK, np.uint8)
    padding = np.full(LANES, np.int64(last.ctypes.data))
    last[0] = 0x80
    done = 0
    while done < len(order):
        size = np.int64(blocks[order[done]])
        end = min(done + LANES, begin[size])
        for lane in range(LANES):  # idle ones do what the last one does
            lanes[lane] = start[order[min(done + lane, end - 1)]]
        for i in range(8):
            state[i, :] = midstate[i]
        _run(state, lanes, int(size))
        bits = (size + 1) * (8 * _BLOCK)  # with the tag's block
        for i in range(8):
            last[_BLOCK - 1 - i] = np.uint8(bits >> (8 * i))
        _run(state, padding, 1)
        for lane in range(end - done):
            for i in range(8):
                x = state[i, lane]
                out[order[done + lane], i] = (x << 24) | ((x & 0xFF00) << 8) | ((x >> 8) & 0xFF00) | (x >> 24)
        done = end
