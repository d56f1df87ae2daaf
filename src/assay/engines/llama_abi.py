"""The part of llama.cpp's C interface that Assay calls, declared for ctypes.

The functions come out of the extension module of the `xllamacpp` package, which exports them. Struct layouts follow
`include/llama.h` of llama.cpp build 11549. C offers no way to ask a library for its layouts, so `check_abi` refuses
to go on unless the package has exactly the pinned version, every symbol is there, and the library's own default
parameters are found at the offsets declared here: a different layout gives a clear error instead of a crash.

Functions are called through `ctypes.CDLL`, which releases the interpreter's lock for the length of each call.

The library is configured through two environment variables, set before it is loaded (for the whole process):

- `OMP_WAIT_POLICY=passive`, unless set already: threads sleep at barriers instead of spinning, without which two
  threads on a busy two-core machine fall to a few tokens/s.
- `GGML_CPU_TILED_MM=0`: turns off a matrix kernel for K-quants that runs from 8 rows on and rounds differently from
  the one for fewer rows (ggml-cpu/tiled/tiled.cpp), so that prefill and decode give the same bits.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import logging
import os
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Final

from assay.core.errors import EngineError

if TYPE_CHECKING:
    from _ctypes import _CDataType as CType

XLLAMACPP_VERSION: Final = "2026.10.11549"
"""The only version of the `xllamacpp` package whose struct layouts are known here."""

_REINSTALL: Final = f"install it with `pip install xllamacpp=={XLLAMACPP_VERSION}`"

FLASH_ATTN_AUTO: Final = -1
FLASH_ATTN_DISABLED: Final = 0
FLASH_ATTN_ENABLED: Final = 1

GGML_TYPES: Final[dict[str, int]] = {"f16": 1, "q8_0": 8, "bf16": 30}
"""Numbers of `enum ggml_type` for the KV cache types in use."""

TOKEN_NULL: Final = -1

LOGGER = logging.getLogger("assay.llama")
"""Receives llama.cpp's own log lines, at DEBUG."""

_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)


class ModelParams(Structure):
    """`struct llama_model_params`."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", ctypes.c_int),
        ("load_mode", ctypes.c_int),
        ("lazy_mode", ctypes.c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(Structure):
    """`struct llama_context_params`."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", ctypes.c_int),
        ("rope_scaling_type", ctypes.c_int),
        ("pooling_type", ctypes.c_int),
        ("attention_type", ctypes.c_int),
        ("flash_attn_type", ctypes.c_int),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", ctypes.c_int),
        ("type_v", ctypes.c_int),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(Structure):
    """`struct llama_batch`."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


_SIGNATURES: Final[dict[str, tuple[type[CType] | None, tuple[type[CType], ...]]]] = {
    "llama_log_set": (None, (c_void_p, c_void_p)),
    "llama_backend_init": (None, ()),
    "llama_time_us": (c_int64, ()),
    "llama_print_system_info": (c_char_p, ()),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_model_n_ctx_train": (c_int32, (c_void_p,)),
    "llama_model_ftype": (ctypes.c_int, (c_void_p,)),
    "llama_model_has_encoder": (c_bool, (c_void_p,)),
    "llama_model_is_recurrent": (c_bool, (c_void_p,)),
    "llama_model_is_hybrid": (c_bool, (c_void_p,)),
    "llama_model_is_diffusion": (c_bool, (c_void_p,)),
    "llama_model_size": (ctypes.c_uint64, (c_void_p,)),
    "llama_model_n_params": (ctypes.c_uint64, (c_void_p,)),
    "llama_model_desc": (c_int32, (c_void_p, c_void_p, c_size_t)),
    "llama_model_chat_template": (c_char_p, (c_void_p, c_char_p)),
    "llama_model_meta_val_str": (c_int32, (c_void_p, c_char_p, c_void_p, c_size_t)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_vocab_type": (ctypes.c_int, (c_void_p,)),
    "llama_vocab_bos": (c_int32, (c_void_p,)),
    "llama_vocab_eos": (c_int32, (c_void_p,)),
    "llama_vocab_get_add_bos": (c_bool, (c_void_p,)),
    "llama_vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "llama_vocab_is_control": (c_bool, (c_void_p, c_int32)),
    "llama_vocab_get_attr": (ctypes.c_int, (c_void_p, c_int32)),
    "llama_vocab_get_text": (c_char_p, (c_void_p, c_int32)),
    "llama_tokenize": (c_int32, (c_void_p, c_char_p, c_int32, c_void_p, c_int32, c_bool, c_bool)),
    "llama_token_to_piece": (c_int32, (c_void_p, c_int32, c_void_p, c_int32, c_int32, c_bool)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_n_ctx": (c_uint32, (c_void_p,)),
    "llama_n_ctx_seq": (c_uint32, (c_void_p,)),
    "llama_n_ubatch": (c_uint32, (c_void_p,)),
    "llama_set_n_threads": (None, (c_void_p, c_int32, c_int32)),
    "llama_set_abort_callback": (None, (c_void_p, c_void_p, c_void_p)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_memory_seq_cp": (None, (c_void_p, c_int32, c_int32, c_int32, c_int32)),
    "llama_memory_seq_pos_max": (c_int32, (c_void_p, c_int32)),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_get_logits_ith": (POINTER(c_float), (c_void_p, c_int32)),
}

CPU_FEATURES: Final = (
    "sse3", "ssse3", "avx", "avx_vnni", "avx2", "f16c", "fma", "bmi2", "avx512", "avx512_vbmi", "avx512_vnni",
    "avx512_bf16", "amx_int8", "neon", "arm_fma", "fp16_va", "dotprod", "matmul_int8", "sve", "sme", "riscv_v", "vsx",
    "vxe", "wasm_simd", "llamafile",
)  # fmt: skip
"""Suffixes of the `ggml_cpu_has_*` functions that `isa` asks, in this order."""

_MODEL_DEFAULTS: Final[dict[str, int | None]] = {
    "devices": None, "tensor_buft_overrides": None, "tensor_split": None, "progress_callback": None,
    "progress_callback_user_data": None, "kv_overrides": None,
    "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "main_gpu": 0,
    "vocab_only": 0, "check_tensors": 0, "use_extra_bufts": 1, "no_host": 0, "no_alloc": 0, "load_mtp": 0,
}  # fmt: skip

_CONTEXT_DEFAULTS: Final[dict[str, int | float | None]] = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0, "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1, "n_threads": 4, "n_threads_batch": 4, "ctx_type": 0, "rope_scaling_type": -1,
    "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1, "rope_freq_base": 0.0, "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0, "yarn_attn_factor": -1.0, "yarn_beta_fast": -1.0, "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0, "defrag_thold": -1.0, "cb_eval": None, "cb_eval_user_data": None, "type_k": 1, "type_v": 1,
    "moe_cache_size": 0, "abort_callback": None, "abort_callback_data": None, "embeddings": 0, "offload_kqv": 1,
    "no_perf": 1, "op_offload": 1, "swa_full": 1, "kv_unified": 0, "samplers": None, "n_samplers": 0,
    "ctx_other": None,
}  # fmt: skip


def _log(level: int, text: bytes | None, _user_data: int | None) -> None:
    line = (text or b"").decode("utf-8", "replace").rstrip()
    if line:
        LOGGER.debug("[%d] %s", level, line)


# At module level, so that it lives as long as the library may call it.
_log_callback = _LOG_CALLBACK(_log)


@cache
def load() -> ctypes.CDLL:
    """The library, checked, with every function's types declared and its log sent to `LOGGER`.

    Raises:
        EngineError: the package is missing or is not the one that these declarations describe.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["GGML_CPU_TILED_MM"] = "0"
    try:
        extension = importlib.import_module("xllamacpp.xllamacpp")
        check_version(importlib.metadata.version("xllamacpp"))
        lib = ctypes.CDLL(extension.__file__)
    except (ImportError, OSError) as error:
        raise EngineError(f"the llama.cpp library cannot be loaded ({error})", _REINSTALL) from error
    declare(lib)
    check_layouts(lib)
    lib.llama_log_set(_log_callback, None)
    lib.llama_backend_init()
    return lib


