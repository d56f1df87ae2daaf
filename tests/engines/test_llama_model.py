"""Opening model files, tokenizing, and running contexts, with hostile input at each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from assay.core.errors import ContextOverflow, EngineError, InvalidRequest, ModelFileError
from assay.engines.llama_context import CacheFull, DecodeAborted, LlamaContext
from assay.engines.llama_model import MAX_TEXT_BYTES, LlamaModel, LlamaTokenizer


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[LlamaModel]:
    """The real model."""
    with LlamaModel(model_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def tokenizer(model: LlamaModel) -> LlamaTokenizer:
    """The real model's tokenizer."""
    return model.tokenizer


@pytest.fixture
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    """A small context for two sequences."""
    with LlamaContext(model, n_ctx=512, n_seq_max=2, n_batch=64, n_ubatch=32) as opened:
        yield opened


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a GGUF"),
        (b"GGUF", "not a GGUF"),
        (b"GGML" + bytes(60), "not a GGUF"),
        (b"GGUF" + (99).to_bytes(4, "little") + bytes(60), "version 2 or 3"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes(16), "cannot be loaded"),
        (b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 60, "cannot be loaded"),
    ],
)
def test_files_that_are_no_models_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Empty, foreign and hostile files give a `ModelFileError` that says what to do."""
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        LlamaModel(file)
    assert caught.value.remedy


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    """A path without a readable file gives a `ModelFileError`."""
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelFileError, match="cannot be read"):
            LlamaModel(path)


def test_models_without_a_vocabulary_are_refused(tmp_path: Path) -> None:
    """llama.cpp would end the process at the first question about its tokens."""
    file = tmp_path / "model.gguf"
    dice = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(file), "llama")
    for add, value in (
        (writer.add_block_count, 1), (writer.add_context_length, 64), (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 2), (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_rope_dimension_count, 16), (writer.add_vocab_size, 40), (writer.add_tokenizer_model, "no_vocab"),
    ):  # fmt: skip
        add(value)
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for name, shape in (
        ("token_embd.weight", (40, 32)),
        ("output_norm.weight", (32,)),
        ("blk.0.attn_norm.weight", (32,)),
        ("blk.0.ffn_norm.weight", (32,)),
        *((f"blk.0.{part}.weight", (32, 32)) for part in square),
    ):
        writer.add_tensor(name, dice.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match="no vocabulary"):
        LlamaModel(file)


@pytest.mark.model
@pytest.mark.parametrize("size", [1000, 1_000_000, 1_690_000, 5_000_000, -1])
def test_truncated_models_are_refused(model_path: Path, tmp_path: Path, size: int) -> None:
    """A file cut in its header, vocabulary, tensor list or weights gives a `ModelFileError`."""
    file = tmp_path / "cut.gguf"
    with model_path.open("rb") as whole:
        file.write_bytes(whole.read()[:size])
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        LlamaModel(file)


@pytest.mark.model
def test_metadata(model: LlamaModel) -> None:
    """Header values, the chat template and sizes are read; unknown keys give None."""
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("no.such.key") is None
    assert model.n_vocab == 49152
    assert model.n_ctx_train == 8192
    assert model.has_full_attention
    assert model.chat_template is not None
    assert "<|im_start|>" in model.chat_template


@pytest.mark.model
def test_a_closed_model_is_refused(model_path: Path) -> None:
    """Using a closed model is an `EngineError`; closing twice is nothing."""
    opened = LlamaModel(model_path, vocab_only=True)
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="closed"):
        opened.metadata("general.name")


@pytest.mark.model
@pytest.mark.parametrize(
    "text", ["", "Hello, world", "naïve café", "مرحبا بالعالم", "😀👩‍👩‍👧", "a\0b", "  \n\t x" * 50]
)
def test_pieces_of_tokens_spell_the_text(tokenizer: LlamaTokenizer, text: str) -> None:
    """The tokens' bytes joined are the text's UTF-8, also where one character spans several tokens."""
    assert b"".join(map(tokenizer.piece, tokenizer.encode(text, special=False))) == text.encode()


@pytest.mark.model
def test_markup_is_control_tokens_only_when_asked(tokenizer: LlamaTokenizer) -> None:
    """`<|im_end|>` is one control token with `special`, and plain text without."""
    (token,) = tokenizer.encode("<|im_end|>", special=True)
    assert tokenizer.is_control(token)
    assert tokenizer.is_eog(token)
    assert tokenizer.piece(token) == b""
    assert tokenizer.piece(token, special=True) == b"<|im_end|>"
    plain = tokenizer.encode("<|im_end|>", special=False)
    assert token not in plain
    assert not any(map(tokenizer.is_control, plain))


@pytest.mark.model
def test_no_token_is_added(tokenizer: LlamaTokenizer) -> None:
    """Encoding adds no beginning-of-text token: that is the caller's business, with `bos`."""
    assert tokenizer.encode("", special=True) == ()
    bos = tokenizer.bos()
    assert bos is not None
    assert bos not in tokenizer.encode("Hello", special=True)


@pytest.mark.model
def test_the_table_of_pieces(tokenizer: LlamaTokenizer) -> None:
    """The table holds each token's bytes; ids outside the vocabulary are refused."""
    pieces = tokenizer.pieces()
    assert len(pieces) == tokenizer.n_vocab
    assert pieces[100] == tokenizer.piece(100)
    for token in (-1, tokenizer.n_vocab, 2**40):
        assert not tokenizer.is_control(token)
        assert not tokenizer.is_eog(token)
        with pytest.raises(EngineError, match="not in the vocabulary"):
            tokenizer.piece(token)


