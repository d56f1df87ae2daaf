"""Small random models of every supported variant as GGUF files."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

EPSILON = 1e-5
VOCABULARY = 288
"""Three control tokens, 256 bytes, and letters."""


class Dice:
    """Numbers out of SHAKE-256 and a few additions: on every machine and in every version of numpy the same."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._turn = 0

    def standard_t(self, _freedom: float, shape: tuple[int, int]) -> np.ndarray:
        """float64 multiples of 2^-15 around 0: sums of four words of 16 bits with sign."""
        self._turn += 1
        count = shape[0] * shape[1]
        data = hashlib.shake_256(f"{self._label} {self._turn}".encode()).digest(8 * count)
        return np.frombuffer(data, ">i2").astype(np.int64).reshape(*shape, 4).sum(-1) / 2.0**15

    def normal(self, middle: float, spread: float, size: int) -> np.ndarray:
        """float64 [size]."""
        return middle + spread * self.standard_t(0, (1, size))[0]


def write_model(
    path: Path,
    architecture: str = "llama",
    *,
    kind: Kind = Kind.Q4_1,
    head_kind: Kind | None = None,
    layers: int = 3,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_width: int = 16,
    feed: int = 96,
    tied: bool = False,
    biases: bool = False,
    factors: bool = False,
    window: int = 8,
    loud: float = 1.0,
    head_rows: int = VOCABULARY,
    positions: int = 0,
    epsilon: float = EPSILON,
    template: str = "",
    seed: int = 0,
    dice: Dice | np.random.Generator | None = None,
) -> Path:
    """Write a model whose activations have realistic sizes.

    `head_kind`: of embedding and head (None: as the rest). `loud`: by which what Gemma 3 adds to its residual stream is
    larger. `positions`: dimensions of a head that have some (0: all). `template`: for chats. `dice`: where numbers come
    from, if not from numpy's generator with `seed`.
    """
    dice = dice or np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(positions or head_width)
    writer.add_rope_freq_base(1000.0)
    writer.add_layer_norm_rms_eps(epsilon)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *(chr(97 + n) for n in range(26)),
        *"\u2581,.",
    ]
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 29)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template:
        writer.add_chat_template(template)
    if architecture == "gemma3":
        writer.add_sliding_window(window)

    def matrix(name: str, rows: int, columns: int, kind: Kind = kind) -> None:
        values = (dice.standard_t(5, (rows, columns)) / math.sqrt(columns)).astype(np.float32)
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    def vector(name: str, size: int, middle: float = 1.0, spread: float = 0.3) -> None:
        writer.add_tensor(name, dice.normal(middle, spread, size).astype(np.float32))

    matrix("token_embd.weight", VOCABULARY, width, head_kind or kind)
    for n in range(layers):
        at = f"blk.{n}."
        vector(at + "attn_norm.weight", width)
        matrix(at + "attn_q.weight", heads * head_width, width)
        matrix(at + "attn_k.weight", kv_heads * head_width, width)
        matrix(at + "attn_v.weight", kv_heads * head_width, width)
        matrix(at + "attn_output.weight", width, heads * head_width)
        if biases or architecture == "qwen2":
            vector(at + "attn_q.bias", heads * head_width, 0, 0.5)
            vector(at + "attn_k.bias", kv_heads * head_width, 0, 0.5)
            vector(at + "attn_v.bias", kv_heads * head_width, 0, 0.5)
        if architecture in ("qwen3", "gemma3"):
            vector(at + "attn_q_norm.weight", head_width)
            vector(at + "attn_k_norm.weight", head_width)
        if architecture == "gemma3":
            vector(at + "post_attention_norm.weight", width, loud, 0.3 * loud)
            vector(at + "post_ffw_norm.weight", width, loud, 0.3 * loud)
        vector(at + "ffn_norm.weight", width)
        matrix(at + "ffn_gate.weight", feed, width)
        matrix(at + "ffn_up.weight", feed, width)
        matrix(at + "ffn_down.weight", width, feed)
    vector("output_norm.weight", width)
    if factors:
        writer.add_tensor("rope_freqs.weight", np.geomspace(1, 8, head_width // 2).astype(np.float32))
    if not tied:
        matrix("output.weight", head_rows, width, head_kind or kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
