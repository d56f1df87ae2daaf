"""The header of a GGUF file, read and checked before llama.cpp sees the file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Little beyond the
header is read, memory is bounded by `MAX_HEADER`, and every tensor is known to lie inside the file afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, TypeAlias

from assay.core.errors import ModelFileError

Scalar: TypeAlias = bool | int | float | str

MAX_HEADER = 64 << 20
"""Bytes; the largest vocabularies in use (260,000 tokens) take about 8 MB."""
MAX_PAIRS = 4096
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 4
MAX_NAME = 63
"""Bytes of a tensor's name, as in llama.cpp."""
MAX_KEY = 65_535
MAX_TEXT = 1 << 20
"""Bytes of one metadata string that is kept, chat templates included."""
MAX_ALIGNMENT = 1 << 16
DEFAULT_ALIGNMENT = 32

BLOCKS: Mapping[int, tuple[int, int]] = MappingProxyType({
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
})  # fmt: skip
"""Elements and bytes of a block by `ggml_type` (ggml-common.h of llama.cpp build 11549)."""

_NUMBERS = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]

_REMEDY = "fetch the file again (`assay models pull NAME`), or check it against where it came from"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    """Innermost dimension first, as GGUF keeps it."""
    kind: int
    """`ggml_type`."""
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about itself."""

    version: int
    alignment: int
    metadata: Mapping[str, Scalar]
    """Numbers, booleans and strings."""
    arrays: Mapping[str, int]
    """Number of elements of the metadata arrays, whose contents are skipped."""
    tensors: tuple[TensorInfo, ...]
    """In the file's order."""
    data_offset: int
    """Where the tensors' bytes start."""
    file_size: int

    @property
    def architecture(self) -> str:
        """`general.architecture`, for example `llama`; empty when the file does not say."""
        return str(self.metadata.get("general.architecture", ""))


def inspect(path: Path) -> GgufHeader:
    """Read and check the header of `path`.

    Raises:
        ModelFileError: it cannot be read, is not a GGUF file of a known version, or is truncated or contradictory.
    """
    try:
        if not path.is_file():
            raise ModelFileError(f"{path} is not a file", "name a GGUF file, or see `assay models list`")
        with path.open("rb") as file:
            return _Reader(file, path).header()
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror or error})", "check the path and its permissions"
        ) from error


