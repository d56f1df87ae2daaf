"""A GGUF model opened by llama.cpp: its metadata and its tokenizer."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from assay.core.errors import ContextOverflow, EngineError, InvalidRequest, ModelFileError
from assay.engines.llama_abi import TOKEN_NULL, load

MAX_TEXT_BYTES: Final = 16 * 2**20
"""Longest text that `LlamaTokenizer.encode` accepts; a caller with a context limit refuses far earlier."""

_MAX_PIECE_BYTES: Final = 2**20
_GGUF_MAGIC: Final = b"GGUF"
_GGUF_HEADER_BYTES: Final = 24
_NO_VOCABULARY: Final = 0
"""LLAMA_VOCAB_TYPE_NONE (llama.h)."""


class LlamaTokenizer:
    """Text to token ids and back, by the vocabulary of a model. Safe to use from several threads."""

    def __init__(self, model: LlamaModel) -> None:
        self._lib = load()
        self._model = model  # keeps the vocabulary alive
        self._vocab: int = self._lib.llama_model_get_vocab(model.handle)
        self.n_vocab: int = self._lib.llama_vocab_n_tokens(self._vocab)
        """Number of token ids; ids are 0 .. n_vocab - 1."""
        self.add_bos: bool = self._lib.llama_vocab_get_add_bos(self._vocab)
        """Whether a prompt without a chat template starts with `bos()`."""
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._eog: Final = frozenset(t for t in range(self.n_vocab) if self._lib.llama_vocab_is_eog(self._vocab, t))
        self._max_piece = max((len(self.piece(t, special=True)) for t in range(self.n_vocab)), default=0)

    def encode(self, text: str, *, special: bool, limit: int | None = None) -> tuple[int, ...]:
        """Token ids of `text`, without beginning- or end-of-text tokens of the tokenizer's own.

        `special`: whether markup such as `<|im_start|>` in the text becomes control tokens (for rendered templates)
        or plain text (for words from users). `limit`: the most tokens the caller can use. Pass it for text from
        outside: 10 MB take half a minute, and markup takes time that grows with the square of its length; with a
        limit, text that cannot fit is refused at once.

        Raises:
            ContextOverflow: there are more than `limit` tokens.
            InvalidRequest: the text has lone surrogates or is longer than `MAX_TEXT_BYTES`.
            EngineError: the tokenizer failed.
        """
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"the text holds a lone surrogate at character {error.start}", remedy="send well-formed Unicode"
            ) from error
        if len(data) > MAX_TEXT_BYTES:
            raise InvalidRequest(f"the text has {len(data)} bytes, over the limit of {MAX_TEXT_BYTES}")
        fewest = -(-len(data) // max(self._max_piece, 1))
        if limit is not None and fewest > limit:
            raise ContextOverflow(fewest, limit)
        tokens = np.empty(len(data) + 16, dtype=np.int32)
        count = self._tokenize(data, tokens, special)
        if count < 0:
            # The library answers the negated count when the array is too small, and this when a count overflows.
            if count == -(2**31):
                raise EngineError("the tokenizer's count overflowed", "send a shorter text")
            tokens = np.empty(-count, dtype=np.int32)
            count = self._tokenize(data, tokens, special)
        if count < 0:
            raise EngineError(f"the tokenizer asked for more room twice ({count})")
        if limit is not None and count > limit:
            raise ContextOverflow(count, limit)
        return tuple(tokens[:count].tolist())

    def _tokenize(self, data: bytes, tokens: np.ndarray, special: bool) -> int:
        return self._lib.llama_tokenize(
            self._vocab, data, len(data), tokens.ctypes.data, len(tokens), False, special
        )  # fmt: skip

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that `token` stands for, which may be part of a UTF-8 character.

        Control tokens give b"", unless `special`, when they give their markup.

        Raises:
            EngineError: the id is not in the vocabulary.
        """
        found = self._pieces.get((token, special))
        if found is None:
            if not 0 <= token < self.n_vocab:
                raise EngineError(f"token {token} is not in the vocabulary of {self.n_vocab} tokens")
            found = self._pieces[token, special] = self._read_piece(token, special)
        return found

    def pieces(self) -> tuple[bytes, ...]:
        """The bytes of every token of the vocabulary, by id."""
        return tuple(self.piece(token) for token in range(self.n_vocab))

    def _read_piece(self, token: int, special: bool) -> bytes:
        size = 64
        while size <= _MAX_PIECE_BYTES:
            buffer = ctypes.create_string_buffer(size)
            length: int = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length
        raise EngineError(f"token {token} stands for more than {_MAX_PIECE_BYTES} bytes")

    def bos(self) -> int | None:
        """The beginning-of-text token, or None where the vocabulary has none."""
        return _token(self._lib.llama_vocab_bos(self._vocab))

    def eos(self) -> int | None:
        """The end-of-text token, or None where the vocabulary has none."""
        return _token(self._lib.llama_vocab_eos(self._vocab))

    def eog(self) -> frozenset[int]:
        """All tokens that end a generation (end of text, end of turn, …)."""
        return self._eog

    def is_eog(self, token: int) -> bool:
        """Whether `token` ends a generation (end of text, end of turn, …)."""
        return token in self._eog

    def is_control(self, token: int) -> bool:
        """Whether `token` is markup rather than text. False for ids outside the vocabulary."""
        return 0 <= token < self.n_vocab and bool(self._lib.llama_vocab_is_control(self._vocab, token))


