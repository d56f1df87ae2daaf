"""A llama.cpp context: the key-value cache of up to `n_seq_max` sequences, and the calls that extend it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np

from assay.core.errors import EngineError
from assay.engines.llama_abi import FLASH_ATTN_DISABLED, FLASH_ATTN_ENABLED, GGML_TYPES, Batch, load
from assay.engines.llama_model import LlamaModel

Ints = Sequence[int] | np.ndarray
"""One number per token of a batch."""

KvType = Literal["f16", "bf16", "q8_0"]
"""Number format of cached keys or values."""


class DecodeAborted(EngineError):
    """`abort` was called while a decode ran; nothing of the interrupted micro-batch is in the cache."""


class CacheFull(EngineError):
    """The cache has no room for the batch."""


class LlamaContext:
    """State and buffers to run a model.

    `n_ctx` counts positions over all sequences: with `kv_unified` they share them, without, each sequence has
    `n_ctx / n_seq_max` for itself. `n_outputs` is the most tokens of a batch that may want logits (4 * n_vocab bytes
    each; 0: one for each sequence). One thread at a time may call a context; only `abort` may come from another.

    Raises:
        EngineError: there is not enough memory, or the library refuses the parameters.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        n_ctx: int,
        n_seq_max: int = 1,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_outputs: int = 0,
        n_threads: int = 1,
        flash_attn: bool = True,
        kv_types: tuple[KvType, KvType] = ("f16", "f16"),
        kv_unified: bool = False,
    ) -> None:
        self._lib = load()
        self.model: Final = model
        self.n_batch: Final = n_batch
        self.n_seq_max: Final = n_seq_max
        self.n_outputs: Final = max(n_outputs, n_seq_max)
        self.n_vocab: Final = model.n_vocab
        # The library calls strlen(flag) between operations and takes a non-zero answer for "stop": this needs no
        # interpreter lock, unlike a Python callback.
        self._flag = ctypes.create_string_buffer(64)
        params = self._lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = n_ctx, n_batch, n_ubatch, n_seq_max
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = FLASH_ATTN_ENABLED if flash_attn else FLASH_ATTN_DISABLED
        params.type_k, params.type_v = (GGML_TYPES[kind] for kind in kv_types)
        params.kv_unified = kv_unified
        params.offload_kqv = params.op_offload = False
        params.n_outputs_max = self.n_outputs
        params.abort_callback = _strlen()
        params.abort_callback_data = ctypes.addressof(self._flag)
        handle: int | None = self._lib.llama_init_from_model(model.handle, params)
        if not handle:
            raise EngineError(
                f"llama.cpp made no context of {n_ctx} positions for {n_seq_max} sequences", "ask for a smaller context"
            )
        self._handle: int | None = handle
        self._memory: int = self._lib.llama_get_memory(handle)
        self.n_ctx_seq: Final[int] = self._lib.llama_n_ctx_seq(handle)
        """Positions that one sequence may use."""
        self._token = np.zeros(n_batch, np.int32)
        self._pos = np.zeros(n_batch, np.int32)
        self._seq = np.zeros(n_batch, np.int32)
        self._want = np.zeros(n_batch, np.int8)
        self._ones = np.ones(n_batch, np.int32)
        self._seq_pointers = self._seq.ctypes.data + 4 * np.arange(n_batch, dtype=np.uint64)
        self._batch = Batch(
            0, self._token.ctypes.data, None, self._pos.ctypes.data, self._ones.ctypes.data,
            self._seq_pointers.ctypes.data, self._want.ctypes.data,
        )  # fmt: skip

    @property
    def handle(self) -> int:
        """Address of the library's context.

        Raises:
            EngineError: the context was closed.
        """
        if self._handle is None:
            raise EngineError("the context is closed", "open it again")
        return self._handle

    def decode(self, tokens: Ints, positions: Ints, seq_ids: Ints | int, want_logits: Ints | bool) -> None:
        """Run the model over up to `n_batch` tokens and put their keys and values into the cache.

        All arrays have one entry per token; an int or bool holds for all of them. Positions of a sequence must go on
        where the cache ends.

        Raises:
            CacheFull, DecodeAborted: see there; the cache is as before the first micro-batch that did not finish.
            EngineError: the library refused the batch or failed.
        """
        n = len(tokens)
        if n > self.n_batch:
            raise EngineError(f"a batch of {n} tokens is over the limit of {self.n_batch}")
        self._token[:n] = tokens
        self._pos[:n] = positions
        self._seq[:n] = seq_ids
        self._want[:n] = want_logits
        wanted = int(np.count_nonzero(self._want[:n]))
        if wanted > self.n_outputs:  # the library would end the process
            raise EngineError(f"{wanted} tokens want logits, over the limit of {self.n_outputs}")
        self._batch.n_tokens = n
        status: int = self._lib.llama_decode(self.handle, self._batch)
        if status == 0:
            return
        if status == 1:
            raise CacheFull(f"no room in the cache for {n} more tokens", "end another sequence first")
        if status == 2:
            raise DecodeAborted("decoding was aborted")
        raise EngineError(f"llama_decode answered {status} for {n} tokens at positions from {self._pos[0]}")

    def logits(self, index: int) -> np.ndarray:
        """Copy of the logits (float32 [n_vocab]) after the token at `index` of the last batch.

        Raises:
            EngineError: no logits were asked for that token.
        """
        pointer = self._lib.llama_get_logits_ith(self.handle, index)
        if not pointer:
            raise EngineError(f"token {index} of the last batch has no logits", "ask for them in want_logits")
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,)).copy()

    def seq_rm(self, seq: int, start: int = 0, end: int = -1) -> bool:
        """Forget positions `start` to `end` - 1 (-1: to the end) of a sequence; False if the memory cannot do that."""
        self._check(seq)
        return bool(self._lib.llama_memory_seq_rm(self._memory, seq, start, end))

    def seq_cp(self, source: int, target: int) -> None:
        """Make `target` a copy of the sequence `source` (all its memory, without `kv_unified`)."""
        self._check(source)
        self._check(target)
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def pos_max(self, seq: int) -> int:
        """Last position of a sequence in the cache, -1 if it is empty."""
        self._check(seq)
        return int(self._lib.llama_memory_seq_pos_max(self._memory, seq))

    def _check(self, seq: int) -> None:
        """Raise `EngineError` where the library would end the process."""
        if self._handle is None or not 0 <= seq < self.n_seq_max:
            raise EngineError(f"there is no sequence {seq} in an open context of {self.n_seq_max}")

    def clear(self) -> None:
        """Forget all sequences."""
        self._check(0)
        self._lib.llama_memory_clear(self._memory, False)

    def set_threads(self, n: int) -> None:
        """Use `n` threads from the next decode on."""
        self._lib.llama_set_n_threads(self.handle, n, n)

    def abort(self) -> None:
        """Stop a decode that runs in another thread, within an operation; later ones stop too until `resume`."""
        self._flag[0] = b"\x01"

    def resume(self) -> None:
        """Allow decoding again after `abort`."""
        self._flag[0] = b"\x00"

    def close(self) -> None:
        """Free the context; closing twice does nothing."""
        if self._handle is not None:
            self._lib.llama_free(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _strlen() -> int | None:
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    return ctypes.cast(library.strlen, ctypes.c_void_p).value