@pytest.mark.model
def test_text_that_cannot_be_encoded_is_refused(tokenizer: LlamaTokenizer) -> None:
    """Lone surrogates and texts over the limit are `InvalidRequest`s."""
    with pytest.raises(InvalidRequest, match="lone surrogate at character 2"):
        tokenizer.encode("ab\ud800", special=False)
    with pytest.raises(InvalidRequest, match="over the limit"):
        tokenizer.encode("a" * (MAX_TEXT_BYTES + 1), special=False)


@pytest.mark.model
@pytest.mark.parametrize("text", ["a" * 10_000_000, " " * 10_000_000, "<|im_start|>" * 800_000])
def test_long_text_with_a_limit_is_refused_at_once(tokenizer: LlamaTokenizer, text: str) -> None:
    """Ten megabytes are refused before any work when they cannot fit the caller's limit."""
    started = time.process_time()
    with pytest.raises(ContextOverflow):
        tokenizer.encode(text, special=True, limit=8192)
    assert time.process_time() - started < 1


@pytest.mark.model
def test_the_limit_is_exact(tokenizer: LlamaTokenizer) -> None:
    """A text of exactly `limit` tokens passes, one of one more does not."""
    count = len(tokenizer.encode("one two three", special=False))
    assert len(tokenizer.encode("one two three", special=False, limit=count)) == count
    with pytest.raises(ContextOverflow):
        tokenizer.encode("one two three", special=False, limit=count - 1)


@pytest.mark.model
@pytest.mark.slow
def test_ten_megabytes_of_text(tokenizer: LlamaTokenizer) -> None:
    """Without a limit, ten megabytes in one word are tokenized without a crash."""
    assert len(tokenizer.encode("a" * 10_000_000, special=False)) > 100_000


@pytest.mark.model
@pytest.mark.parametrize(
    ("tokens", "positions", "sequences"),
    [
        ([1], [5], 1),
        ([1], [0], 2),
        ([1], [0], -1),
        ([49152], [0], 0),
        ([-1], [0], 0),
        ([], [], 0),
        ([1] * 65, range(65), 0),
    ],
)
def test_bad_batches_are_refused(
    context: LlamaContext, tokens: list[int], positions: list[int], sequences: int
) -> None:
    """Gaps, unknown sequences and tokens, empty and oversized batches are errors, after which the context works."""
    context.decode([1], [0], 1, False)
    with pytest.raises(EngineError):
        context.decode(tokens, positions, sequences, False)
    context.decode([1], [0], 0, True)
    assert np.isfinite(context.logits(0)).all()


@pytest.mark.model
def test_bad_calls_are_refused(context: LlamaContext) -> None:
    """Calls on which the library would end the process are errors."""
    with pytest.raises(EngineError, match="want logits"):
        context.decode([1, 2, 3], range(3), 0, True)
    context.decode([1, 2], range(2), 0, [False, True])
    for index in (0, 7, 10**6):
        with pytest.raises(EngineError, match="has no logits"):
            context.logits(index)
    for sequence in (-1, 2):
        for call in (context.seq_rm, context.pos_max, lambda seq: context.seq_cp(0, seq)):
            with pytest.raises(EngineError, match="no sequence"):
                call(sequence)


@pytest.mark.model
def test_a_full_cache_is_an_error_that_leaves_the_rest(context: LlamaContext) -> None:
    """Beyond the sequence's share of the context there is `CacheFull`, and nothing changed."""
    for start in range(0, context.n_ctx_seq, 64):
        context.decode([1] * 64, range(start, start + 64), 0, False)
    with pytest.raises(CacheFull):
        context.decode([1], [context.n_ctx_seq], 0, True)
    assert context.pos_max(0) == context.n_ctx_seq - 1
    context.decode([1], [0], 1, True)


@pytest.mark.model
def test_a_closed_context_is_refused(model: LlamaModel) -> None:
    """Using a closed context is an error; closing twice is nothing."""
    context = LlamaContext(model, n_ctx=256)
    context.close()
    context.close()
    for call in (lambda: context.decode([1], [0], 0, True), lambda: context.seq_rm(0), lambda: context.logits(0)):
        with pytest.raises(EngineError):
            call()


@pytest.mark.model
def test_a_decode_can_be_aborted_and_taken_up_again(model: LlamaModel) -> None:
    """`abort` from another thread ends a long decode soon; after `resume` the numbers are as if nothing had been."""
    tokens = [(37 * i) % 40_000 + 100 for i in range(512)]
    with LlamaContext(model, n_ctx=512, n_batch=512, n_ubatch=64, kv_types=("bf16", "f16")) as context:
        timer = threading.Timer(0.2, context.abort)
        timer.start()
        with pytest.raises(DecodeAborted):
            context.decode(tokens, range(512), 0, False)
        timer.join()
        context.resume()
        done = context.pos_max(0) + 1
        assert done < 512
        context.decode(tokens[done:80], range(done, 80), 0, False) if done < 80 else context.seq_rm(0, 80)
        context.decode([7], [80], 0, True)
        resumed = context.logits(0)
        context.seq_rm(0)
        context.decode(tokens[:80], range(80), 0, False)
        context.decode([7], [80], 0, True)
        assert np.array_equal(context.logits(0), resumed)


@pytest.mark.model
def test_other_threads_run_during_a_decode(model: LlamaModel) -> None:
    """The interpreter's lock is free while the library computes."""
    with LlamaContext(model, n_ctx=512, n_batch=128, n_ubatch=128) as context:
        worker = threading.Thread(target=context.decode, args=([5] * 128, range(128), 0, False))
        turns = 0
        worker.start()
        while worker.is_alive():
            turns += 1
            time.sleep(0.001)
        assert turns > 10
