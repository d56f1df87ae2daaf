"""The seeded sampler: its distribution, its filters, its edges, and its equality with a scalar reference."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.core import sampler_reference as reference

from assay.core import sampler
from assay.core.errors import EngineError
from assay.core.request import SamplerSettings
from assay.core.sampler import draw, redraw, top_logprobs

MICRO = 1_000_000
SEED = bytes(range(32))
EIGHTHS = st.integers(-120, 120).map(lambda n: n / 8)  # equal logits often
ROWS = hnp.arrays(np.float32, st.integers(1, 40), elements=EIGHTHS | st.floats(-15, 15, width=32))
WILD_ROWS = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False))
SETTINGS = st.builds(
    SamplerSettings,
    temperature=st.sampled_from([0, 1, 50_000, 700_000, MICRO, 3 * MICRO, 2**53 - 1]) | st.integers(1, 2 * MICRO),
    top_k=st.sampled_from([0, 0, 1, 5, 2**53 - 1]) | st.integers(0, 40),
    top_p=st.sampled_from([0, 1, MICRO - 1, MICRO, 2**53 - 1]) | st.integers(0, MICRO),
    min_p=st.sampled_from([0, 0, 1, MICRO, 2**53 - 1]) | st.integers(0, MICRO),
)
SEEDS, POSITIONS = st.binary(min_size=32, max_size=32), st.integers(0, 2**40)


def some_mask(data: st.DataObject, row: np.ndarray) -> np.ndarray | None:
    """No mask, or one that leaves a finite logit."""
    mask = data.draw(st.none() | hnp.arrays(np.bool_, row.size))
    assume(mask is None or np.isfinite(row[mask]).any())
    return mask


def softmax(row: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities, float64, by numpy."""
    x = (row.astype(np.float64) - row.max()) / temperature
    return np.exp(x) / np.exp(x).sum()


def kept(row: np.ndarray, settings: SamplerSettings, allowed: np.ndarray | None = None) -> set[int]:
    """The tokens that the filters leave: those with a finite gap."""
    return {i for i in range(row.size) if math.isfinite(redraw(row, settings, SEED, 0, i, allowed).gap)}


# --- distribution


def drawn(row: np.ndarray, settings: SamplerSettings, draws: int = 12_000) -> np.ndarray:
    """How often each token is drawn at so many positions."""
    return np.bincount([draw(row, settings, SEED, i) for i in range(draws)], minlength=row.size)


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square of draws as a normal deviate (Wilson and Hilferty 1931); rare tokens are pooled."""
    draws = counts.sum()
    rare = expected * draws < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum()) * draws
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    freedom = observed.size - 1
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_draws_follow_the_softmax(temperature: float) -> None:
    """Over positions, tokens come as often as the softmax at the temperature says, and not as another one says."""
    row = np.random.default_rng(5).normal(0, 2, 50).astype(np.float32)
    settings = SamplerSettings(temperature=round(temperature * MICRO))
    counts = drawn(row, settings)
    assert abs(chi_square(counts, softmax(row, temperature))) < 4
    assert chi_square(counts, softmax(row, temperature * 1.15)) > 8


def test_draws_follow_the_filtered_softmax() -> None:
    """With filters, the softmax of what they leave."""
    row = np.random.default_rng(6).normal(0, 2, 50).astype(np.float32)
    settings = SamplerSettings(temperature=900_000, top_k=20, top_p=900_000, min_p=30_000)
    expected = np.zeros(row.size)
    left = sorted(kept(row, settings))
    expected[left] = softmax(row, 0.9)[left] / softmax(row, 0.9)[left].sum()
    assert 3 < len(left) < 20
    counts = drawn(row, settings)
    assert abs(chi_square(counts, expected)) < 4
    assert chi_square(counts, softmax(row, 0.9)) > 8


def test_seeds_and_positions_are_independent() -> None:
    """Another seed or position draws anew: two tokens of equal weight agree about half of the time."""
    row = np.zeros(2, dtype=np.float32)
    seeds = [hashlib.sha256(bytes([i])).digest() for i in range(8)]
    table = np.array([[draw(row, SamplerSettings(), seed, position) for position in range(1000)] for seed in seeds])
    assert np.all(abs(table.mean(axis=1) - 0.5) < 0.08)
    for i in range(8):
        for j in range(i):
            assert abs((table[i] == table[j]).mean() - 0.5) < 0.08
        assert abs((table[i, 1:] == table[i, :-1]).mean() - 0.5) < 0.08


def test_noise_is_gumbel_and_within_its_bounds() -> None:
    """The noise of a hash is the quantile function of Gumbel's distribution to 14 digits, from -3.14 to 22.88."""
    hashes = np.unique(np.concatenate([np.arange(1000), 2**32 - 1 - np.arange(1000), np.arange(0, 2**32, 1_234_567)]))
    noise = sampler._noise(hashes.astype(np.uint64))
    exact = -np.log(-np.log((hashes + 0.5) / 2**32))
    np.testing.assert_allclose(noise, exact, rtol=1e-13, atol=1e-14)
    assert noise.min() == noise[0] > -3.14
    assert noise.max() == noise[-1] < 22.88
    assert np.all(np.diff(noise) > 0)


