"""Statistical checks, on rows of numbers: honest noise passes, each kind of cheating shows in its own test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.tiny import N_VOCAB, TinyModel, tiny_completion, tiny_request
from tests.verify.kit import CALIBRATION, FREE, NoisyReplayer, bundled, completed, reader

from assay.core.bundle import Bundle
from assay.core.completion import Completion
from assay.core.encoding import MICRO
from assay.core.errors import EngineError
from assay.core.evidence import TOP_LEAF_SIZE, read_top_leaf, top_leaf
from assay.core.request import Request, SamplerSettings
from assay.core.sampler import draw, top_logprobs
from assay.verify.statistics import FARTHEST, MOST_NOISES, SAME_BITS, Measured, judge, measure

ENTRY = CALIBRATION.entries[0]
NOISE = 0.1
RUNS = 14
SAMPLERS = (
    SamplerSettings(0),
    SamplerSettings(300_000),
    SamplerSettings(MICRO),
    SamplerSettings(1_200_000),
    SamplerSettings(MICRO, top_k=20),
    SamplerSettings(MICRO, top_p=900_000),
    SamplerSettings(MICRO, min_p=50_000),
)


def request(run: int, sampler: SamplerSettings | None = None) -> Request:
    """Another text and another seed in each run; long answers, because the tiny model seldom ends."""
    made = tiny_request(f"Question {run}", level="statistical", max_tokens=64, nonce=bytes([run + 1]) * 32)
    return replace(made, sampler=sampler or SAMPLERS[run % len(SAMPLERS)])


def written(asked: Request, *, seed: int = 0, noise: float = NOISE, dice: int = 5) -> Completion:
    """The answer of a prover whose logits vary by `noise`, with the leaves that it saw."""
    model, prompt, random = TinyModel(seed), reader().render(asked), np.random.default_rng(dice + asked.nonce[0])
    tokens: list[int] = []
    leaves: list[bytes] = []
    while len(tokens) < asked.max_tokens:
        row = model.logits([*prompt.tokens, *tokens]) + random.normal(0, noise, N_VOCAB).astype(np.float32)
        tokens.append(draw(row, asked.sampler, asked.seed, len(tokens)))
        leaves.append(opened(row, tokens[-1]))
    return Completion(prompt, tuple(tokens), "", "length", tuple(leaves))


def opened(row: np.ndarray, token: int) -> bytes:
    """A leaf."""
    return top_leaf(top_logprobs(row, token, 8))


def measured(bundle: Bundle, *, noise: float = NOISE) -> Measured:
    """Recompute twice on machines with noise of their own."""
    prompt = reader().render(bundle.request)
    return measure(bundle, prompt, NoisyReplayer(11, noise=noise), NoisyReplayer(12, noise=noise))


def failing(bundle: Bundle) -> set[str]:
    """The tests that reject."""
    return {finding.check for finding in judge(measured(bundle), ENTRY) if finding.outcome == "fails"}


def rejected(make: Callable[[Request], Completion], sampler: SamplerSettings | None = None) -> dict[str, int]:
    """How many of RUNS runs each test rejects, and how many any test rejects."""
    counts = dict.fromkeys(["any", *ENTRY.scales], 0)
    for run in range(RUNS):
        asked = request(run, sampler)
        found = failing(bundled(asked, make(asked), profile=FREE))
        counts["any"] += bool(found)
        for test in found:
            counts[test] += 1
    return counts


def test_honest_noise_passes_every_test() -> None:
    """An honest prover on another machine is not rejected, at any temperature and with any filter."""
    assert rejected(written)["any"] == 0


@pytest.mark.parametrize("noise", [0.001, 0.03, 0.3])
def test_the_yardstick_is_the_noise_of_the_response_itself(noise: float) -> None:
    """Models with less or more noise need no other thresholds."""
    for run in range(RUNS):
        asked = request(run)
        made = measured(bundled(asked, written(asked, noise=noise), profile=FREE), noise=noise)
        assert {finding.outcome for finding in judge(made, ENTRY)} == {"holds"}


def test_another_model_shows_in_the_forward_test() -> None:
    """Numbers of other weights are far from the recomputed ones."""
    counts = rejected(lambda asked: written(asked, seed=1))
    assert counts["forward"] == RUNS


def test_an_ignored_seed_shows_wherever_there_is_a_choice() -> None:
    """Tokens drawn with another seed are not those that the opened numbers and the seed give."""

    def make(asked: Request) -> Completion:
        return written(replace(asked, nonce=b"\xee" * 32))

    counts = rejected(make, SamplerSettings(700_000))
    assert counts["opening"] == counts["sampler"] == RUNS
    assert counts["forward"] == 0


@pytest.mark.parametrize(("asked_for", "used"), [(0, 0.7), (0.7, 1.0), (0.7, 0), (1.2, 0.7)])
def test_an_ignored_temperature_shows(asked_for: float, used: float) -> None:
    """The same seed at another temperature gives other tokens now and then; the opened numbers tell exactly."""
    wanted, given = SamplerSettings(round(asked_for * MICRO)), SamplerSettings(round(used * MICRO))

    def make(asked: Request) -> Completion:
        # The seed is bound to the request: the cheat draws with the right seed, but otherwise.
        return redrawn(asked, given)

    assert rejected(make, wanted)["opening"] >= RUNS * 0.9


def redrawn(asked: Request, sampler: SamplerSettings) -> Completion:
    """An answer drawn with `asked`'s seed and other settings."""
    model, prompt, random = TinyModel(), reader().render(asked), np.random.default_rng(asked.nonce[0])
    tokens: list[int] = []
    leaves: list[bytes] = []
    while len(tokens) < asked.max_tokens:
        row = model.logits([*prompt.tokens, *tokens]) + random.normal(0, NOISE, N_VOCAB).astype(np.float32)
        tokens.append(draw(row, sampler, asked.seed, len(tokens)))
        leaves.append(opened(row, tokens[-1]))
    return Completion(prompt, tuple(tokens), "", "length", tuple(leaves))


