"""A GGUF's model in float64, as the papers define it: what the exact engine and llama.cpp are measured against.

It shares no arithmetic with either: weights are decoded by the `gguf` package, products are numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import gguf
import numpy as np

from assay.core.errors import ModelFileError
from assay.engines.gguf_file import TensorInfo, inspect

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3", "gemma3")
_ROWS: Final = 64
"""Rows of logits made at a time: 134 MB of a vocabulary of 262,144."""
_GEMMA_LOCAL_BASE: Final = 10_000.0


class FloatModel:
    """The weights stay in the file until they are wanted, and those of one layer at a time are in memory."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ModelFileError: it is damaged, or of an architecture that is not known here.
        """
        header = inspect(path)
        self._kind: Final = header.architecture
        if self._kind not in ARCHITECTURES:
            raise ModelFileError(
                f"{path.name}: no float64 model for the architecture {self._kind[:40]!r}",
                f"use one of {', '.join(ARCHITECTURES)}",
            )
        self._meta: Final = header.metadata
        self._tensors: Final = {tensor.name: tensor for tensor in header.tensors}
        self._data: Final = np.memmap(path, np.uint8, "r")
        self._width: Final = int(self._number("embedding_length"))
        self._heads: Final = int(self._number("attention.head_count"))
        self._kv_heads: Final = int(self._number("attention.head_count_kv", self._heads))
        self._size: Final = int(self._number("attention.key_length", self._width // self._heads))
        self._epsilon: Final = self._number("attention.layer_norm_rms_epsilon")
        self._gemma: Final = self._kind == "gemma3"

    def logits(self, sequences: Sequence[Sequence[int]], wanted: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Logits after every token of all sequences, one sequence after the other: float64 [up to 64, vocabulary] at a
        time. Sequences do not see each other; together they share the work of decoding the weights.

        `wanted` int64 [m]: only after these tokens, counted over all sequences.
        """
        x = self._norm(self._stream(sequences), "output_norm.weight")
        if wanted is not None:
            x = x[wanted]
        head = self._matrix("output.weight" if "output.weight" in self._tensors else "token_embd.weight").T
        for start in range(0, len(x), _ROWS):
            yield x[start : start + _ROWS] @ head

    def _stream(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
        """The residual stream after the last layer: float64 [tokens of all sequences, width]."""
        tokens = np.concatenate([np.array(sequence, np.int64) for sequence in sequences])
        ends = np.cumsum([len(sequence) for sequence in sequences])
        spans = [slice(int(end) - len(sequence), int(end)) for end, sequence in zip(ends, sequences, strict=True)]
        positions = np.concatenate([np.arange(len(sequence)) for sequence in sequences])
        x = self._matrix("token_embd.weight", tokens) * (math.sqrt(self._width) if self._gemma else 1.0)
        for number in range(int(self._number("block_count"))):
            at = f"blk.{number}."
            y = self._attention(at, self._norm(x, at + "attn_norm.weight"), positions, spans, self._local(number))
            x = x + (self._norm(y, at + "post_attention_norm.weight") if self._gemma else y)
            y = self._feed(at, self._norm(x, at + "ffn_norm.weight"))
            x = x + (self._norm(y, at + "post_ffw_norm.weight") if self._gemma else y)
        return x

    def _attention(
        self, at: str, x: np.ndarray, positions: np.ndarray, spans: Sequence[slice], window: int
    ) -> np.ndarray:
        """`window`: a query sees so many positions, its own included; 0: all."""
        query, key, value = (self._heads_of(at, part, x) for part in "qkv")
        base = _GEMMA_LOCAL_BASE if window else self._number("rope.freq_base", 10_000.0)
        query, key = self._turned(query, positions, base), self._turned(key, positions, base)
        group = self._heads // self._kv_heads
        mixed = np.empty_like(query)
        for span in spans:
            back = positions[span][:, None] - positions[span]
            unseen = (back < 0) | (back >= window) if window else back < 0
            for head in range(self._heads):
                score = query[span, head] @ key[span, head // group].T / math.sqrt(self._size)
                score[unseen] = -np.inf
                weight = np.exp(score - score.max(-1, keepdims=True))
                mixed[span, head] = weight @ value[span, head // group] / weight.sum(-1, keepdims=True)
        return mixed.reshape(len(x), -1) @ self._matrix(at + "attn_output.weight").T

    def _heads_of(self, at: str, part: str, x: np.ndarray) -> np.ndarray:
        y = x @ self._matrix(f"{at}attn_{part}.weight").T
        if f"{at}attn_{part}.bias" in self._tensors:
            y = y + self._vector(f"{at}attn_{part}.bias")
        y = y.reshape(len(x), -1, self._size)
        norm = f"{at}attn_{part}_norm.weight"
        return self._norm(y, norm) if norm in self._tensors else y

    def _turned(self, x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
        """Rotary positions (arXiv:2104.09864) of [tokens, heads, head width]."""
        rate = base ** (-np.arange(0, self._size, 2) / self._size)
        if "rope_freqs.weight" in self._tensors:
            rate = rate / self._vector("rope_freqs.weight")
        turn = np.exp(1j * positions[:, None] * rate)[:, None]
        half = self._size // 2
        neighbours = self._kind == "llama"  # pair dimension 2i with 2i + 1; the others i with i + half
        first, second = (x[..., ::2], x[..., 1::2]) if neighbours else (x[..., :half], x[..., half:])
        z = (first + 1j * second) * turn
        return np.stack([z.real, z.imag], -1 if neighbours else -2).reshape(x.shape)

    def _feed(self, at: str, x: np.ndarray) -> np.ndarray:
        gate, up = x @ self._matrix(at + "ffn_gate.weight").T, x @ self._matrix(at + "ffn_up.weight").T
        inner = 2 * math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3) if self._gemma else gate
        # x sigmoid(inner); the logistic function by tanh, which cannot overflow.
        return (gate * (0.5 + 0.5 * np.tanh(inner / 2)) * up) @ self._matrix(at + "ffn_down.weight").T

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self._epsilon) * self._vector(name)

    def _local(self, number: int) -> int:
        """The window of a layer: five of six layers of Gemma 3 have one (llama-model.cpp, LLM_ARCH_GEMMA3)."""
        return int(self._number("attention.sliding_window", 0)) if self._gemma and (number + 1) % 6 else 0

    def _matrix(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """float64 [rows, columns]: the whole tensor, or these rows of it."""
        info = self._info(name)
        data = self._bytes(info).reshape(info.shape[1], -1)
        kind = gguf.GGMLQuantizationType(info.kind)
        if rows is not None:
            return gguf.dequantize(data[rows], kind).astype(np.float64)
        whole = np.empty((info.shape[1], info.shape[0]))
        for start in range(0, len(whole), 8192):  # or an embedding would be in memory twice
            whole[start : start + 8192] = gguf.dequantize(data[start : start + 8192], kind)
        return whole

    def _vector(self, name: str) -> np.ndarray:
        info = self._info(name)
        return gguf.dequantize(self._bytes(info), gguf.GGMLQuantizationType(info.kind)).astype(np.float64)

    def _bytes(self, info: TensorInfo) -> np.ndarray:
        data = np.asarray(self._data[info.offset : info.offset + info.size])
        return data.view({0: np.float32, 1: np.float16}.get(info.kind, np.uint8))  # as `dequantize` wants them

    def _info(self, name: str) -> TensorInfo:
        if name not in self._tensors:
            raise ModelFileError(f"the tensor {name} is missing", "use a file of a supported model")
        return self._tensors[name]

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._meta.get(f"{self._kind}.{key}", default)
        if not isinstance(value, int | float):
            raise ModelFileError(f"{self._kind}.{key} is {str(value)[:40]!r}", "fetch the file again")
        return value


def float_logits(path: Path, tokens: Sequence[int]) -> np.ndarray:
    """float64 [tokens, vocabulary] of one short sequence."""
    return np.concatenate(list(FloatModel(path).logits([tokens])))