def test_the_quick_path_s_bound() -> None:
    """Hashes that are not over the quick path's bound have less noise than its deficit: such tokens score under 0."""
    assert sampler._noise(np.array([sampler._QUICK_HASH], dtype=np.uint64))[0] < sampler._QUICK
    assert sampler._noise(np.array([sampler._QUICK_HASH + 2**20], dtype=np.uint64))[0] > sampler._QUICK


def test_weights_are_exponentials() -> None:
    """Integer weights are 2^40 exp(-x) to one part in 10^14 and one unit; at 0 exactly 2^40."""
    deficit = np.concatenate([np.linspace(0, 27.5, 5001), np.arange(40) * math.log(2)])
    weights = sampler._weights(deficit)
    exact = np.exp(-deficit) * 2**40
    assert np.all(abs(weights - exact) <= 1 + exact * 1e-14)
    assert weights[0] == 2**40
    assert weights.tolist() == [reference.weight(x) for x in deficit.tolist()]


# --- filters


def naive_filters(row: np.ndarray, settings: SamplerSettings) -> set[int]:
    """Top-k, then top-p of what is left, then min-p, on the softmax at the temperature; gives up near a border."""
    p = softmax(row, settings.temperature / MICRO)
    order = np.lexsort((np.arange(row.size), row.max() - row.astype(np.float64)))
    order = [int(i) for i in order if p[i] >= p.max() * np.exp(-27)]
    if settings.top_k:
        order = order[: settings.top_k]
    if settings.top_p < MICRO:
        mass = np.cumsum(p[order]) / p[order].sum()
        assume(np.all(abs(mass - settings.top_p / MICRO) > 1e-9))
        order = order[: int(np.argmax(mass >= settings.top_p / MICRO)) + 1]
    if settings.min_p:
        assume(np.all(abs(p[order] / p.max() - settings.min_p / MICRO) > 1e-9))
        order = [i for i in order if p[i] >= settings.min_p / MICRO * p.max()]
    return set(order)


@given(ROWS, st.integers(50_000, 2 * MICRO), st.integers(0, 20), st.integers(1, MICRO), st.integers(0, MICRO - 1))
def test_filters_are_the_usual_ones(row: np.ndarray, temperature: int, top_k: int, top_p: int, min_p: int) -> None:
    """Each filter alone and all together leave what the textbook definitions leave."""
    for settings in (
        SamplerSettings(temperature),
        SamplerSettings(temperature, top_k=top_k),
        SamplerSettings(temperature, top_p=top_p),
        SamplerSettings(temperature, min_p=min_p),
        SamplerSettings(temperature, top_k, top_p, min_p),
    ):
        assert kept(row, settings) == naive_filters(row, settings)