def check_version(version: str) -> None:
    """Raise `EngineError` unless `version` is the pinned one of the `xllamacpp` package."""
    if version != XLLAMACPP_VERSION:
        raise EngineError(f"xllamacpp {version} is installed, but only {XLLAMACPP_VERSION} is known here", _REINSTALL)


def declare(lib: ctypes.CDLL) -> None:
    """Declare every function's types on `lib`; raises `EngineError` if some are missing."""
    missing = [name for name in _SIGNATURES if not hasattr(lib, name)]
    missing += [f"ggml_cpu_has_{name}" for name in CPU_FEATURES if not hasattr(lib, f"ggml_cpu_has_{name}")]
    if missing:
        raise EngineError(f"the llama.cpp library lacks {', '.join(missing)}", _REINSTALL)
    for name, (result, arguments) in _SIGNATURES.items():
        function = lib[name]
        function.restype = result
        function.argtypes = arguments
        # `lib[name]` makes a new object each time, attribute access keeps the first: set it for good.
        setattr(lib, name, function)


def check_layouts(lib: ctypes.CDLL) -> None:
    """Raise `EngineError` unless the library's default parameters lie where the structs here expect them."""
    for function, expected in (
        ("llama_model_default_params", _MODEL_DEFAULTS),
        ("llama_context_default_params", _CONTEXT_DEFAULTS),
    ):
        params = getattr(lib, function)()
        for field, value in expected.items():
            actual = getattr(params, field)
            if actual != value:
                raise EngineError(f"{function}().{field} is {actual}, not {value}: another struct layout", _REINSTALL)


def check_abi() -> None:
    """Raise `EngineError` unless the installed library is exactly the one that this module describes."""
    load()


def isa() -> str:
    """The CPU features that the library was built to use, such as `"sse3 ssse3 avx avx2 f16c fma bmi2 llamafile"`.

    The set is fixed when the library is built (the published wheels do not choose kernels at run time), so it is the
    same on every machine that runs the same wheel.
    """
    lib = load()
    return " ".join(name for name in CPU_FEATURES if lib[f"ggml_cpu_has_{name}"]())