@pytest.mark.parametrize(
    "ignored",
    [SamplerSettings(MICRO, top_k=3), SamplerSettings(MICRO, top_p=500_000), SamplerSettings(MICRO, min_p=300_000)],
)
def test_an_ignored_filter_shows(ignored: SamplerSettings) -> None:
    """Tokens well outside the requested filters are as bad as tokens that lost the draw."""
    assert rejected(lambda asked: redrawn(asked, SamplerSettings(MICRO)), ignored)["sampler"] >= RUNS * 0.9


def test_cheap_tokens_with_an_honest_prefill_show_in_the_sampler_tests() -> None:
    """Evidence that the real model computed for another model's tokens is right, but the draws are not."""

    def make(asked: Request) -> Completion:
        cheap = written(asked, seed=1).tokens
        return completed(asked, lambda _: list(cheap), noise=NOISE)

    counts = rejected(make, SamplerSettings(MICRO))
    assert counts["forward"] == 0
    assert counts["opening"] == counts["sampler"] == RUNS


def edited(asked: Request, pick: int) -> Completion:
    """The third token becomes the `pick`-th best of the others, and the evidence is computed for it."""

    def edit(tokens: list[int]) -> list[int]:
        row = TinyModel().logits([*reader().render(asked).tokens, *tokens[:2]])
        others = [int(token) for token in np.argsort(-row) if token != tokens[2] and token < 128]
        return [*tokens[:2], others[pick], *tokens[3:]]

    return completed(asked, edit, noise=NOISE)


def test_one_replaced_token_shows() -> None:
    """The opened numbers themselves contradict a replaced token, whichever it is; the recomputed ones mostly do."""
    for pick in (0, 1, 5):
        counts = rejected(lambda asked, pick=pick: edited(asked, pick), SamplerSettings(700_000))
        assert counts["any"] >= RUNS * 0.9
    assert rejected(lambda asked: edited(asked, 40), SamplerSettings(700_000))["sampler"] == RUNS


def test_numbers_bent_to_excuse_a_replaced_token_show() -> None:
    """A prover that opens a log-probability with which the token would have been drawn is far off at that token."""

    def make(asked: Request) -> Completion:
        made = edited(asked, 40)
        leaf = read_top_leaf(made.leaves[2])
        ids, logprobs = leaf.ids[1:], leaf.logprobs[1:]
        bent = top_leaf(replace(leaf, chosen=-0.1, ids=(made.tokens[2], *ids), logprobs=(-0.1, *logprobs)))
        return replace(made, leaves=(*made.leaves[:2], bent, *made.leaves[3:]))

    counts = rejected(make, SamplerSettings(700_000))
    assert counts["chosen"] == RUNS
    assert counts["sampler"] == RUNS


