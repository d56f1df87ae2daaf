"""The integer sampler: its distribution, its filters, its edges; reference, kernel and a scalar one draw the same."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.engines.exact import sampler_reference as scalar

from assay.core import sampler as floats
from assay.core.errors import EngineError
from assay.core.request import SamplerSettings
from assay.engines.exact.kernels import sampling as fast
from assay.engines.exact.sampling import (
    NATS,
    OCTAVE,
    deficits,
    draw,
    enough,
    kept,
    log2,
    noise,
    nothing_left,
    ordered,
    rate,
    top_logprobs,
    weights,
)
from assay.engines.exact.tables import exp2_table, log2_table, tail_table

MICRO = 1_000_000
SEED = bytes(range(32))
MOST = 2**31 - 1
LOGITS = st.integers(-120, 120).map(lambda n: n << 13) | st.integers(-(15 << 16), 15 << 16)  # equal ones often
ROWS = hnp.arrays(np.int32, st.integers(1, 40), elements=LOGITS)
WILD_ROWS = hnp.arrays(
    np.int32, st.integers(1, 300), elements=st.integers(-MOST, MOST) | st.sampled_from([MOST, -MOST])
)
SETTINGS = st.builds(
    SamplerSettings,
    temperature=st.sampled_from([0, 1, 50_000, 700_000, MICRO, 3 * MICRO, 2**53 - 1]) | st.integers(1, 2 * MICRO),
    top_k=st.sampled_from([0, 0, 1, 5, 2**53 - 1]) | st.integers(0, 40),
    top_p=st.sampled_from([0, 1, MICRO - 1, MICRO, 2**53 - 1]) | st.integers(0, MICRO),
    min_p=st.sampled_from([0, 0, 1, MICRO, 2**53 - 1]) | st.integers(0, MICRO),
)
SEEDS, POSITIONS = st.binary(min_size=32, max_size=32), st.integers(0, 2**40)
EVERYTHING = [
    SamplerSettings(0),
    SamplerSettings(700_000),
    SamplerSettings(),
    SamplerSettings(5 * MICRO),
    SamplerSettings(2**53 - 1),
    SamplerSettings(top_k=40),
    SamplerSettings(2 * MICRO, top_k=1500),
    SamplerSettings(700_000, 40, 950_000),
    SamplerSettings(top_p=950_000),
    SamplerSettings(9 * MICRO, top_p=999_999),
    SamplerSettings(min_p=50_000),
    SamplerSettings(2 * MICRO, min_p=1),
    SamplerSettings(1_300_000, 500, 900_000, 10_000),
]


def row_of(seed: int, size: int, spread: float = 2.0) -> np.ndarray:
    """Normally distributed logits, int32 [size]."""
    return np.round(np.random.default_rng(seed).normal(0, spread * 65536, size)).astype(np.int32)


def softmax(row: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities, float64, by numpy."""
    x = (row.astype(np.float64) - row.max()) / 65536 / temperature
    return np.exp(x) / np.exp(x).sum()


def left(row: np.ndarray, settings: SamplerSettings, allowed: np.ndarray | None = None) -> list[int]:
    """The tokens that mask and filters leave, the first one first."""
    ids = ordered(row, allowed)
    return ids[: kept(deficits(int(row[ids[0]]) - row[ids].astype(np.int64), settings.temperature), settings)].tolist()


# --- distribution


def drawn(row: np.ndarray, settings: SamplerSettings, draws: int = 12_000) -> np.ndarray:
    """How often each token is drawn at so many positions."""
    return np.bincount([fast.draw(row, settings, SEED, i) for i in range(draws)], minlength=row.size)


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
    row = row_of(5, 50)
    settings = SamplerSettings(temperature=round(temperature * MICRO))
    counts = drawn(row, settings)
    assert abs(chi_square(counts, softmax(row, temperature))) < 4
    assert chi_square(counts, softmax(row, temperature * 1.15)) > 8