class _Reader:
    """Walks over the header, reading the file in pieces as needed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.size = file.seek(0, 2)
        file.seek(0)
        self.buffer = bytearray()
        self.at = 0

    def fail(self, what: str, remedy: str = _REMEDY) -> ModelFileError:
        return ModelFileError(f"{self.path.name}: {what}", remedy)

    def need(self, count: int) -> int:
        """Make `count` more bytes available, step over them and return where they start."""
        start, end = self.at, self.at + count
        if end > len(self.buffer):
            if end > self.size:
                raise self.fail(f"the file ends at byte {self.size} inside its header: it is truncated or damaged")
            if end > MAX_HEADER:
                raise self.fail(f"the header is over {MAX_HEADER >> 20} MiB")
            # Doubling keeps the number of reads small without reading much of the tensors behind a small header.
            self.buffer += self.file.read(max(end, min(2 * end, MAX_HEADER), 1 << 16) - len(self.buffer))
            if end > len(self.buffer):
                raise self.fail("the file shrank while it was read")
        self.at = end
        return start

    def u32(self) -> int:
        return int(_U32.unpack_from(self.buffer, self.need(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack_from(self.buffer, self.need(8))[0])

    def text(self, what: str, limit: int) -> str:
        length = self.u64()
        if length > limit:
            raise self.fail(f"{what} is {length} bytes long, over the limit of {limit}")
        start = self.need(length)
        try:
            return self.buffer[start : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"{what} is not UTF-8") from error

    def header(self) -> GgufHeader:
        version = self.preamble()
        tensor_count, pair_count = self.u64(), self.u64()
        if tensor_count > MAX_TENSORS or pair_count > MAX_PAIRS:
            raise self.fail(f"it claims {tensor_count} tensors and {pair_count} metadata pairs")
        metadata: dict[str, Scalar] = {}
        arrays: dict[str, int] = {}
        for _ in range(pair_count):
            key = self.text("a metadata key", MAX_KEY)
            if key in metadata or key in arrays:
                raise self.fail(f"metadata key {key[:80]!r} appears twice")
            kind = self.u32()
            if kind == _ARRAY:
                arrays[key] = self.skip_array(key)
            else:
                metadata[key] = self.scalar(key, kind)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        # `isinstance(True, int)` holds, hence the exact type.
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self.fail(f"the alignment {str(alignment)[:80]!r} is not a power of two up to {MAX_ALIGNMENT}")
        raw = [self.tensor(alignment) for _ in range(tensor_count)]
        data_offset = -(-self.at // alignment) * alignment
        tensors = tuple(
            TensorInfo(name, shape, kind, data_offset + offset, size) for name, shape, kind, offset, size in raw
        )
        self.check(tensors)
        return GgufHeader(
            version, alignment, MappingProxyType(metadata), MappingProxyType(arrays), tensors, data_offset, self.size
        )

    def preamble(self) -> int:
        start = self.need(8)
        if self.buffer[start : start + 4] != b"GGUF":
            raise self.fail(
                "not a GGUF file", "Assay runs GGUF models: convert it, or `assay models pull smollm2-135m`"
            )
        version = int(_U32.unpack_from(self.buffer, start + 4)[0])
        if version not in (2, 3):
            big_endian = version & 0xFFFF == 0
            what = "a big-endian GGUF file" if big_endian else f"GGUF version {version}"
            raise self.fail(f"{what} is not supported", "convert it to little-endian GGUF version 3")
        return version

    def scalar(self, key: str, kind: int) -> Scalar:
        if kind == _STRING:
            return self.text(f"the value of {key[:80]!r}", MAX_TEXT)
        number = _NUMBERS.get(kind)
        if number is None:
            raise self.fail(f"metadata key {key[:80]!r} has unknown type {kind}")
        start = self.need(number.size)
        if kind == 7 and self.buffer[start] > 1:
            raise self.fail(f"metadata key {key[:80]!r} is a boolean with value {self.buffer[start]}")
        value: bool | int | float = number.unpack_from(self.buffer, start)[0]
        return value

    def skip_array(self, key: str) -> int:
        """Step over an array and return how many elements it has."""
        kind, count = self.u32(), self.u64()
        number = _NUMBERS.get(kind)
        if number is not None:
            self.need(number.size * count)
        elif kind == _STRING:
            if 8 * count > self.size:  # every string takes 8 bytes at least
                raise self.fail(f"metadata array {key[:80]!r} claims {count} strings")
            self.skip_strings(count)
        else:
            raise self.fail(f"metadata array {key[:80]!r} has elements of unknown type {kind}")
        return count

    def skip_strings(self, count: int) -> None:
        # The one loop that runs once per vocabulary entry: no call per string unless the buffer runs out.
        length_at, at, available = _U64.unpack_from, self.at, len(self.buffer)
        for _ in range(count):
            if at + 8 > available:
                self.at = at
                self.need(8)
                available = len(self.buffer)
            end = at + 8 + length_at(self.buffer, at)[0]
            if end > available:
                self.at = at
                self.need(end - at)
                available = len(self.buffer)
            at = end
        self.at = at

    def tensor(self, alignment: int) -> tuple[str, tuple[int, ...], int, int, int]:
        """Name, shape, type, offset from the start of the data, size in bytes."""
        name = self.text("a tensor's name", MAX_NAME)
        dimensions = self.u32()
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.fail(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.u64() for _ in range(dimensions))
        kind, offset = self.u32(), self.u64()
        if kind not in BLOCKS:
            raise self.fail(
                f"tensor {name!r} has type {kind}, which this version does not know", "use another quantisation"
            )
        elements, size = BLOCKS[kind]
        if 0 in shape or shape[0] % elements:
            raise self.fail(f"tensor {name!r} of type {kind} cannot have the shape {shape}")
        if offset % alignment:
            raise self.fail(f"tensor {name!r} starts at {offset}, which is not a multiple of {alignment}")
        return name, shape, kind, offset, prod(shape) // elements * size

    def check(self, tensors: tuple[TensorInfo, ...]) -> None:
        """Tensors have distinct names, lie inside the file and do not overlap."""
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise self.fail("two tensors have the same name")
        end = 0
        for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
            if tensor.offset < end:
                raise self.fail(f"tensor {tensor.name!r} overlaps the one before it")
            end = tensor.offset + tensor.size
            if end > self.size:
                raise self.fail(
                    f"tensor {tensor.name!r} ends at byte {end} of a file of {self.size}: it is truncated or damaged"
                )
