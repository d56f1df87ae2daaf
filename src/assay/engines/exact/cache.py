"""Converted models on disk: one file each, mapped into memory, so that a model is there in a moment.

    magic     MAGIC
    header    its length (8 bytes, little-endian), then JSON: digest of the model file, root, shape, and of each array
              name, type, dimensions and place
    digest    SHA-256 of the header and of everything behind the digest
    arrays    each at a multiple of 64 bytes from the file's start

It is made again whenever anything about it is not as expected; nobody else's word is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from assay.core.errors import ModelFileError, StoreError
from assay.core.hashing import Digest
from assay.engines.exact.convert import convert
from assay.engines.exact.kernels.state import PRODUCTS, Shape
from assay.engines.exact.packed import Packed
from assay.engines.exact.program import PLAN_ARRAYS, Program, program_of

MAGIC: Final = b"assay/exact-program/4\n"
"""The number rises when conversion, packing or the model root change."""
_LINE: Final = 64
_MOST_HEADER: Final = 1 << 24


def open_program(model: Path, digest: Digest, folder: Path) -> Program:
    """The integer model of a GGUF file: from its file in `folder`, or converted, and kept there.

    `digest`: SHA-256 of the GGUF file.

    Raises:
        ModelFileError: the GGUF file is damaged, or not of a kind that is understood.
        StoreError: the converted model cannot be written.
    """
    file = _place(digest, folder)
    with suppress(OSError, ModelFileError):
        return load(file, digest)
    save(program_of(convert(model)), digest, file)
    return load(file, digest)  # mapped: what was converted goes


def is_kept(digest: Digest, folder: Path) -> bool:
    """A converted form of this model lies in `folder`, whole or not."""
    return _place(digest, folder).is_file()


def kept(digest: Digest, folder: Path) -> Program | None:
    """The integer model of a model file, if its converted form lies whole in `folder`."""
    try:
        return load(_place(digest, folder), digest)
    except (OSError, ModelFileError):
        return None


def _place(digest: Digest, folder: Path) -> Path:
    return folder / f"{digest.hex()}.exact"


def save(program: Program, digest: Digest, file: Path) -> None:
    """Write a converted model, all of it or nothing.

    Raises:
        StoreError: it cannot be written.
    """
    arrays = _arrays_of(program)
    places: dict[str, object] = {}
    end = 0
    for name, array in arrays.items():
        places[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "at": end}
        end += -(-array.nbytes // _LINE) * _LINE
    header = json.dumps(
        {
            "model": digest.hex(),
            "root": program.root.hex(),
            "shape": list(program.shape),
            "embedding_scale": program.embedding_scale,
            "tied": program.embedding is program.products[-1],
            "size": end,
            "arrays": places,
        }
    ).encode()
    start = len(MAGIC) + 8 + len(header) + 32
    header += b" " * (-start % _LINE)
    state = hashlib.sha256(header)
    for array in arrays.values():
        for block in _blocks(array):
            state.update(block)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.name, delete=False) as out:
            try:
                out.write(MAGIC + len(header).to_bytes(8, "little") + header + state.digest())
                for array in arrays.values():
                    for block in _blocks(array):
                        out.write(block)
                out.flush()
                os.fsync(out.fileno())
                out.close()
                Path(out.name).replace(file)
            except BaseException:
                out.close()
                Path(out.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StoreError(
            f"the converted model cannot be kept in {file.parent} ({error.strerror})",
            f"it takes {end >> 20} MB: make room, or set ASSAY_HOME elsewhere",
        ) from error


def load(file: Path, digest: Digest) -> Program:
    """Map a converted model.

    Raises:
        OSError: the file cannot be read.
        ModelFileError: it is not the converted form of this model, or damaged.
    """
    try:
        data = np.memmap(file, np.uint8, "r")
        raw, start = _header(data)
        state = hashlib.sha256(raw)
        state.update(data[start:].data)
        if state.digest() != data[start - 32 : start].tobytes():
            raise ModelFileError(f"{file} is damaged", "remove it")
        header = json.loads(raw)
        if header["model"] != digest.hex() or header["size"] != len(data) - start:
            raise ModelFileError(f"{file} is of another model", "remove it")
        return _program(header, data[start:])
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise ModelFileError(f"{file} is damaged ({error})", "remove it") from error


def _header(data: np.ndarray) -> tuple[bytes, int]:
    """The header's bytes, and where the arrays start."""
    at = len(MAGIC)
    if data[:at].tobytes() != MAGIC:
        raise ModelFileError("a converted model of another version", "remove it")
    size = int.from_bytes(data[at : at + 8].tobytes(), "little")
    if size > _MOST_HEADER:
        raise ModelFileError("a converted model with a header of a senseless size", "remove it")
    return data[at + 8 : at + 8 + size].tobytes(), at + 8 + size + 32


def _program(header: Mapping[str, object], data: np.ndarray) -> Program:
    numbers, places = header["shape"], header["arrays"]
    assert isinstance(numbers, list)
    assert isinstance(places, dict)
    shape = Shape(*map(int, numbers))
    arrays: dict[str, np.ndarray] = {}
    for name, place in places.items():
        dtype, dims, at = np.dtype(place["dtype"]), place["shape"], place["at"]
        arrays[name] = data[at : at + prod(dims) * dtype.itemsize].view(dtype).reshape(dims)

    def packed(prefix: str) -> Packed:
        start = prefix + "."
        return Packed.from_arrays({name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)})

    products = tuple(packed(str(number)) for number in range(PRODUCTS * shape.layers + 1))
    scale, root = header["embedding_scale"], header["root"]
    assert isinstance(scale, int)
    assert isinstance(root, str)
    return Program(
        shape,
        products,
        products[-1] if header["tied"] else packed("embedding"),
        scale,
        {name: arrays[f"plan.{name}"] for name in PLAN_ARRAYS},
        bytes.fromhex(root),
    )


def _arrays_of(program: Program) -> dict[str, np.ndarray]:
    arrays = {f"plan.{name}": program.parameters[name] for name in PLAN_ARRAYS}
    matrices = {str(number): packed for number, packed in enumerate(program.products)}
    if program.embedding is not program.products[-1]:
        matrices["embedding"] = program.embedding
    for prefix, packed in matrices.items():
        arrays |= {f"{prefix}.{name}": array for name, array in packed.arrays().items()}
    return arrays


def _blocks(array: np.ndarray) -> tuple[memoryview, bytes]:
    """An array's bytes, and zeros up to a whole line."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.data, bytes(-flat.size % _LINE)