def test_draws_follow_the_filtered_softmax() -> None:
    """With filters, the softmax of what they leave."""
    row = row_of(6, 50)
    settings = SamplerSettings(temperature=900_000, top_k=20, top_p=900_000, min_p=30_000)
    expected = np.zeros(row.size)
    some = left(row, settings)
    expected[some] = softmax(row, 0.9)[some] / softmax(row, 0.9)[some].sum()
    assert 3 < len(some) < 20
    counts = drawn(row, settings)
    assert abs(chi_square(counts, expected)) < 4
    assert chi_square(counts, softmax(row, 0.9)) > 8


def test_equal_logits_are_drawn_equally() -> None:
    """Where all logits are the same, each token comes as often as any other, also without a filter's help."""
    row = np.full(200, -MOST, np.int32)
    assert abs(chi_square(drawn(row, SamplerSettings()), np.full(200, 1 / 200))) < 4


@pytest.mark.parametrize("settings", EVERYTHING, ids=str)
def test_draws_agree_with_the_sampler_in_floating_point(settings: SamplerSettings) -> None:
    """Same generator, same filters: `gumbel/1` draws the same token from the same logits, up to its rounding."""
    same = 0
    for position in range(100):
        row = row_of(position, 3000, 3.0)
        same += fast.draw(row, settings, SEED, position) == floats.draw(
            (row / 65536).astype(np.float32), settings, SEED, position
        )
    assert same >= 99


# --- functions


def test_noise_is_gumbel_within_its_precision() -> None:
    """Noise is -log2(-log2 u) to 3 parts in 10^7 (of weight, less), rises with the hash, and keeps its bounds."""
    near = np.arange(3000)
    hashes = np.unique(np.concatenate([near, 2**31 + near - 1500, 2**32 - 1 - near, np.arange(0, 2**32, 1_234_567)]))
    u, x = (hashes + 0.5) / 2**32, (2**32 - hashes - 0.5) / 2**32
    exact = -np.log2(np.where(x < 0.5, -np.log1p(-np.minimum(x, 0.5)), -np.log(u)) / np.log(2))
    found = noise(hashes.astype(np.uint64))
    assert np.abs(found / 2**OCTAVE - exact).max() < 4e-7
    assert np.diff(found).min() >= 0
    assert -5.05 < found[0] / 2**OCTAVE < -5.04
    assert 32.47 < found[-1] / 2**OCTAVE < 32.48


@given(st.integers(0, 2**32 - 1) | st.integers(0, 60).map(lambda n: 2**32 - 1 - 2**n % 2**32))
def test_what_the_kernel_passes_over_cannot_win(hashed: int) -> None:
    """Noise over 0 is under 33 - log2(c) - 1/2; only upper halves have it: what `_race` takes for granted."""
    found = int(noise(np.array([hashed], dtype=np.uint64))[0])
    rest = 2**33 - (2 * hashed + 1)
    assert found <= 0 or found < (32.5 - math.log2(rest)) * 2**OCTAVE
    assert found <= 0 or hashed >= 2**31


@given(st.integers(0, 42 << OCTAVE))
def test_weights_are_powers_of_two(deficit: int) -> None:
    """To one part in 10^7 and one unit; they never rise; exactly 2^40 at the peak, nothing beyond 40 octaves."""
    here, after = weights(np.array([deficit, deficit + 1])).tolist()
    exact = 2.0 ** (40 - deficit / 2**OCTAVE)
    assert abs(here - exact) <= 1 + exact * 1e-7
    assert here >= after
    assert (here == 2**40) == (deficit == 0) or deficit < 50
    assert (here > 0) == (deficit <= 40 << OCTAVE)


@given(st.integers(1, 2**38 - 1))
def test_log2(x: int) -> None:
    """Within 2 parts in 10^7, never over the logarithm by more than rounding, exact for powers of two."""
    found = int(log2(np.array([x]))[0]) / 2**30
    assert -3e-7 < found - math.log2(x) < 1e-8
    assert found == math.log2(x) or x & (x - 1)