def test_leaving_out_probable_tokens_shows() -> None:
    """A prover cannot open only tokens that never compete: what it leaves out counts as improbable."""

    def make(asked: Request) -> Completion:
        made, model = written(asked), TinyModel()
        leaves: list[bytes] = []
        tokens = list(reader().render(asked).tokens)
        for token, leaf in zip(made.tokens, made.leaves, strict=True):
            row = model.logits(tokens)
            low = np.argsort(-row)[100:108]
            total = float(np.log(np.exp(row.astype(np.float64)).sum()))
            kept = read_top_leaf(leaf)
            leaves.append(top_leaf(replace(kept, ids=tuple(low.tolist()), logprobs=tuple((row[low] - total).tolist()))))
            tokens.append(token)
        return replace(made, leaves=tuple(leaves))

    assert rejected(make)["forward"] == RUNS


def test_what_one_token_can_add_is_bounded() -> None:
    """No single number decides more than a bounded part: absurd openings give finite statistics."""
    asked = request(1)
    made = written(asked)
    absurd = replace(
        made, leaves=(*made.leaves[:-1], b"\xff" * 4 + made.leaves[-1][4:8] + b"\xff" * 4 + made.leaves[-1][12:])
    )
    before, after = (measured(bundled(asked, each, profile=FREE)).statistics for each in (made, absurd))
    assert after["chosen"] - before["chosen"] <= MOST_NOISES**2
    assert after["forward"] - before["forward"] <= 2 * FARTHEST / NOISE / len(made.tokens)


def test_a_foreign_sampler_is_held_to_the_temperature() -> None:
    """Without a seed, tokens drawn as requested pass, and tokens drawn at another temperature are too (un)likely."""
    foreign = replace(FREE, sampler="foreign")
    for run in range(RUNS):
        asked = request(run, SAMPLERS[2 + run % 5])
        fresh = replace(asked, nonce=bytes([200 - run]) * 32)
        good = bundled(asked, written(fresh), profile=foreign)
        assert failing(good) == set()
        hot = redrawn(fresh, SamplerSettings(2_500_000))
        cold = redrawn(fresh, SamplerSettings(300_000))
        for bad in (hot, cold):
            assert "surprise" in failing(bundled(asked, bad, profile=foreign))


def test_a_foreign_sampler_at_temperature_zero_takes_the_best_token() -> None:
    """At temperature 0 there is one right token, seed or not."""
    foreign = replace(FREE, sampler="foreign")
    asked = request(0, SamplerSettings(0))
    assert failing(bundled(asked, written(asked), profile=foreign)) == set()
    warm = redrawn(asked, SamplerSettings(MICRO))
    assert {"sampler", "opening"} <= failing(bundled(asked, warm, profile=foreign))


def test_a_pinned_receipt_is_measured_by_its_draws_alone() -> None:
    """Without an opening, the sampler's test is what is left."""
    asked = replace(request(2), level="pinned")
    made = completed(asked)
    found = measured(bundled(asked, made))
    assert set(found.statistics) == {"sampler"}
    assert found.noise > 0


def test_equal_bits_need_no_second_recomputation() -> None:
    """Where there is no noise, anything beyond the rounding of the opened numbers is rejected."""
    asked = request(2)
    exact = written(asked, noise=0.0)
    slight = written(asked, noise=0.02)
    prompt = reader().render(asked)
    for made, outcomes in ((exact, {"holds"}), (slight, {"holds", "fails"})):
        found = judge(measure(bundled(asked, made), prompt, NoisyReplayer(1, noise=0.0), None), SAME_BITS)
        assert {finding.outcome for finding in found} == outcomes


def test_a_test_without_calibration_blames_nobody() -> None:
    """What has no scale is inconclusive."""
    found = judge(Measured(3, 0.1, {"forward": 9.0}, {}), replace(ENTRY, scales={}))
    assert [finding.outcome for finding in found] == ["inconclusive"]


def test_broken_numbers_are_the_machines_fault() -> None:
    """Logits that are not finite end in an error about the engine, not in a verdict about the provider."""

    class Broken(NoisyReplayer):
        def rows(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
            for row in super().rows(tokens, first):
                yield np.full_like(row, np.nan)

    asked = request(1)
    bundle = bundled(asked, tiny_completion(asked), profile=FREE)
    assert len(bundle.opening) == TOP_LEAF_SIZE * len(bundle.tokens)
    with pytest.raises(EngineError):
        measure(bundle, reader().render(asked), Broken(1), None)
