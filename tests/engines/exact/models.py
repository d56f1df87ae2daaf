"""Small random models of every supported variant as GGUF files, and the same models in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

EPSILON = 1e-5
VOCABULARY = 288
"""Three control tokens, 256 bytes, and letters."""


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
    seed: int = 0,
) -> Path:
    """Write a model whose activations have realistic sizes. `head_kind`: of embedding and head (None: as the rest)."""
    dice = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(1000.0)
    writer.add_layer_norm_rms_eps(EPSILON)
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
            vector(at + "post_attention_norm.weight", width)
            vector(at + "post_ffw_norm.weight", width)
        vector(at + "ffn_norm.weight", width)
        matrix(at + "ffn_gate.weight", feed, width)
        matrix(at + "ffn_up.weight", feed, width)
        matrix(at + "ffn_down.weight", width, feed)
    vector("output_norm.weight", width)
    if factors:
        writer.add_tensor("rope_freqs.weight", np.geomspace(1, 8, head_width // 2).astype(np.float32))
    if not tied:
        matrix("output.weight", VOCABULARY, width, head_kind or kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def float_logits(path: Path, tokens: list[int]) -> np.ndarray:
    """float64 [len(tokens), vocabulary]: the model as the papers define it."""
    reader = gguf.GGUFReader(path)
    fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    weights = {
        t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float64).reshape([int(n) for n in t.shape[::-1]])
        for t in reader.tensors
    }
    kind = fields["general.architecture"]
    heads, kv_heads = fields[f"{kind}.attention.head_count"], fields[f"{kind}.attention.head_count_kv"]
    width, base = fields[f"{kind}.embedding_length"], fields[f"{kind}.rope.freq_base"]
    size = fields.get(f"{kind}.attention.key_length", width // heads)
    epsilon = fields[f"{kind}.attention.layer_norm_rms_epsilon"]
    count, gemma = len(tokens), kind == "gemma3"
    x = weights["token_embd.weight"][tokens] * (math.sqrt(width) if gemma else 1)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weights[name]

    def turned(x: np.ndarray, base: float) -> np.ndarray:
        angle = (
            np.arange(count)[:, None] * base ** (-np.arange(0, size, 2) / size) / weights.get("rope_freqs.weight", 1)
        )
        z = x.reshape(count, -1, 2, size // 2).swapaxes(2, 3) if kind != "llama" else x.reshape(count, -1, size // 2, 2)
        z = (z[..., 0] + 1j * z[..., 1]) * np.exp(1j * angle)[:, None]
        z = np.stack([z.real, z.imag], -1)
        return (z.swapaxes(2, 3) if kind != "llama" else z).reshape(count, -1, size)

    for n in range(fields[f"{kind}.block_count"]):
        at = f"blk.{n}."
        local = gemma and (n + 1) % 6 != 0
        h = norm(x, at + "attn_norm.weight")
        q, k, v = (
            (h @ weights[f"{at}attn_{part}.weight"].T + weights.get(f"{at}attn_{part}.bias", 0)).reshape(
                count, -1, size
            )
            for part in "qkv"
        )
        if at + "attn_q_norm.weight" in weights:
            q, k = norm(q, at + "attn_q_norm.weight"), norm(k, at + "attn_k_norm.weight")
        q, k = (turned(part, 10_000.0 if local else base) for part in (q, k))
        k, v = (np.repeat(part, heads // kv_heads, 1) for part in (k, v))
        score = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(size)
        back = np.arange(count)[:, None] - np.arange(count)
        unseen = (back < 0) | (back >= fields[f"{kind}.attention.sliding_window"]) if local else back < 0
        score[:, unseen] = -np.inf
        p = np.exp(score - score.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        y = np.einsum("hij,jhd->ihd", p, v).reshape(count, -1) @ weights[at + "attn_output.weight"].T
        x = x + (norm(y, at + "post_attention_norm.weight") if gemma else y)
        h = norm(x, at + "ffn_norm.weight")
        g, u = h @ weights[at + "ffn_gate.weight"].T, h @ weights[at + "ffn_up.weight"].T
        inner = 2 * math.sqrt(2 / math.pi) * (g + 0.044715 * g**3) if gemma else g
        y = (g / (1 + np.exp(-inner)) * u) @ weights[at + "ffn_down.weight"].T
        x = x + (norm(y, at + "post_ffw_norm.weight") if gemma else y)
    return norm(x, "output_norm.weight") @ weights.get("output.weight", weights["token_embd.weight"]).T
