"""Variants of a GGUF model, for providers that cheat with the weights: requantised, cut, or damaged copies.

Every variant keeps the tokenizer and the chat template, so that only its numbers give it away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

QuantName: TypeAlias = Literal["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"]
"""What `gguf` can quantise to."""
_BLOCK = re.compile(r"blk\.(\d+)\.(.*)")
Tensor: TypeAlias = tuple[str, np.ndarray, GGMLQuantizationType]
"""Name, data as stored (quantised types: bytes, uint8 [..., bytes of a row]), type."""


def every(_name: str) -> bool:
    """All tensors."""
    return True


def layer(*numbers: int) -> Callable[[str], bool]:
    """The tensors of these blocks."""
    return lambda name: (found := _BLOCK.fullmatch(name)) is not None and int(found[1]) in numbers


def head(name: str) -> bool:
    """The output head (which a model with tied weights also embeds with)."""
    return name in ("output.weight", "token_embd.weight")


def requantise(src: Path, dst: Path, qtype: QuantName, *, only: Callable[[str], bool] = every) -> Path:
    """Copy `src` to `dst` with the matrices whose name passes `only` requantised; vectors stay as they are."""
    kind = GGMLQuantizationType[qtype]

    def change(tensor: Tensor) -> Tensor:
        name, data, old = tensor
        if data.ndim < 2 or not only(name):
            return tensor
        return name, quantize(dequantize(data, old), kind), kind

    return _copy(src, dst, change)


def drop_layers(src: Path, dst: Path, layers: Collection[int]) -> Path:
    """Copy `src` to `dst` without these blocks; the others close ranks."""
    dropped = sorted(set(layers))

    def change(tensor: Tensor) -> Tensor | None:
        name, data, kind = tensor
        found = _BLOCK.fullmatch(name)
        if not found:
            return tensor
        number = int(found[1])
        if number in dropped:
            return None
        return f"blk.{number - sum(drop < number for drop in dropped)}.{found[2]}", data, kind

    return _copy(src, dst, change, fewer_blocks=len(dropped))


def damage(src: Path, dst: Path, *, share: float, seed: int = 0, only: Callable[[str], bool] = every) -> Path:
    """Copy `src` to `dst` with Gaussian noise on matrices: `share` of each one's standard deviation.

    Stands for a fine-tune or another training run: the same shapes, other weights.
    """
    random = np.random.default_rng(seed)

    def change(tensor: Tensor) -> Tensor:
        name, data, kind = tensor
        if data.ndim < 2 or not only(name):
            return tensor
        weights = dequantize(data, kind)
        noise = random.normal(0, share * float(weights.std()), weights.shape).astype(np.float32)
        return name, quantize(weights + noise, kind), kind

    return _copy(src, dst, change)


def _copy(src: Path, dst: Path, change: Callable[[Tensor], Tensor | None], *, fewer_blocks: int = 0) -> Path:
    reader = GGUFReader(src)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    architecture = str(fields.pop("general.architecture").contents())
    writer = GGUFWriter(dst, architecture)
    for name, field in fields.items():
        value = field.contents()
        if name == f"{architecture}.block_count":
            value -= fewer_blocks
        writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for item in reader.tensors:
        tensor = change((item.name, item.data, item.tensor_type))
        if tensor:
            name, data, kind = tensor
            writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dst
