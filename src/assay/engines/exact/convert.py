"""From a GGUF file to the integer model: deterministic to the bit, whatever machine converts."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from decimal import Decimal
from math import isqrt, prod
from pathlib import Path
from typing import Final

import numpy as np

from assay.core.errors import ModelFileError
from assay.engines.exact.affine import Matrix, read_matrix
from assay.engines.exact.dispute.shape import LayerShape
from assay.engines.exact.reference import RESIDUAL, Gain, Layer, Model
from assay.engines.exact.tables import turns_per_position
from assay.engines.gguf_file import GgufHeader, Scalar, TensorInfo, inspect

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3", "gemma3")
"""Values of `general.architecture` that are understood."""
MOST_WIDTH: Final = 1 << 13
"""Widest residual stream: sums of squares stay under 2^62."""
_HALVES: Final = ("qwen2", "qwen3", "gemma3")
"""Pair dimension i of a head with i + width/2 in position encoding, the others 2i with 2i + 1 (llama-model.cpp)."""
_LOG2_E_24: Final = Decimal("1.442695040888963407359924681001892137") * (1 << 24)
_MOST_EPSILON: Final = 0.5
"""Largest number under the root of a normalisation: with it, sums of squares stay under 2^62."""
_F32: Final = 0


def convert(path: Path) -> Model:
    """Read a GGUF file into an integer model.

    Raises:
        ModelFileError: the file is damaged, or of an architecture or format that is not understood.
    """
    return _Converter(path, inspect(path)).model()


class _Converter:
    def __init__(self, path: Path, header: GgufHeader) -> None:
        self._path = path
        self._meta: Mapping[str, Scalar] = header.metadata
        self._tensors: Mapping[str, TensorInfo] = {tensor.name: tensor for tensor in header.tensors}
        self._data = np.memmap(path, np.uint8, "r")
        self._start = header.data_offset
        self._kind = header.architecture
        if self._kind not in ARCHITECTURES:
            raise self._fail(
                f"the architecture {self._kind[:40]!r} is not understood", f"use one of {', '.join(ARCHITECTURES)}"
            )
        scaling = str(self._meta.get(f"{self._kind}.rope.scaling.type", "none"))
        if scaling not in ("none", "") and "rope_freqs.weight" not in self._tensors:
            raise self._fail(f"the position scaling {scaling[:40]!r} is not understood", "use another model")

    def model(self) -> Model:
        width, heads = self._count("embedding_length"), self._count("attention.head_count")
        kv_heads = self._count("attention.head_count_kv", heads)
        head_width = self._count("attention.key_length", width // heads)
        if width > MOST_WIDTH or heads % kv_heads or head_width % 16 or head_width > 512:
            raise self._fail(f"{heads} heads of {head_width} on a width of {width} cannot be", "fetch the file again")
        if self._count("rope.dimension_count", head_width) != head_width:
            raise self._fail("only a part of each head has positions", "use another model")
        embedding = self._matrix("token_embd.weight", width)
        gemma = self._kind == "gemma3"
        layers = [self._layer(n, width, heads, kv_heads, head_width) for n in range(self._count("block_count"))]
        if len({LayerShape.of(layer).presence for layer in layers}) > 1:  # a layer's place follows from its number
            raise self._fail("its layers do not all have the same normalisations and biases", "use another model")
        return Model(
            embedding=embedding,
            layers=layers,
            norm=self._gain("output_norm.weight", width),
            head=self._matrix("output.weight", width, embedding.shape[0])
            if "output.weight" in self._tensors
            else embedding,
            heads=heads,
            kv_heads=kv_heads,
            head_width=head_width,
            epsilon=_whole(self._number("attention.layer_norm_rms_epsilon"), 32),
            score_scale=int((_LOG2_E_24 / Decimal(head_width).sqrt()).to_integral_value()),
            halves=self._kind in _HALVES,
            gate="gelu" if gemma else "silu",
            embedding_scale=isqrt(width << 32) if gemma else 0,
        )

    def _layer(self, number: int, width: int, heads: int, kv_heads: int, head_width: int) -> Layer:
        at = f"blk.{number}."
        inner, kv = heads * head_width, kv_heads * head_width
        feed = self._count("feed_forward_length")
        window, base = 0, self._decimal("rope.freq_base", Decimal(10_000))
        if (
            self._kind == "gemma3" and (number + 1) % 6
        ):  # five of six layers see a window (llama-model.cpp, LLM_ARCH_GEMMA3)
            window, base = self._count("attention.sliding_window", 0), Decimal(10_000)

        def bias(name: str, size: int) -> np.ndarray | None:
            found = at + name
            return self._vector(found, size, RESIDUAL) if found in self._tensors else None

        def gain(name: str, size: int) -> Gain | None:
            return self._gain(at + name, size) if at + name in self._tensors else None

        return Layer(
            attention_norm=self._gain(at + "attn_norm.weight", width),
            query=self._matrix(at + "attn_q.weight", width, inner),
            key=self._matrix(at + "attn_k.weight", width, kv),
            value=self._matrix(at + "attn_v.weight", width, kv),
            output=self._matrix(at + "attn_output.weight", inner, width),
            feed_norm=self._gain(at + "ffn_norm.weight", width),
            gate=self._matrix(at + "ffn_gate.weight", width, feed),
            up=self._matrix(at + "ffn_up.weight", width, feed),
            down=self._matrix(at + "ffn_down.weight", feed, width),
            query_bias=bias("attn_q.bias", inner),
            key_bias=bias("attn_k.bias", kv),
            value_bias=bias("attn_v.bias", kv),
            query_norm=gain("attn_q_norm.weight", head_width),
            key_norm=gain("attn_k_norm.weight", head_width),
            attention_after=gain("post_attention_norm.weight", width),
            feed_after=gain("post_ffw_norm.weight", width),
            window=window,
            turns=turns_per_position(base, head_width // 2, self._factors(head_width // 2)),
        )

    def _matrix(self, name: str, columns: int, rows: int = 0) -> Matrix:
        info = self._info(name)
        if len(info.shape) < 2 or info.shape[0] != columns or (rows and prod(info.shape[1:]) != rows):
            raise self._fail(f"{name} has the shape {info.shape}, not {(columns, rows or '…')}", "fetch the file again")
        data = self._bytes(info).reshape(prod(info.shape[1:]), -1)
        return read_matrix(data, info.kind, columns, name)

    def _floats(self, name: str, size: int) -> np.ndarray:
        """An F32 tensor's numbers as float64, which holds them all."""
        info = self._info(name)
        if info.kind != _F32 or prod(info.shape) != size:
            raise self._fail(f"{name} is not {size} numbers in F32", "use another file")
        values = self._bytes(info).view("<f4").astype(np.float64)
        if not np.isfinite(values).all():
            raise self._fail(f"{name} has numbers that are none", "fetch the file again")
        return values

    def _gain(self, name: str, size: int) -> Gain:
        """The weights times sqrt(size), so that the largest has 15 bits."""
        values = self._floats(name, size)
        _, exponent = np.frexp(np.abs(values).max())
        whole = np.ldexp(values, 40 - int(exponent)).astype(np.int64)  # under 2^40
        scaled = [int(w) * isqrt(size << 40) for w in whole]  # 2^20 sqrt(size)
        excess = max(0, max(abs(w) for w in scaled).bit_length() - 15)
        half = 1 << excess >> 1
        weight = np.array([max(-32767, min(32767, (w + half) >> excess)) for w in scaled], dtype=np.int64)
        return Gain(weight, 40 - int(exponent) + 20 - excess)

    def _vector(self, name: str, size: int, fraction: int) -> np.ndarray:
        whole = np.rint(np.ldexp(self._floats(name, size), fraction))
        if np.abs(whole).max(initial=0) >= 1 << 31:
            raise self._fail(f"{name} has numbers of over 2^15", "its biases are not those of a real model")
        return whole.astype(np.int64)

    def _factors(self, size: int) -> tuple[Decimal, ...]:
        """By which each pair's angle is divided (Llama 3's scaling), as the file has it."""
        if "rope_freqs.weight" not in self._tensors:
            return ()
        factors = tuple(Decimal(float(x)) for x in self._floats("rope_freqs.weight", size))
        if min(factors) < Decimal("0.001"):
            raise self._fail("rope_freqs.weight has factors near 0", "fetch the file again")
        return factors

    def _info(self, name: str) -> TensorInfo:
        if name not in self._tensors:
            raise self._fail(f"the tensor {name} is missing", "use a file of a supported model")
        return self._tensors[name]

    def _bytes(self, info: TensorInfo) -> np.ndarray:
        return np.asarray(self._data[info.offset : info.offset + info.size])

    def _count(self, key: str, default: int | None = None) -> int:
        value = self._meta.get(f"{self._kind}.{key}", default)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not 0 <= value < 1 << 24
            or (value == 0 and default != 0)
        ):
            raise self._fail(f"{self._kind}.{key} is {str(value)[:40]!r}", "fetch the file again")
        return value

    def _number(self, key: str) -> float:
        value = self._meta.get(f"{self._kind}.{key}")
        if not isinstance(value, float) or not 0 <= value <= _MOST_EPSILON:
            raise self._fail(f"{self._kind}.{key} is {str(value)[:40]!r}", "fetch the file again")
        return value

    def _decimal(self, key: str, default: Decimal) -> Decimal:
        value = self._meta.get(f"{self._kind}.{key}", default)
        number = Decimal(value) if isinstance(value, float | int | Decimal) else Decimal("NaN")
        if not number.is_finite() or not 1 <= number <= Decimal(10) ** 12:
            raise self._fail(f"{self._kind}.{key} is {str(value)[:40]!r}", "fetch the file again")
        return number

    def _fail(self, what: str, remedy: str) -> ModelFileError:
        return ModelFileError(f"{self._path.name}: {what}", remedy)


def _whole(value: float, fraction: int) -> int:
    """A float32 number times 2^fraction, rounded half up."""
    return int(Decimal(struct.unpack("<f", struct.pack("<f", value))[0]) * (1 << fraction) + Decimal("0.5"))
