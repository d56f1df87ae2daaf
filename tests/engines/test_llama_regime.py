"""In the pinned regime, decoding in any way gives the bits of a plain prefill, which the replayer computes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from assay.core.errors import ContextOverflow, EngineError
from assay.engines.llama_context import LlamaContext
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_regime import file_refusal, open_context, pinned_refusal, probe, profile_of
from assay.engines.llama_replay import LlamaReplayer
from assay.engines.llamacpp import levels_of

pytestmark = pytest.mark.model

LONG = 540
"""Tokens of the sequence that crosses 512 positions, where llama.cpp's default would begin to depend on threads."""


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[LlamaModel]:
    """The real model."""
    with LlamaModel(model_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def replayer(model: LlamaModel) -> Iterator[LlamaReplayer]:
    """The verifier's side."""
    opened = LlamaReplayer(model)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def long(model: LlamaModel) -> tuple[int, ...]:
    """A text of `LONG` tokens."""
    text = "".join(
        f"In the year {1200 + 7 * n}, {n} ships left the harbour; the {n % 9}th never came back. " for n in range(99)
    )
    return model.tokenizer.encode(text, special=False)[:LONG]


@pytest.fixture(scope="module")
def expected(replayer: LlamaReplayer, long: tuple[int, ...]) -> list[np.ndarray]:
    """Row i: the logits after the first i + 500 tokens of `long`, by prefill."""
    return list(replayer.rows((*long, 0), 500))


def feed(context: LlamaContext, tokens: Sequence[int], start: int, seq: int, chunks: Sequence[int]) -> None:
    """Prefill `tokens[start:]` in chunks of the given sizes, repeated."""
    sizes = (chunks[i % len(chunks)] for i in range(len(tokens)))
    while start < len(tokens):
        part = tokens[start : start + next(sizes)]
        context.decode(part, range(start, start + len(part)), seq, False)
        start += len(part)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_decode_equals_prefill(
    model: LlamaModel, long: tuple[int, ...], expected: list[np.ndarray], threads: int
) -> None:
    """Token by token beyond 512 positions, alone and beside others, on one and two threads: the bits of a prefill."""
    with open_context(model, "pinned", sequences=4, context=LONG + 1, threads=threads) as context:
        feed(context, long[:499], 0, 1, (64, 1, 300, 33, 2))
        feed(context, long[:20], 0, 3, (20,))
        feed(context, long[:30], 0, 2, (7,))
        for position in range(499, LONG):
            beside = [s for s in (2, 3) if position % 4 & s - 1]
            context.decode(
                [long[position], *(9 for _ in beside)],
                [position, *(context.pos_max(s) + 1 for s in beside)],
                [1, *beside],
                True,
            )
            assert np.array_equal(context.logits(0), expected[position - 499]), position


def test_a_shared_prefix_keeps_the_bits(model: LlamaModel, long: tuple[int, ...], replayer: LlamaReplayer) -> None:
    """A sequence copied from another, cut back and continued gives the bits of one computed alone."""
    rows = list(replayer.rows((*long[:60], 0), 1))
    with open_context(model, "pinned", sequences=2, context=256, threads=1) as context:
        feed(context, [*long[:45], 1, 2, 3], 0, 0, (20,))
        context.seq_cp(0, 1)
        context.seq_rm(1, 45)
        context.decode(long[45:60], range(45, 60), 1, [False] * 14 + [True])
        assert np.array_equal(context.logits(14), rows[59])
        context.seq_rm(0, 42)
        context.decode(long[42:44], range(42, 44), 0, [False, True])
        assert np.array_equal(context.logits(1), rows[43])


def test_the_free_regime_is_near_and_not_equal(
    model: LlamaModel, long: tuple[int, ...], replayer: LlamaReplayer
) -> None:
    """Outside the regime no row is equal (so equality is not trivial), and the noise is small."""
    pinned = list(replayer.rows(long[:60], 20))
    free = LlamaReplayer(model, regime="free")
    rows = list(free.rows(long[:60], 20))
    free.close()
    for one, other in zip(rows, pinned, strict=True):
        assert not np.array_equal(one, other)
        assert np.abs(one - other).mean() < 1


def test_another_cache_type_gives_other_numbers(
    model: LlamaModel, long: tuple[int, ...], replayer: LlamaReplayer
) -> None:
    """An eight-bit cache changes bits already in a short sequence."""
    short = long[:24]
    (honest,) = replayer.rows((*short, 0), 24)
    with open_context(model, "pinned", sequences=1, context=256, threads=1, kv_type="q8_0") as context:
        context.decode(short, range(24), 0, [False] * 23 + [True])
        assert not np.array_equal(context.logits(23), honest)


def test_the_replayer_keeps_a_prefix_and_no_trace_of_it(replayer: LlamaReplayer, long: tuple[int, ...]) -> None:
    """After any other sequence, rows are the same as from a fresh replayer, float32, and as many as asked for."""
    other = [*long[:30], 5, 6, 7, 8, *long[:30]]
    first = list(replayer.rows(other, 10))
    assert [row.dtype for row in first] == [np.dtype(np.float32)] * (len(other) - 10)
    assert not list(replayer.rows(other, len(other)))
    list(replayer.rows(long[:50], 49))
    again = list(replayer.rows(other, 10))
    replayer.close()
    fresh = list(replayer.rows(other, 10))
    assert np.array_equal(first, again)
    assert np.array_equal(first, fresh)


def test_an_unfinished_replay_ends_when_another_begins(replayer: LlamaReplayer, long: tuple[int, ...]) -> None:
    """The old iterator raises rather than give rows of a cache that is not its own any more."""
    rows = replayer.rows(long[:100], 1)
    next(rows)
    list(replayer.rows(long[:10], 9))
    with pytest.raises(EngineError, match="another replay"):
        list(rows)


def test_a_replay_can_be_stopped(model: LlamaModel, long: tuple[int, ...]) -> None:
    """Also within a long prompt, of which no row comes out: at the next micro-batch it ends with an error."""
    turns = iter([False, False, True])
    stopped = LlamaReplayer(model, stopped=lambda: next(turns))
    with pytest.raises(EngineError, match="stopped"):
        list(stopped.rows(long[:300], 299))
    assert next(turns, None) is None
    stopped.close()


def test_replays_that_make_no_sense_are_refused(replayer: LlamaReplayer) -> None:
    """Too many tokens, unknown tokens and positions without a row are errors at the call."""
    with pytest.raises(ContextOverflow):
        replayer.rows([1] * 2049, 5)
    for tokens, first in (([1, 2], 0), ([1, 2], 3), ([], 1), ([1, 49152], 1), ([1, -1], 1)):
        with pytest.raises(EngineError):
            replayer.rows(tokens, first)


def test_profiles_name_what_changes_the_numbers(model: LlamaModel) -> None:
    """The pinned profile does not depend on threads; the cache's types, the regime and repacking show."""
    pinned = profile_of(model, "pinned", context=2048, threads=1)
    assert pinned == profile_of(model, "pinned", context=2048, threads=2)
    assert (pinned.regime, pinned.kv_type, pinned.flash_attention, pinned.threads) == ("pinned/1", "bf16+f16", True, 0)
    assert profile_of(model, "pinned", context=2048, threads=1, kv_type="q8_0").kv_type == "q8_0"
    assert profile_of(model, "free", context=2048, threads=2).threads == 2


def test_repacked_weights_are_not_pinned(model_path: Path) -> None:
    """A model opened with repacked weights is refused in the pinned regime, and its profile says so."""
    with LlamaModel(model_path, repack=True) as repacked:
        assert "repacked" in pinned_refusal(repacked)
        assert profile_of(repacked, "free", context=256, threads=1).build.endswith("+repack")
        with pytest.raises(EngineError, match="statistical"):
            open_context(repacked, "pinned", sequences=1, context=256, threads=1)


def test_the_probe_passes_the_real_model(model: LlamaModel) -> None:
    """The real model belongs in the regime, and its fingerprint does not depend on threads."""
    found = probe(model)
    assert found.refusal == ""
    assert len(found.fingerprint) == 64
    assert probe(model, threads=2) == found


def test_a_level_that_nobody_could_check_is_not_promised(model: LlamaModel, model_path: Path, tmp_path: Path) -> None:
    """Verifiers learn the noise from two configurations: where a file allows one only, `signed` is all there is, and
    its vocabulary alone tells."""
    assert levels_of(model, "pinned") == ("signed", "statistical", "pinned")
    assert levels_of(model, "free") == ("signed", "statistical")
    file = tmp_path / "f16.gguf"
    with_f16_matrix(model_path, file, "blk.0.ffn_down.weight", header=1)
    for vocab_only in (False, True):
        with LlamaModel(file, vocab_only=vocab_only) as half:
            assert "F16" in file_refusal(half)
            assert levels_of(half, "free") == ("signed",)


@pytest.mark.slow
def test_the_probe_finds_weights_that_do_not_fit(model_path: Path, tmp_path: Path) -> None:
    """A file with one F16 matrix, whatever its header says, is found out: one row and many rows differ."""
    file = tmp_path / "mixed.gguf"
    with_f16_matrix(model_path, file, "blk.0.ffn_down.weight")
    with LlamaModel(file) as mixed:
        assert pinned_refusal(mixed) == ""
        assert "different logits" in probe(mixed).refusal


def with_f16_matrix(source: Path, target: Path, name: str, *, header: int | None = None) -> None:
    """Copy a GGUF, with one matrix in F16; `header`: the file type that it states, if another one."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            changed = header is not None and field.name == "general.file_type"
            writer.add_key_value(field.name, header if changed else field.contents(), kind, items)
    for tensor in reader.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if tensor.name == name:
            data = gguf.dequantize(data, kind).astype(np.float16)
            kind = gguf.GGMLQuantizationType.F16
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "threads"), [(1, 1), (2, 2), (3, 2)])
def test_random_lives(
    model: LlamaModel, replayer: LlamaReplayer, long: tuple[int, ...], seed: int, threads: int
) -> None:
    """Four slots with random beginnings, shared prefixes, ends and subsets: every row is that of a lone prefill."""
    rng = random.Random(seed)
    seen: list[tuple[tuple[int, ...], np.ndarray]] = []
    lives: dict[int, list[int]] = {}
    with open_context(model, "pinned", sequences=4, context=800, threads=threads) as context:

        def begin(slot: int) -> None:
            tokens, start = list(long[rng.randrange(200) :][: rng.choice([20, 150, 340])]), 0
            if lives and rng.random() < 0.5:
                source = rng.choice(sorted(lives))
                start = rng.randrange(1, len(lives[source]) + 1)
                tokens = lives[source][:start] + tokens[: rng.randrange(1, 40)]
                context.seq_cp(source, slot)
            context.seq_rm(slot, start)
            while start < len(tokens):
                part = tokens[start : start + rng.choice([1, 2, 7, 31, 64, 500])]
                wanted = [False] * (len(part) - 1) + [True]
                context.decode(part, range(start, start + len(part)), slot, wanted)
                start += len(part)
                seen.append((tuple(tokens[:start]), context.logits(len(part) - 1)))
            lives[slot] = tokens

        for _ in range(40):
            free = [slot for slot in range(4) if slot not in lives]
            if free and (not lives or rng.random() < 0.3):
                begin(rng.choice(free))
            elif rng.random() < 0.15:
                del lives[rng.choice(sorted(lives))]
            else:
                active = [slot for slot in sorted(lives) if len(lives[slot]) < 790 and rng.random() < 0.8]
                for _ in range(3 if active else 0):
                    for slot in active:
                        lives[slot].append(rng.randrange(1000, 40_000))
                    tokens, ends = [lives[s][-1] for s in active], [len(lives[s]) - 1 for s in active]
                    context.decode(tokens, ends, active, True)
                    seen += [(tuple(lives[slot]), context.logits(i)) for i, slot in enumerate(active)]
    assert len(seen) > 100
    for tokens, row in sorted(seen, key=lambda item: item[0]):
        (honest,) = replayer.rows((*tokens, 0), len(tokens))
        assert np.array_equal(row, honest), len(tokens)