def test_filters_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/8, 1/16, 1/16: what each filter leaves, borders included."""
    row = (np.log2([8, 4, 2, 1, 1]) * math.log(2)).astype(np.float32)
    assert kept(row, SamplerSettings(top_k=2)) == {0, 1}
    assert kept(row, SamplerSettings(top_k=4)) == {0, 1, 2, 3}  # the lower of two equal ids
    assert kept(row, SamplerSettings(top_p=400_000)) == {0}
    assert kept(row, SamplerSettings(top_p=500_001)) == {0, 1}
    assert kept(row, SamplerSettings(top_p=900_000)) == {0, 1, 2, 3}
    assert kept(row, SamplerSettings(top_p=0)) == {0}
    assert kept(row, SamplerSettings(min_p=240_000)) == {0, 1, 2}
    assert kept(row, SamplerSettings(min_p=MICRO)) == {0}
    assert kept(row, SamplerSettings(top_k=3, top_p=860_000)) == {0, 1, 2}  # 6/7 = 0.857 of what top-k left
    assert kept(row, SamplerSettings(top_k=3, top_p=850_000)) == {0, 1}
    assert kept(row, SamplerSettings(temperature=2 * MICRO, min_p=600_000)) == {0, 1}  # 2^-1/2 of the best at T = 2


@given(ROWS, SETTINGS, st.data())
def test_a_mask_is_as_if_the_other_tokens_were_not_there(
    row: np.ndarray, settings: SamplerSettings, data: st.DataObject
) -> None:
    """Masked tokens take no part in any filter: a mask equals logits of minus infinity, and never lets one through."""
    mask = data.draw(hnp.arrays(np.bool_, row.size).filter(np.any))
    hidden = np.where(mask, row, np.float32(-np.inf))
    assert draw(row, settings, SEED, 1, mask) == draw(hidden, settings, SEED, 1)
    assert mask[draw(row, settings, SEED, 1, mask)]
    for token in range(row.size):
        assert mask[token] or redraw(row, settings, SEED, 1, token, mask).gap == math.inf


# --- draws


@given(ROWS | WILD_ROWS, SETTINGS, SEEDS, POSITIONS, st.data())
def test_draw_redraw_and_reference_agree(
    row: np.ndarray, settings: SamplerSettings, seed: bytes, position: int, data: st.DataObject
) -> None:
    """Quick path, full path and scalar reference give the same token; gaps are the reference's, to the bit."""
    assume(np.isfinite(row.max()))
    mask = some_mask(data, row)
    token = draw(row, settings, seed, position, mask)
    asked = data.draw(st.integers(-1, row.size))
    again = redraw(row, settings, seed, position, asked, mask)
    values, allowed = row.tolist(), None if mask is None else mask.tolist()
    assert token == again.token == reference.draw(values, settings, seed, position, allowed)
    assert redraw(row, settings, seed, position, token, mask) == sampler.Draw(token, 0.0)
    assert again.gap >= 0
    if settings.temperature:
        scores = reference.scores(values, settings, seed, position, allowed)
        assert again.gap == (scores[token] - scores[asked] if asked in scores else math.inf)


def test_the_quick_path_equals_the_full_path() -> None:
    """Over many positions of a large row both paths agree, also where a far token wins and where no score is over 0."""
    row = np.random.default_rng(3).normal(0, 3, 2000).astype(np.float32)
    duel = np.array([0, -3.5], dtype=np.float32)
    far, under = 0, 0
    for position in range(1500):
        token = draw(row, SamplerSettings(), SEED, position)
        assert token == np.argmax(full_scores(row, position))
        far += bool(row[token] < row.max() - sampler._QUICK)
        scores = full_scores(duel, position)
        assert draw(duel, SamplerSettings(), SEED, position) == np.argmax(scores)
        under += bool(scores.max() <= 0)
    assert far > 100
    assert under > 100


def full_scores(row: np.ndarray, position: int) -> np.ndarray:
    """Noise minus deficit of every token of a row without any out of reach, at temperature 1."""
    ids = np.arange(row.size)
    deficit = float(row.max()) - row.astype(np.float64)
    assert deficit.max() < sampler.REACH
    return sampler._noise(sampler.hashes_at(SEED, position, ids)) - deficit


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings(700_000, top_k=40),
        SamplerSettings(1_500_000, top_p=950_000),
        SamplerSettings(9_000_000, top_p=999_999),
        SamplerSettings(2_000_000, min_p=1),
        SamplerSettings(1_000_000, 500, 900_000, 10_000),
    ],
)
def test_large_rows_agree_with_the_reference(settings: SamplerSettings) -> None:
    """With thousands of candidates and many ties, the shortcuts of the filters leave what the reference leaves."""
    row = (np.random.default_rng(8).normal(0, 4, 4000).round(1)).astype(np.float32)
    ids, deficit = sampler._candidates(row, settings, None)
    assert dict(zip(ids.tolist(), deficit.tolist(), strict=True)) == reference.candidates(row.tolist(), settings, None)
    for position in range(5):
        drawn = draw(row, settings, SEED, position)
        assert drawn == reference.draw(row.tolist(), settings, SEED, position)
        assert drawn == redraw(row, settings, SEED, position, drawn).token


