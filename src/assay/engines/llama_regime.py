"""The two regimes in which Assay runs llama.cpp: `pinned/1`, whose logits are equal bit for bit, and `free`.

In the pinned regime the logits after a token are a function of the model and of the tokens before it, and of nothing
else: the same bits whether a token was prefilled or decoded, in micro-batches of any size, on any number of threads,
beside any other sequences, after any reuse of a prefix. Reading ggml-cpu (build 11549) and measuring gave the rule:

1. Flash attention on, with *different* element types for keys and values. For equal ones (f16 and f16) the operator
   has three loops that round differently: one from 64 rows on, one for a single row when the cache spans 512 cells or
   more (split by thread), and one for the rest. For unequal ones it always takes the last
   (ops.cpp, `ggml_compute_forward_flash_attn_ext_f16`: `use_split_kv_path` and `use_tiled` ask for equal types).
2. A cache of its own for each sequence (`kv_unified` off). In a shared one, holes that others left let a sequence's
   cells come to lie in another order than its positions, and the operator adds up in the order of cells.
3. Only the end of a sequence is ever removed, so that its cells stay in the order of its positions.
4. Matrix products of one row and of many rows agree. Weights are not repacked (`LlamaModel(repack=False)`), and the
   K-quant kernel that breaks this is off (`llama_abi.load`). Then Q4_0, Q4_1, Q8_0 and K-quant files agree; F16,
   BF16 and F32 weights do not (llamafile's kernel begins at two rows). `probe` tells for a given file.

So decode steps may be submitted in any way. For speed, give the rows of one decode in ascending order of sequences:
llama.cpp joins rows of neighbouring sequences into one pass over the weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from assay.core.errors import EngineError
from assay.core.profile import Profile
from assay.engines.grammar import grammar_version
from assay.engines.llama_abi import XLLAMACPP_VERSION, isa
from assay.engines.llama_context import KvType, LlamaContext
from assay.engines.llama_model import LlamaModel

Regime: TypeAlias = Literal["pinned", "free"]
"""`pinned` is bit-exact. `free` is a usual configuration, whose decode and prefill differ by honest noise."""

PINNED_UBATCH: Final = 32
"""Most rows in one pass; without influence on the numbers. Larger is no faster, and other streams wait longer."""
FREE_UBATCH: Final = 512
N_BATCH: Final = 512
"""Most tokens in one `LlamaContext.decode`."""
TEMPLATE_VERSION: Final = "jinja/1"

_FLOAT_FTYPES: Final = {0: "F32", 1: "F16", 32: "BF16"}
"""Numbers of `enum llama_ftype` for files whose matrices are not quantised."""


def cache_types(regime: Regime, kv_type: KvType) -> tuple[KvType, KvType]:
    """Element types of keys and values. In the pinned regime "f16" means sixteen bits each, of unequal types."""
    return ("bf16", "f16") if regime == "pinned" and kv_type == "f16" else (kv_type, kv_type)


def not_pinned(model: LlamaModel, refusal: str) -> EngineError:
    """That a model cannot run in the pinned regime, and at which level it can be served instead."""
    level = "signed" if file_refusal(model) else "statistical"
    return EngineError(f"this model cannot run in the pinned regime: {refusal}", f"serve it at '{level}'")


def pinned_refusal(model: LlamaModel) -> str:
    """Why the model cannot run in the pinned regime by what its header says; "" if nothing speaks against it."""
    return "it was opened with repacked weights" if model.repack else file_refusal(model)


def file_refusal(model: LlamaModel) -> str:
    """Why no machine can run this model file in the pinned regime, as `pinned_refusal` says it.

    Verifiers have but one configuration for it then, so they do not know how large honest noise is, and statistical
    checks need to.
    """
    if not model.has_full_attention:
        return "its state cannot be cut back to a shared prefix"
    header = model.metadata("general.file_type") or ""  # which also says it where only the vocabulary was opened
    ftype = int(header) if header.isdecimal() else model.ftype
    if ftype in _FLOAT_FTYPES:
        return f"its weights are {_FLOAT_FTYPES[ftype]}, for which one row and many rows round differently"
    if model.metadata(f"{model.metadata('general.architecture')}.rope.scaling.type") == "longrope":
        return "its position encoding depends on the size of the context"
    return ""


def open_context(
    model: LlamaModel,
    regime: Regime,
    *,
    sequences: int,
    context: int,
    threads: int,
    outputs: int = 0,
    kv_type: KvType = "f16",
) -> LlamaContext:
    """A context of `context` positions for each of `sequences` sequences.

    `outputs`: the most logits rows that one decode may want (0: one for each sequence).

    Raises:
        EngineError: the model cannot run in the pinned regime, or memory or library do not allow the context.
    """
    refusal = pinned_refusal(model) if regime == "pinned" else ""
    if refusal:
        raise not_pinned(model, refusal)
    return LlamaContext(
        model,
        n_ctx=context * sequences,
        n_seq_max=sequences,
        n_batch=N_BATCH,
        n_ubatch=PINNED_UBATCH if regime == "pinned" else FREE_UBATCH,
        n_outputs=outputs,
        n_threads=threads,
        flash_attn=regime == "pinned",
        kv_types=cache_types(regime, kv_type),
        kv_unified=False,
    )


def profile_of(model: LlamaModel, regime: Regime, *, context: int, threads: int, kv_type: KvType = "f16") -> Profile:
    """The profile of a context that `open_context` makes with these arguments.

    In the pinned regime its `isa` ends with the beginning of the probe's fingerprint: machines that differ in something
    that nobody thought of have different profiles, and a mismatch between them blames nobody.
    """
    keys, values = cache_types(regime, kv_type)
    pinned = regime == "pinned"
    return Profile(
        engine="llama.cpp",
        build=f"xllamacpp-{XLLAMACPP_VERSION}{'+repack' if model.repack else ''}",
        regime="pinned/1" if pinned else "free",
        isa=f"{isa()} probe:{probe(model).fingerprint[:16]}" if pinned else isa(),
        kv_type=keys if keys == values else f"{keys}+{values}",
        flash_attention=pinned,
        micro_batch=PINNED_UBATCH if pinned else FREE_UBATCH,
        threads=0 if pinned else threads,
        context=context,
        sampler="gumbel/1",
        template=TEMPLATE_VERSION,
        grammar=grammar_version(),
    )


PROBE_TOKENS: Final = 40
_PROBE_KEEP: Final = 30
_PROBE_CHUNKS: Final = ((1,) * 10, (2, 3, 5), (9, 1))


@dataclass(frozen=True, slots=True)
class Probe:
    """What `probe` found."""

    refusal: str
    """Why the model does not belong in the pinned regime, "" if it does."""
    fingerprint: str
    """SHA-256 (hex) of the probe's logits as little-endian float32, "" if they were not computed.

    Equal on machines that agree to the bit. Two machines of one profile with unequal fingerprints differ in something
    else (such as the system's maths library), and a mismatch between them is no evidence of cheating.
    """


@lru_cache(maxsize=16)
def probe(model: LlamaModel, *, threads: int = 1) -> Probe:
    """Run 40 fixed tokens at once, one by one and in small chunks, and compare all logits.

    Costs about as much as generating 40 tokens, once for each opened model.
    """
    refusal = pinned_refusal(model)
    if refusal:
        return Probe(refusal, "")
    tokens = [(7919 * i + 13) % model.n_vocab for i in range(PROBE_TOKENS)]
    with open_context(model, "pinned", sequences=1, context=256, threads=threads, outputs=PROBE_TOKENS) as context:
        whole = _rows(context, tokens, 0, PROBE_TOKENS)
        for chunks in _PROBE_CHUNKS:
            start = _PROBE_KEEP
            context.seq_rm(0, start)
            for n in chunks:
                if not refusal and _rows(context, tokens, start, n) != whole[start : start + n]:
                    refusal = f"{n} and {PROBE_TOKENS} rows at once give different logits at position {start}"
                start += n
    return Probe(refusal, hashlib.sha256(b"".join(whole)).hexdigest())


def _rows(context: LlamaContext, tokens: list[int], start: int, n: int) -> list[bytes]:
    context.decode(tokens[start : start + n], range(start, start + n), 0, True)
    return [context.logits(i).astype("<f4", copy=False).tobytes() for i in range(n)]
