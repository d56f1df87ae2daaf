"""Converted models on disk: as converted, made again when anything is wrong with them, and never half written."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as over
from hypothesis import strategies as st
from tests.engines.exact.models import write_model
from tests.engines.exact.running import assert_same, kernel_passes, reference_passes, running

from assay.core.errors import ModelFileError, StoreError
from assay.engines.exact import cache
from assay.engines.exact.cache import load, open_program, save
from assay.engines.exact.convert import convert
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.reference import Model

DIGEST = bytes(range(32))
TOKENS = [1, 5, 200, 7]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Gemma 3 with a head of its own."""
    return write_model(tmp_path_factory.mktemp("m") / "m.gguf", "gemma3", layers=1, biases=True)


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    """It, converted."""
    return convert(path)


@pytest.fixture(scope="module")
def program(model: Model) -> Program:
    """It, laid out."""
    return program_of(model)


@pytest.fixture(scope="module")
def whole(program: Program, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Its file."""
    file = tmp_path_factory.mktemp("whole") / "x.exact"
    save(program, DIGEST, file)
    return file.read_bytes()


def numbers_of(program: Program) -> dict[str, Any]:
    """All that is kept of a program."""
    arrays = {name: (a.dtype, a.shape, a.tobytes()) for name, a in cache._arrays_of(program).items()}
    return {"shape": program.shape, "root": program.root, "scale": program.embedding_scale, **arrays}


@pytest.mark.parametrize("given", [{}, {"architecture": "gemma3", "tied": True, "layers": 6}, {"biases": True}])
def test_a_model_comes_back(tmp_path: Path, given: dict[str, Any]) -> None:
    """What is read is what was converted, to the last array, and computes what the reference computes."""
    source = write_model(tmp_path / "m.gguf", **given)
    model = convert(source)
    first = open_program(source, DIGEST, tmp_path / "kept")
    second = open_program(tmp_path / "nothing.gguf", DIGEST, tmp_path / "kept")  # the source is not looked at
    assert numbers_of(first) == numbers_of(program_of(model)) == numbers_of(second)
    assert (second.embedding is second.products[-1]) == bool(given.get("tied"))
    with running(second) as runner:
        assert_same(kernel_passes(runner, TOKENS, [3]), reference_passes(model, TOKENS))
    assert [file.name for file in (tmp_path / "kept").iterdir()] == [f"{DIGEST.hex()}.exact"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@over(data=st.data())
def test_a_damaged_byte(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    """Any changed byte, of the header too, is noticed."""
    at = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 6000))
    file = tmp_path / "x.exact"
    spoilt = bytearray(whole)
    spoilt[at] ^= data.draw(st.integers(1, 255))
    file.unlink(missing_ok=True)
    file.write_bytes(spoilt)
    with pytest.raises(ModelFileError):
        load(file, DIGEST)


@pytest.mark.parametrize("length", [0, 1, 10, 22, 23, 29, 30, 31, 500, 4000, -1, -64])
def test_a_file_cut_short(tmp_path: Path, path: Path, program: Program, whole: bytes, length: int) -> None:
    """An empty file, half a header, or half the arrays: it is made again."""
    file = tmp_path / f"{DIGEST.hex()}.exact"
    file.write_bytes(whole[:length])
    with pytest.raises(ModelFileError):
        load(file, DIGEST)
    assert open_program(path, DIGEST, tmp_path).root == program.root
    assert file.read_bytes() == whole


def test_foreign_files(tmp_path: Path, path: Path, whole: bytes) -> None:
    """Another model's file, another version's, one with more behind it, or something else altogether is replaced."""
    file = tmp_path / f"{DIGEST.hex()}.exact"
    nested = cache.MAGIC + (200_000).to_bytes(8, "little") + b"[" * 200_000 + bytes(32)
    for content in (
        whole.replace(DIGEST.hex().encode(), bytes(32).hex().encode()),
        b"assay/exact-program/0\n" + whole[len(cache.MAGIC) :],
        whole + bytes(64),
        b"GGUF" + bytes(1000),
        cache.MAGIC + b"\xff" * 8 + bytes(100),
        nested,
    ):
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        with pytest.raises(ModelFileError):
            load(file, DIGEST)
        open_program(path, DIGEST, tmp_path)
        assert file.read_bytes() == whole
    with pytest.raises(ModelFileError, match="another model"):
        load(file, bytes(32))


def test_headers_with_a_valid_digest(tmp_path: Path) -> None:
    """Nonsense that somebody hashed is refused without a crash."""
    one = b'{"model":"' + DIGEST.hex().encode() + b'","size":0'
    ones = b',"shape":[1,1,1,1,1,1,1,1,1,1],"arrays":'
    objects = b'{"q":{"dtype":"O","shape":[1],"at":0}}}'
    starts = (b"[]", b"{}", b"1", b"null", b"{", b"\xff", b"[" * 99_999)
    ends = (b"}", b',"shape":1,"arrays":{}}', b',"shape":[],"arrays":{}}', ones + b"[]}", ones + objects)
    for header in (*starts, *(one + end for end in ends)):
        file = tmp_path / "x"
        file.write_bytes(cache.MAGIC + len(header).to_bytes(8, "little") + header + hashlib.sha256(header).digest())
        with pytest.raises(ModelFileError):
            load(file, DIGEST)


def test_an_interrupted_write(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a part of a file nor a temporary one stays, and an earlier file stays whole."""
    file = tmp_path / "kept" / "x.exact"

    def interrupt(_: int) -> NoReturn:
        raise KeyboardInterrupt

    def full(_: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    for before in ([], [b"earlier"]):
        for breaks, error in ((interrupt, KeyboardInterrupt), (full, StoreError)):
            for content in before:
                file.write_bytes(content)
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", breaks)
                with pytest.raises(error):
                    save(program, DIGEST, file)
            assert [each.read_bytes() for each in file.parent.iterdir()] == before


def test_a_folder_that_cannot_be_written(tmp_path: Path, program: Program) -> None:
    """The message says how much room it takes."""
    (tmp_path / "kept").write_bytes(b"a file")
    with pytest.raises(StoreError, match=r"it takes \d+ MB"):
        save(program, DIGEST, tmp_path / "kept" / "x.exact")


def open_root(path: Path, folder: Path) -> bytes:
    """In a process of its own."""
    return open_program(path, DIGEST, folder).root


def test_two_processes_at_once(tmp_path: Path, path: Path, program: Program, whole: bytes) -> None:
    """Both convert, both get the model, one file stays."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        roots = [pool.apply_async(open_root, (path, tmp_path)) for _ in range(2)]
        assert [each.get(120) for each in roots] == [program.root] * 2
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [whole]