def test_temperature_zero_takes_the_largest_logit() -> None:
    """At temperature 0 neither seed nor filters matter, and the lowest id wins ties."""
    row = np.array([1, 5, 3, 5, 5], dtype=np.float32)
    for settings in (SamplerSettings(0), SamplerSettings(0, 1, 0, MICRO)):
        assert {draw(row, settings, SEED, position) for position in range(20)} == {1}
    allowed = np.array([True, False, True, True, True])
    assert draw(row, SamplerSettings(0), SEED, 0, allowed) == 3
    assert redraw(row, SamplerSettings(0), SEED, 0, 2).gap == 2.0
    assert redraw(row, SamplerSettings(0), SEED, 0, 3) == sampler.Draw(1, 0.0)
    assert redraw(row, SamplerSettings(0), SEED, 0, 1, allowed) == sampler.Draw(3, math.inf)


def test_equal_scores_go_to_the_lowest_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where noise and logits are equal, the lowest id is drawn, by both paths."""
    monkeypatch.setattr(sampler, "hashes_at", lambda seed, position, ids: np.full(ids.size, 2**31, dtype=np.uint64))
    row = np.array([0, 2, 1, 2, 2], dtype=np.float32)
    assert draw(row, SamplerSettings(), SEED, 0) == redraw(row, SamplerSettings(), SEED, 0, 3).token == 1


def test_tokens_out_of_reach_are_never_drawn() -> None:
    """27 nats under the best is the end: even the largest noise could not lift such a token over the best one."""
    row = np.array([0, -26.9, -27.1], dtype=np.float32)
    assert kept(row, SamplerSettings()) == {0, 1}
    assert kept(row * np.float32(0.5), SamplerSettings(500_000)) == {0, 1}
    smallest, largest = sampler._noise(np.array([0, 2**32 - 1], dtype=np.uint64))
    assert largest - smallest < sampler.REACH


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, MICRO])
def test_broken_logits_are_an_engine_error(bad: float, temperature: int) -> None:
    """NaN and plus infinity are errors, not tokens; under a mask that hides them they do no harm."""
    row = np.array([0, bad, 1], dtype=np.float32)
    for function in (draw, lambda *args: redraw(*args, 0)):
        with pytest.raises(EngineError, match="not finite"):
            function(row, SamplerSettings(temperature), SEED, 0)
    with pytest.raises(EngineError, match="not finite"):
        top_logprobs(row, 0, 2)
    assert draw(row, SamplerSettings(temperature), SEED, 0, np.array([False, False, True])) == 2


def test_rows_without_a_way_on_are_an_engine_error() -> None:
    """All logits minus infinity, or a mask that leaves nothing."""
    for row, mask in ((np.full(3, -np.inf, np.float32), None), (np.zeros(3, np.float32), np.zeros(3, np.bool_))):
        for settings in (SamplerSettings(0), SamplerSettings()):
            with pytest.raises(EngineError):
                draw(row, settings, SEED, 0, mask)


# --- log-probabilities


@given(ROWS, st.integers(0, 45), st.data())
def test_top_logprobs_are_those_of_the_softmax(row: np.ndarray, count: int, data: st.DataObject) -> None:
    """The chosen token's and the most probable tokens' log-probabilities, the lowest id first among equals."""
    token = data.draw(st.integers(0, row.size - 1))
    top = top_logprobs(row, token, count)
    exact = np.log(softmax(row))
    order = sorted(range(row.size), key=lambda i: (-row[i], i))[:count]
    assert list(top.ids) == order
    np.testing.assert_allclose(top.logprobs, exact[order], atol=1e-5)
    assert top.chosen == pytest.approx(exact[token], abs=1e-5)


def test_top_logprobs_of_far_and_impossible_tokens() -> None:
    """Tokens at minus infinity come last, and asking for more tokens than there are ends."""
    row = np.array([-np.inf, 3, -3e38, -np.inf, 2], dtype=np.float32)
    top = top_logprobs(row, 0, 9)
    assert top.ids == (1, 4, 2, 0, 3)
    assert top.chosen == top.logprobs[-1] == -math.inf