class LlamaModel:
    """A GGUF file opened by llama.cpp on the CPU. Contexts on it share its weights.

    Close it after its contexts, or use it as a context manager.

    `repack` lets the library rearrange weights of some types for speed (and give slightly other numbers);
    `check_tensors` makes it look for invalid numbers in them, which reads the whole file.

    Raises:
        ModelFileError: the file is missing, truncated, not a GGUF, or not a text-generating model.
        EngineError: the library cannot be used.
    """

    def __init__(
        self, path: Path, *, vocab_only: bool = False, repack: bool = False, check_tensors: bool = False
    ) -> None:
        self._lib = load()
        _check_header(path)
        params = self._lib.llama_model_default_params()
        no_devices = (ctypes.c_void_p * 1)()  # an empty, NULL-terminated list: the CPU alone, whatever the build
        params.devices = ctypes.addressof(no_devices)
        params.n_gpu_layers = 0
        params.vocab_only = vocab_only
        params.use_extra_bufts = repack
        params.check_tensors = check_tensors
        handle: int | None = self._lib.llama_model_load_from_file(bytes(path), params)
        if not handle:
            raise ModelFileError(f"{path} cannot be loaded as a model", "fetch it again, or check its digest")
        self._handle: int | None = handle
        self.path: Final = path
        self.repack: Final = repack
        try:
            if self._lib.llama_model_has_encoder(handle) or self._lib.llama_model_is_diffusion(handle):
                raise ModelFileError(f"{path} does not generate text from left to right", "use a decoder-only model")
            if self._lib.llama_vocab_type(self._lib.llama_model_get_vocab(handle)) == _NO_VOCABULARY:
                # The library ends the process at the first question about its tokens.
                raise ModelFileError(f"{path} has no vocabulary", "use a model with its tokenizer inside")
            self.tokenizer: Final = LlamaTokenizer(self)
        except BaseException:
            self.close()
            raise
        self.n_vocab: Final = self.tokenizer.n_vocab
        self.n_ctx_train: Final[int] = self._lib.llama_model_n_ctx_train(handle)
        """Positions that the model was trained on."""
        self.ftype: Final[int] = self._lib.llama_model_ftype(handle)
        """The quantisation that the file's header states, a number of `enum llama_ftype`."""
        self.has_full_attention: Final = not (
            self._lib.llama_model_is_recurrent(handle) or self._lib.llama_model_is_hybrid(handle)
        )
        """Whether the state of a sequence is a cache of all its positions, which can be cut at any of them.

        Sliding-window models count: the library keeps their whole cache (`swa_full`).
        """

    @property
    def handle(self) -> int:
        """Address of the library's model.

        Raises:
            EngineError: the model was closed.
        """
        if self._handle is None:
            raise EngineError("the model is closed", "open it again")
        return self._handle

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template inside the file (a stranger's program), or None."""
        text: bytes | None = self._lib.llama_model_chat_template(self.handle, None)
        return None if text is None else text.decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """Architecture, size and quantisation in a few words, such as `llama 134.52M Q4_1`."""
        buffer = ctypes.create_string_buffer(256)
        self._lib.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """The value under `key` in the file's header as text, or None; arrays are not given."""
        name = key.encode("utf-8")
        length: int = self._lib.llama_model_meta_val_str(self.handle, name, None, 0)
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        self._lib.llama_model_meta_val_str(self.handle, name, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def close(self) -> None:
        """Free the model; closing twice does nothing."""
        if self._handle is not None:
            self._lib.llama_model_free(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _token(value: int) -> int | None:
    return None if value == TOKEN_NULL else value


def _check_header(path: Path) -> None:
    """Raise `ModelFileError` unless the file can be read and begins as a GGUF of version 2 or 3."""
    try:
        with path.open("rb") as file:
            header = file.read(_GGUF_HEADER_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror})", "check path and permissions") from error
    version = int.from_bytes(header[4:8], "little")
    if len(header) < _GGUF_HEADER_BYTES or header[:4] != _GGUF_MAGIC or version not in (2, 3):
        raise ModelFileError(f"{path} is not a GGUF file of version 2 or 3", "convert it to GGUF, or fetch it again")
