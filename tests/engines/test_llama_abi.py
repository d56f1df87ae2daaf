"""The binding refuses a library that it does not know, rather than crash in it."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

import pytest

from assay.core.errors import EngineError, ModelFileError
from assay.engines import llama_abi
from assay.engines.llama_model import LlamaModel


def test_the_installed_library_is_the_one_described() -> None:
    """The pinned package passes all checks."""
    llama_abi.check_abi()


def test_struct_sizes_are_those_of_the_header() -> None:
    """The layouts have the sizes and offsets that a C compiler gives for llama.h of this build on 64-bit machines."""
    assert ctypes.sizeof(llama_abi.ContextParams) == 168
    assert ctypes.sizeof(llama_abi.ModelParams) == 80
    assert ctypes.sizeof(llama_abi.Batch) == 56
    assert llama_abi.ContextParams.type_k.offset == 104
    assert llama_abi.ContextParams.kv_unified.offset == 141
    assert llama_abi.ModelParams.vocab_only.offset == 72


def test_another_version_is_refused() -> None:
    """A package of another version is refused, and the error says which to install."""
    with pytest.raises(EngineError, match=r"2026\.10\.9999.*pip install xllamacpp==2026\.10\.11549"):
        llama_abi.check_version("2026.10.9999")


def test_a_missing_symbol_is_refused() -> None:
    """A library without the functions (here: the C library) is refused, and the error names them."""
    with pytest.raises(EngineError, match="lacks llama_log_set"):
        llama_abi.declare(ctypes.CDLL(None))


class Shifted:
    """A library whose context parameters have one more number in front than the declared struct."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.llama_model_default_params = lib.llama_model_default_params
        self._lib = lib

    def llama_context_default_params(self) -> llama_abi.ContextParams:
        raw = bytes(4) + bytes(self._lib.llama_context_default_params())
        return llama_abi.ContextParams.from_buffer_copy(raw)


def test_another_layout_is_refused() -> None:
    """Default values at other offsets than declared mean another struct: refused before any struct is passed."""
    with pytest.raises(EngineError, match=r"n_ctx is 0, not 512"):
        llama_abi.check_layouts(Shifted(llama_abi.load()))


def test_every_shift_of_a_layout_is_noticed() -> None:
    """Whichever field a newer struct inserts, something behind it is not where it should be."""
    lib = llama_abi.load()
    raw = bytes(lib.llama_context_default_params())
    for name, _ in llama_abi.ContextParams._fields_:
        offset = getattr(llama_abi.ContextParams, name).offset

        class Inserted(Shifted):
            def llama_context_default_params(self, offset: int = offset) -> llama_abi.ContextParams:
                return llama_abi.ContextParams.from_buffer_copy(raw[:offset] + b"\x77" * 8 + raw[offset:])

        with pytest.raises(EngineError):
            llama_abi.check_layouts(Inserted(lib))


def test_isa_is_a_stable_list_of_known_features() -> None:
    """The CPU features are known names in a fixed order, the same each time."""
    names = llama_abi.isa().split()
    assert names
    assert names == [name for name in llama_abi.CPU_FEATURES if name in names]
    assert llama_abi.isa() == " ".join(names)


def test_the_library_is_silent_but_its_log_can_be_had(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """llama.cpp prints nothing; what it has to say goes to logging, at DEBUG."""
    # A program that ran in this process before may have left a handler that prints.
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    file = tmp_path / "bad.gguf"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(40))
    with caplog.at_level(logging.DEBUG, logger="assay.llama"), pytest.raises(ModelFileError):
        LlamaModel(file)
    assert capfd.readouterr() == ("", "")
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
