"""Headers of model files, honest and hostile."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.core.errors import ModelFileError
from assay.engines.gguf_file import BLOCKS, MAX_HEADER, inspect


def write_model(path: Path) -> None:
    """A small file with every kind of metadata, and tensors of two types."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.epsilon", 0.5)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_int64("test.negative", -5)
    writer.add_chat_template("{{ messages[0].content }} é")
    writer.add_token_list(["<s>", "a", "bc", ""])
    writer.add_array("test.numbers", [1, 2, 3])
    writer.add_tensor("token_embd.weight", np.arange(64, dtype=np.float32).reshape(2, 32))
    quantised = gguf.quants.quantize(np.ones((4, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("output.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the small file."""
    path = tmp_path_factory.mktemp("gguf") / "honest.gguf"
    write_model(path)
    return path.read_bytes()


def refused(path: Path, data: bytes) -> str:
    """The message with which `data` is refused."""
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        inspect(path)
    assert caught.value.remedy
    return caught.value.message


def header(*pairs: bytes, tensors: bytes = b"", tensor_count: int = 0, pair_count: int | None = None) -> bytes:
    """A handmade GGUF header."""
    count = len(pairs) if pair_count is None else pair_count
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, count) + b"".join(pairs) + tensors


def text(value: str) -> bytes:
    """A GGUF string."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def test_honest_file(tmp_path: Path) -> None:
    """Metadata and tensors are read as they were written."""
    path = tmp_path / "m.gguf"
    write_model(path)
    found = inspect(path)
    assert (found.version, found.alignment, found.architecture) == (3, 32, "llama")
    assert found.metadata["llama.block_count"] == 2
    assert found.metadata["llama.epsilon"] == 0.5
    assert found.metadata["tokenizer.ggml.add_bos_token"] is True
    assert found.metadata["test.negative"] == -5
    assert found.metadata["tokenizer.chat_template"] == "{{ messages[0].content }} é"
    assert dict(found.arrays) == {"tokenizer.ggml.tokens": 4, "test.numbers": 3}
    assert [(t.name, t.shape, t.kind, t.size) for t in found.tensors] == [
        ("token_embd.weight", (32, 2), 0, 256),
        ("output.weight", (64, 4), 3, 160),
    ]
    assert found.tensors[0].offset == found.data_offset
    start = found.tensors[0].offset
    assert path.read_bytes()[start : start + 256] == np.arange(64, dtype="<f4").tobytes()


def test_block_sizes_agree_with_gguf() -> None:
    """Block sizes are those of the gguf package, except Q8_1, which files never hold and that it sizes differently."""
    known = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items() if int(kind) != 9}
    assert {kind: BLOCKS[kind] for kind in known} == known


def test_every_truncation_is_refused(tmp_path: Path, honest: bytes) -> None:
    """However much of the file is missing, it is refused."""
    # The writer pads after the last tensor; from there on nothing is missing.
    path = tmp_path / "m.gguf"
    path.write_bytes(honest)
    last = inspect(path).tensors[-1]
    for length in reversed(range(last.offset + last.size)):
        os.truncate(path, length)
        with pytest.raises(ModelFileError) as caught:
            inspect(path)
        assert caught.value.remedy


def test_every_bit_flip_is_survived(tmp_path: Path, honest: bytes) -> None:
    """With any one bit of the header flipped, the file is read or refused; nothing else happens."""
    path = tmp_path / "m.gguf"
    path.write_bytes(honest)
    read = refusals = 0
    with path.open("r+b", buffering=0) as file:
        for at, bit in itertools.product(range(inspect(path).data_offset), range(8)):
            os.pwrite(file.fileno(), bytes([honest[at] ^ 1 << bit]), at)
            try:
                found = inspect(path)
                assert all(tensor.offset + tensor.size <= len(honest) for tensor in found.tensors)
                read += 1
            except ModelFileError:
                refusals += 1
            os.pwrite(file.fileno(), honest[at : at + 1], at)
    assert min(read, refusals) > 100


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=400), pairs=st.integers(0, 2**64 - 1), tensors=st.integers(0, 2**64 - 1))
def test_noise_is_survived(tmp_path: Path, tail: bytes, pairs: int, tensors: int) -> None:
    """Arbitrary bytes behind a good beginning are read or refused."""
    path = tmp_path / "m.gguf"
    for counts in ((pairs, tensors), (pairs % 4, tensors % 4)):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, counts[1], counts[0]) + tail)
        with contextlib.suppress(ModelFileError):
            inspect(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends at byte 0"),
        (b"PK\x03\x04 not a model", "not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(40), "GGUF version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
        (header(tensor_count=2**63), "claims 9223372036854775808 tensors"),
        (header(pair_count=2**40), "claims 0 tensors and 1099511627776"),
        (header(struct.pack("<Q", 2**62)), "a metadata key is"),
        (header(text("k") + struct.pack("<IIQ", 9, 8, 2**61)), "claims 2305843009213693952 strings"),
        (header(text("k") + struct.pack("<IIQ", 9, 4, 2**62)), "inside its header"),
        (header(text("k") + struct.pack("<IIQ", 9, 9, 1)), "elements of unknown type 9"),
        (header(text("k") + struct.pack("<IIQQ", 9, 8, 1, 2**64 - 1)), "inside its header"),
        (header(text("k") + struct.pack("<I", 99)), "unknown type 99"),
        (header(text("k") + struct.pack("<IB", 7, 7)), "boolean with value 7"),
        (header(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<IB", 0, 7)), "not UTF-8"),
        (header(*[text("k") + struct.pack("<IB", 0, 7)] * 2), "appears twice"),
        (header(text("general.alignment") + struct.pack("<II", 4, 48)), "alignment '48'"),
        (header(text("general.alignment") + struct.pack("<I", 8) + text("32")), "alignment '32'"),
        (header(tensor_count=1, tensors=text("t") + struct.pack("<I", 5)), "has 5 dimensions"),
        (header(tensor_count=1, tensors=text("t" * 64)), "over the limit of 63"),
        (header(tensor_count=1, tensors=text("t") + struct.pack("<IQIQ", 1, 4, 77, 0)), "type 77"),
        (header(tensor_count=1, tensors=text("t") + struct.pack("<IQIQ", 1, 33, 2, 0)), re.escape("shape (33,)")),
        (header(tensor_count=1, tensors=text("t") + struct.pack("<IQIQ", 1, 0, 0, 0)), re.escape("shape (0,)")),
        (header(tensor_count=1, tensors=text("t") + struct.pack("<IQIQ", 1, 4, 0, 7)), "not a multiple of 32"),
        (header(tensor_count=1, tensors=text("t") + struct.pack("<IQQIQ", 2, 2**63, 2**63, 0, 0)), "truncated"),
        (header(tensor_count=2, tensors=(text("t") + struct.pack("<IQIQ", 1, 4, 0, 0)) * 2) + bytes(99), "same name"),
        (
            header(tensor_count=2, tensors=b"".join(text(n) + struct.pack("<IQIQ", 1, 4, 0, 0) for n in "ab"))
            + bytes(99),
            "overlaps",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_headers(tmp_path: Path, data: bytes, message: str) -> None:
    """Each lie in a header is refused with a message that names it."""
    assert re.search(message, refused(tmp_path / "m.gguf", data))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """What is not a file is refused like a damaged one."""
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(ModelFileError, match="is not a file"):
            inspect(path)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A sparse giant that claims an endless header is refused with bounded memory."""
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(header(text("k") + struct.pack("<IIQ", 9, 0, 1 << 33)))
        file.truncate(1 << 34)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match="over 64 MiB"):
            inspect(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_HEADER


@pytest.mark.model
def test_real_model(model_path: Path) -> None:
    """The real model's header is read, vocabulary skipped, and its tensors fill the file."""
    found = inspect(model_path)
    assert found.architecture == "llama"
    assert found.arrays["tokenizer.ggml.tokens"] == 49_152
    assert len(found.tensors) == 272
    last = max(found.tensors, key=lambda tensor: tensor.offset)
    assert 0 <= found.file_size - last.offset - last.size < found.alignment
    assert isinstance(found.metadata["tokenizer.chat_template"], str)