@given(st.integers(1, 2**53 - 1), st.integers(0, 2**32 - 2))
def test_deficits(temperature: int, below: int) -> None:
    """To 2^-29 of itself and one unit under (peak - logit) / T in octaves; products have at most 63 bits."""
    multiplier, shift = rate(temperature)
    assert 2**30 <= multiplier < 2**31
    assert 2 <= shift <= 55
    found = int(deficits(np.array([below]), temperature)[0])
    exact = below / 65536 * MICRO / temperature / math.log(2) * 2**OCTAVE
    assert exact * (1 - 2**-29) - 1 <= found <= exact * (1 + 1e-12)


@given(st.integers(1, 2**62), st.integers(0, MICRO))
def test_enough(total: int, top_p: int) -> None:
    """The kernel rounds a share of the weight as the reference does, without passing 63 bits; some weight is asked."""
    assert fast._enough(total, top_p) == max(enough(total, top_p), 1)
    assert enough(total, top_p) == math.ceil(Fraction(total * top_p, MICRO))


@given(st.integers(0, 2**32 - 1))
def test_the_kernel_s_functions(hashed: int) -> None:
    """Noise and weights of the kernel are the reference's."""
    expected = int(noise(np.array([hashed], dtype=np.uint64))[0])
    assert fast._noise(2**33 - 2 * hashed - 1, log2_table(), tail_table()) == expected == scalar.noise(hashed)
    deficit = hashed >> 2
    assert fast._weight(deficit, exp2_table()) == int(weights(np.array([deficit]))[0]) == scalar.weight(deficit)


def test_the_rate_s_constant() -> None:
    """Octaves of a nat at a temperature of one millionth, as the scalar sampler computes them."""
    assert NATS == scalar.NATS


# --- filters


def test_filters_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/8, 1/16, 1/16: what each filter leaves, borders included."""
    row = np.round(np.log2([8, 4, 2, 1, 1]) * math.log(2) * 65536).astype(np.int32)
    assert left(row, SamplerSettings(top_k=2)) == [0, 1]
    assert left(row, SamplerSettings(top_k=4)) == [0, 1, 2, 3]  # the lower of two equal ids
    assert left(row, SamplerSettings(top_k=1)) == left(row, SamplerSettings(top_p=400_000)) == [0]
    assert left(row, SamplerSettings(top_p=501_000)) == [0, 1]
    assert left(row, SamplerSettings(top_p=900_000)) == [0, 1, 2, 3]
    assert left(row, SamplerSettings(top_p=0)) == left(row, SamplerSettings(top_p=1)) == [0]
    assert left(row, SamplerSettings(min_p=240_000)) == [0, 1, 2]
    assert left(row, SamplerSettings(min_p=MICRO)) == [0]
    assert left(row, SamplerSettings(top_k=3, top_p=860_000)) == [0, 1, 2]  # 6/7 = 0.857 of what top-k left
    assert left(row, SamplerSettings(top_k=3, top_p=850_000)) == [0, 1]
    assert left(row, SamplerSettings(temperature=2 * MICRO, min_p=600_000)) == [0, 1]  # 2^-1/2 of the best at T = 2


def test_filters_of_equal_logits() -> None:
    """Ties go to the lowest ids; all that are as good as the best pass min-p at 1, and nobody but one above it."""
    row = np.full(10, 77, np.int32)
    assert left(row, SamplerSettings(top_k=3)) == [0, 1, 2]
    assert left(row, SamplerSettings(top_p=400_000)) == [0, 1, 2, 3]
    assert left(row, SamplerSettings(top_p=400_001)) == [0, 1, 2, 3, 4]
    assert left(row, SamplerSettings(min_p=MICRO)) == list(range(10))
    assert left(row, SamplerSettings(min_p=MICRO + 1)) == [0]


@given(ROWS, st.integers(50_000, 2 * MICRO), st.integers(0, 20), st.integers(1, MICRO), st.integers(0, MICRO - 1))
def test_filters_are_the_usual_ones(row: np.ndarray, temperature: int, top_k: int, top_p: int, min_p: int) -> None:
    """Each filter alone and all together leave what the textbook definitions leave, away from borders."""
    p = softmax(row, temperature / MICRO)
    order = np.lexsort((np.arange(row.size), -row.astype(np.int64))).tolist()
    for k, top, least in ((top_k, MICRO, 0), (0, top_p, 0), (0, MICRO, min_p), (top_k, top_p, min_p)):
        expected = order[:k] if k else order
        if top < MICRO:
            mass = np.cumsum(p[expected]) / p[expected].sum()
            assume(np.all(abs(mass - top / MICRO) > 1e-6))
            expected = expected[: int(np.argmax(mass >= top / MICRO)) + 1]
        if least:
            assume(np.all(abs(p[expected] / p.max() - least / MICRO) > 1e-6))
            expected = [i for i in expected if p[i] >= least / MICRO * p.max()]
        assert left(row, SamplerSettings(temperature, k, top, least)) == expected


@given(ROWS, SETTINGS, st.data())
def test_a_mask_is_as_if_the_other_tokens_were_not_there(
    row: np.ndarray, settings: SamplerSettings, data: st.DataObject
) -> None:
    """Masked tokens take no part in any filter and are never drawn, however large their logits."""
    mask = data.draw(hnp.arrays(np.bool_, row.size).filter(np.any))
    for other in (np.int32(-MOST), np.int32(MOST)):
        hidden = np.where(mask, row, other)
        for function in (draw, fast.draw):
            token = function(hidden, settings, SEED, 1, mask)
            assert mask[token]
            assert token == function(row, settings, SEED, 1, mask)
        if settings.temperature:
            some = left(hidden, settings, mask)
            assert mask[some].all()
            assert some == left(row, settings, mask)


# --- draws


@settings(deadline=None)
@given(ROWS | WILD_ROWS, SETTINGS, SEEDS, POSITIONS, st.data())
def test_reference_kernel_and_scalar_sampler_agree(
    row: np.ndarray, settings: SamplerSettings, seed: bytes, position: int, data: st.DataObject
) -> None:
    """All three draw the same token, whatever logits, settings and mask."""
    mask = data.draw(st.none() | hnp.arrays(np.bool_, row.size).filter(np.any))
    token = draw(row, settings, seed, position, mask)
    assert token == fast.draw(row, settings, seed, position, mask)
    allowed = None if mask is None else mask.tolist()
    assert token == scalar.draw(row.tolist(), settings, seed, position, allowed)
    if settings.temperature:
        assert left(row, settings, mask) == list(scalar.candidates(row.tolist(), settings, allowed))


@pytest.mark.parametrize("settings", EVERYTHING, ids=str)
@pytest.mark.parametrize("size", [127, 128, 5000])
def test_large_rows_agree(size: int, settings: SamplerSettings) -> None:
    """With many blocks and many ties, the kernel's shortcuts change nothing."""
    for position, spread in enumerate((0.0, 0.1, 3.0, 3.0, 8.0, 300.0)):
        row = row_of(position, size, spread)
        if position % 2:
            row = row // 8192 * 8192
        mask = np.random.default_rng(position).random(size) < 0.5
        for some in (None, mask):
            token = draw(row, settings, SEED, position, some)
            assert token == fast.draw(row, settings, SEED, position, some)
            assert token == fast.draw(row.astype(np.int64), settings, SEED, position, some)


def test_the_kernel_s_filters_leave_neither_more_nor_less() -> None:
    """So hot that each candidate is drawn about as often, whatever filters leave: one too many or too few shows."""
    rng = np.random.default_rng(11)
    for number in range(400):
        size = int(rng.integers(1, 3000))
        row = row_of(number, size, float(rng.choice([0.2, 3.0, 20.0])))
        if number % 3 == 0:
            row = row // 32768 * 32768
        top_k = int(rng.choice([0, 1, 2, 10, size // 128 or 1, size // 128 + 1, size - 1, size, size + 1]))
        top_p = int(rng.choice([0, 300_000, 990_000, MICRO - 1, MICRO]))
        some = SamplerSettings(int(rng.choice([3, 30, 300])) * MICRO, top_k, top_p, int(rng.choice([0, 1, 900_000])))
        for position in range(8):
            assert fast.draw(row, some, SEED, position) == draw(row, some, SEED, position), some


def test_temperature_zero_takes_the_largest_logit() -> None:
    """At temperature 0 neither seed nor filters matter, and the lowest id wins ties."""
    row = np.array([1, 5, 3, 5, 5], dtype=np.int32)
    allowed = np.array([True, False, True, True, True])
    for function in (draw, fast.draw):
        for greedy in (SamplerSettings(0), SamplerSettings(0, 1, 0, MICRO)):
            assert {function(row, greedy, SEED, position) for position in range(20)} == {1}
            assert function(row, greedy, SEED, 0, allowed) == 3


def test_equal_scores_go_to_the_lowest_id() -> None:
    """At the least temperature no noise outweighs a logit, at the largest no logit outweighs any noise."""
    row = np.array([0, 2, 1, 2, 2], dtype=np.int32)
    for function in (draw, fast.draw):
        cold = {function(row, SamplerSettings(1), SEED, position) for position in range(50)}
        assert cold == {1, 3, 4}
        hot = SamplerSettings(2**53 - 1)
        assert [function(row * 9, hot, SEED, position) for position in range(50)] == [
            function(row * 0, hot, SEED, position) for position in range(50)
        ]


def test_equal_noise_goes_to_the_lowest_id() -> None:
    """Two tokens with one logit and one noise: the lower id is drawn, also where the kernel starts from the other."""
    hashes = floats.hashes_at(SEED, 3, np.arange(200_000))
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(np.diff(noise(hashes[order])) == 0)
    pairs = [sorted(order[i : i + 2].tolist()) for i in same.tolist()]
    assert len(pairs) > 100
    row = np.full(200_000, -MOST, np.int32)
    for low, high in pairs[:20]:
        mask = np.zeros(row.size, np.bool_)
        mask[[low, high]] = True
        assert draw(row, SamplerSettings(), SEED, 3, mask) == fast.draw(row, SamplerSettings(), SEED, 3, mask) == low
        # The peak, from which the kernel starts, is the higher id; at this temperature the logits weigh nothing.
        mine = row.copy()
        mine[high] += 1
        hot = SamplerSettings(2**53 - 1)
        assert draw(mine, hot, SEED, 3, mask) == fast.draw(mine, hot, SEED, 3, mask) == low


def test_extreme_logits() -> None:
    """The widest differences do not overflow at any temperature; one token always beats the rest."""
    row = np.array([-MOST, MOST, -MOST, 0], dtype=np.int32)
    for temperature in (1, 2, 1000, MICRO, 100 * MICRO, 2**53 - 1):
        for filters in (SamplerSettings(), SamplerSettings(0, 2, 999_999, 1), SamplerSettings(0, 0, 1)):
            some = replace(filters, temperature=temperature)
            for position in range(20):
                token = fast.draw(row, some, SEED, position)
                assert token == draw(row, some, SEED, position)
                assert token == 1 or temperature > MICRO


def test_one_token_alone() -> None:
    """A mask that leaves one token, and a vocabulary of one, leave no choice."""
    row = row_of(1, 700)
    mask = np.arange(700) == 699
    for some in EVERYTHING:
        for function in (draw, fast.draw):
            assert function(row, some, SEED, 5, mask) == 699
            assert function(row[:1], some, SEED, 5) == 0


@pytest.mark.parametrize("settings", [SamplerSettings(0), SamplerSettings(), SamplerSettings(top_k=1)])
def test_a_mask_that_leaves_nothing_is_an_engine_error(settings: SamplerSettings) -> None:
    """There is no token to draw."""
    row = row_of(1, 200)
    for function in (draw, fast.draw):
        with pytest.raises(EngineError, match=nothing_left().message):
            function(row, settings, SEED, 0, np.zeros(200, np.bool_))


# --- log-probabilities


def test_top_logprobs_are_those_of_the_softmax() -> None:
    """In nats; whole-number logits lose nothing that people would see by becoming float32."""
    row = row_of(4, 5000, 4.0) + (200 << 16)
    top = top_logprobs(row, 17, 20)
    exact = np.log(softmax(row))
    order = np.lexsort((np.arange(row.size), -row))[:20]
    assert list(top.ids) == order.tolist()
    np.testing.assert_allclose(top.logprobs, exact[order], atol=2e-5)
    assert top.chosen == pytest.approx(exact[17], abs=2e-5)
