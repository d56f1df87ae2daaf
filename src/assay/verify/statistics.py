"""Is an answer what model, settings and seed give, up to the noise of honest arithmetic? Five tests of one response.

Machines in different configurations compute logits that differ by noise. How much depends on the model and on the
text, so each response brings its own yardstick: the verifier recomputes it twice, in two configurations, and the
distance between its own two results is the noise. Distances are in nats of logit noise: a difference of
log-probabilities divided by `_leverage`. Over n output tokens:

forward   average distance of the opened log-probabilities from the recomputed ones, in units of the noise
chosen    the same for the emitted tokens alone: sum of squares of what lies over CHOSEN_SLACK noises
opening   nats by which the opened log-probabilities and the seed give other tokens: zero for honest provers
sampler   the same by the recomputed logits, whatever was opened: sum of squares of gaps, in units of the noise
surprise  only foreign samplers, which have no seed: how far the tokens' log-likelihood is from what is expected at
          the requested temperature, in standard deviations (filters apply before the temperature on some servers
          and after it on others: the closer of the two counts)

No test takes a maximum over tokens, and what one token can add is bounded: honest runs have outliers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np

from assay.core.bundle import Bundle
from assay.core.completion import Prompt, TopLogprobs
from assay.core.encoding import MICRO
from assay.core.errors import EngineError
from assay.core.evidence import TOP_K, read_top_leaf, split_opening
from assay.core.ports import Replayer
from assay.core.request import SamplerSettings
from assay.core.sampler import draw, redraw
from assay.core.verdict import Finding
from assay.verify.calibration import Entry, Scale, Test
from assay.verify.replay import Recomputed, recompute

FLOOR: Final = 0.01
"""Nats added to the measured noise, so that the rounding of opened numbers is no distance where there is no noise."""
FARTHEST: Final = 1.0
"""Most nats that one token adds to an average distance."""
CHOSEN_SLACK: Final = 3.0
MOST_NOISES: Final = 20.0
"""Most noises that one token counts for in `chosen` and `sampler`."""
ROUNDING: Final = 1e-3
"""Nats by which an opening may contradict itself: its numbers are rounded to 1/4096."""
MOST_SURPRISE: Final = 12.0
"""Most nats of surprise that one token counts for."""


Surprises: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""Excess and variance of one token's surprise, each with filters after the temperature and before it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The statistics of one response."""

    tokens: int
    noise: float
    """Average distance between the verifier's two results, in nats; 0 if it had but one."""
    statistics: Mapping[Test, float]
    worst: Mapping[Test, int]
    """The output token that adds most to each, for people who want to look there."""


@dataclass(slots=True)
class _Tally:
    """What each output token adds, in order."""

    near: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    chosen: list[float] = field(default_factory=list)
    opening: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    surprise: list[Surprises] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One row of logits with its normaliser."""

    logits: np.ndarray
    total: float
    """Log of the sum of exponentials."""
    collisions: float
    """Sum of squared probabilities."""

    def logprob(self, ids: np.ndarray) -> np.ndarray:
        return self.logits[ids].astype(np.float64) - self.total


def measure(bundle: Bundle, prompt: Prompt, replayer: Replayer, control: Replayer | None) -> Measured:
    """Recompute a response and measure it; `control` recomputes in another configuration, to know the noise.

    `bundle` has passed `check_with_model`. Without an opening (level `pinned`) only the sampler is measured.
    """
    request, foreign = bundle.request, bundle.profile.sampler == "foreign"
    leaves: list[TopLogprobs | None] = [read_top_leaf(leaf) for leaf in split_opening(bundle.opening)]
    seeded = not foreign or request.sampler.temperature == 0
    tally = _Tally()
    others = _rows(bundle, prompt, control)
    for here, other, leaf in zip(
        recompute(bundle, prompt, replayer), others, leaves or [None] * len(bundle.tokens), strict=True
    ):
        row, control_row = _normalised(here.row), None if other is None else _normalised(other)
        if control_row is not None:
            best = _best(here.row)
            tally.noise.append(_rms((row.logprob(best) - control_row.logprob(best)) / _leverage(row, best)))
        if leaf is not None:
            _compare(tally, row, control_row, leaf, here.token)
            if seeded:
                tally.opening.append(_contradiction(here, leaf, request.sampler, request.seed))
        if seeded:
            tally.gap.append(_gap_of_both(here, other, request.sampler, request.seed))
        else:
            tally.surprise.append(_surprises(here, request.sampler))
    return _summed(tally, len(bundle.tokens))


def judge(measured: Measured, entry: Entry) -> list[Finding]:
    """One finding for each test that could be made: `statistic` is its severity, which rejects over `threshold` 1."""
    findings: list[Finding] = []
    for test, statistic in measured.statistics.items():
        scale = entry.scales.get(test)
        if scale is None:
            findings.append(Finding(test, "inconclusive", f"no calibration says how {test!r} behaves here"))
            continue
        severity = scale.severity(statistic, measured.tokens)
        fails = severity > 1
        reason = f"{(_FAILS if fails else _HOLDS)[test]} ({statistic:.2f}, limit {scale.limit(measured.tokens):.2f})"
        step = measured.worst.get(test) if fails else None
        findings.append(Finding(test, "fails" if fails else "holds", reason, step, severity, 1.0))
    return findings


def _summed(tally: _Tally, tokens: int) -> Measured:
    noise = float(np.mean(tally.noise)) if tally.noise else 0.0
    unit = noise + FLOOR
    statistics: dict[Test, float] = {}
    worst: dict[Test, int] = {}
    parts: dict[Test, np.ndarray] = {}
    if tally.near:
        near = float(np.mean(tally.near))
        # Zero where the opened numbers equal either result; like an average where both are equally far.
        distance = math.sqrt(near * float(np.mean(tally.other))) if tally.other else near
        statistics["forward"] = distance / unit
        over = np.maximum(np.array(tally.chosen) / unit - CHOSEN_SLACK, 0.0)
        parts["chosen"] = np.minimum(over, MOST_NOISES) ** 2
    if tally.opening:
        parts["opening"] = np.array(tally.opening)
    if tally.gap:
        parts["sampler"] = np.minimum(np.array(tally.gap) / unit, MOST_NOISES) ** 2
    for test, values in parts.items():
        statistics[test] = float(values.sum())
        worst[test] = int(values.argmax())
    if tally.surprise:
        excess, variance = np.array(tally.surprise).sum(axis=0)
        statistics["surprise"] = float((np.abs(excess) / np.sqrt(variance + tokens * FLOOR)).min())
    return Measured(tokens, noise, statistics, worst)


def _rows(bundle: Bundle, prompt: Prompt, control: Replayer | None) -> Iterator[np.ndarray | None]:
    if control is None:
        yield from [None] * len(bundle.tokens)
    else:
        yield from control.rows((*prompt.tokens, *bundle.tokens), len(prompt.tokens))


def _normalised(logits: np.ndarray) -> _Row:
    peak = float(logits.max())
    if not math.isfinite(peak):
        raise EngineError("the recomputed logits are not finite", "the model file or the engine is broken")
    weights = np.exp(logits - np.float32(peak))
    mass = float(weights.sum(dtype=np.float64))
    return _Row(logits, peak + math.log(mass), float(np.square(weights).sum(dtype=np.float64)) / mass**2)


def _compare(tally: _Tally, row: _Row, control: _Row | None, leaf: TopLogprobs, token: int) -> None:
    """Distances of the opened numbers from one or two recomputed rows.

    A probable token that was not opened is taken to be no more probable than the least of those that were.
    """
    opened = dict(zip(leaf.ids, leaf.logprobs, strict=True))
    missing = np.array([i for i in _best(row.logits).tolist() if i not in opened], dtype=np.int64)
    ids = np.concatenate([np.array(list(opened), dtype=np.int64), missing])
    given = np.array(list(opened.values()))
    least = float(given.min())
    leverage = _leverage(row, ids)

    def distance(other: _Row) -> float:
        there = other.logprob(ids)
        gap = np.concatenate([given, np.minimum(there[given.size :], least)]) - there
        return _rms(gap / leverage)

    tally.near.append(distance(row))
    at = np.array([token])
    chosen = abs(leaf.chosen - row.logprob(at)[0])
    if control is not None:
        tally.other.append(distance(control))
        chosen = min(chosen, abs(leaf.chosen - control.logprob(at)[0]))
    tally.chosen.append(float(chosen / _leverage(row, at)[0]))


def _best(logits: np.ndarray) -> np.ndarray:
    """The TOP_K most probable ids, in no order."""
    count, within = min(TOP_K, logits.size), 16.0
    while (ids := np.flatnonzero(logits >= logits.max() - within)).size < count:  # a full partition costs far more
        within *= 2
    return ids[np.argpartition(logits[ids], -count)[-count:]]


def _leverage(row: _Row, ids: np.ndarray) -> np.ndarray:
    """Standard deviation of a log-probability where each logit has independent noise of standard deviation 1.

    log p_k = l_k - log sum_j exp l_j, whose derivatives are 1 - p_k by l_k and -p_j by any other l_j.
    """
    p = np.exp(row.logprob(ids))
    return np.sqrt((1.0 - p) ** 2 + np.maximum(row.collisions - p**2, 0.0) + 1e-3)


def _rms(values: np.ndarray) -> float:
    return min(math.sqrt(float(np.mean(values**2))), FARTHEST)


def _gap_of_both(here: Recomputed, other: np.ndarray | None, settings: SamplerSettings, seed: bytes) -> float:
    """Nats of logits by which the token missed being drawn; by the control's row if that is less."""
    gap = _gap(here, settings, seed)
    if gap == 0 or other is None:
        return gap
    return min(gap, _gap(replace(here, row=other), settings, seed))


def _gap(here: Recomputed, settings: SamplerSettings, seed: bytes) -> float:
    """By how many nats of logits (temperature taken out, so that noise counts alike) the token lost the draw.

    Filters cut sharply where noise does not, so rivals count only well inside them, and the token is outside only
    if it is well outside.
    """
    row = here.row if here.allowed is None else np.where(here.allowed, here.row, np.float32(-np.inf))
    rival = draw(row, _tighter(settings), seed, here.index)
    lost = _lost(row, rival, here, settings.temperature, seed)
    return max(lost, _edge(row, _looser(settings)) - float(row[here.token]), 0.0)


def _lost(row: np.ndarray, rival: int, here: Recomputed, temperature: int, seed: bytes) -> float:
    if rival == here.token:
        return 0.0
    two = np.zeros(row.size, dtype=bool)
    two[[rival, here.token]] = True
    gap = redraw(row, SamplerSettings(temperature), seed, here.index, here.token, two).gap
    if temperature:
        gap *= temperature / MICRO
    return gap if math.isfinite(gap) else float(row[rival]) - float(row[here.token])


def _contradiction(here: Recomputed, leaf: TopLogprobs, settings: SamplerSettings, seed: bytes) -> float:
    """Nats by which an opened token beats the emitted one by the prover's own numbers; at most FARTHEST.

    Rivals count if they are inside the filters: by the prover's own numbers, and well inside by the recomputed ones.
    """
    opened = dict(zip(leaf.ids, leaf.logprobs, strict=True))
    if here.allowed is not None:
        opened = {token: logprob for token, logprob in opened.items() if here.allowed[token]}
    edge = _edge(here.row if here.allowed is None else np.where(here.allowed, here.row, -np.inf), _tighter(settings))
    least = max(opened.values(), default=0.0) + _below_best(settings) + ROUNDING
    inside = sorted(opened, key=lambda token: (-opened[token], token))[: settings.top_k or None]
    row = np.full(here.row.size, -np.inf, dtype=np.float64)
    for token in inside:
        if here.row[token] >= edge and (opened[token] >= least or not settings.min_p):
            row[token] = opened[token]
    row[here.token] = opened.get(here.token, leaf.chosen)
    gap = redraw(row, SamplerSettings(settings.temperature), seed, here.index, here.token).gap
    if settings.temperature:
        gap *= settings.temperature / MICRO
    gap = gap if math.isfinite(gap) else float(row.max() - row[here.token])
    return min(gap, FARTHEST) if gap > ROUNDING else 0.0


def _surprises(here: Recomputed, settings: SamplerSettings) -> Surprises:
    """By how many nats the token is less likely than a token drawn as requested is on average, and the variance."""
    row = here.row if here.allowed is None else np.where(here.allowed, here.row, np.float32(-np.inf))
    scaled = (row.astype(np.float64) - float(row.max())) * (MICRO / settings.temperature)
    excess: list[float] = []
    variance: list[float] = []
    for filtered_at in (settings.temperature, MICRO):
        inside = scaled[row >= _edge(row, replace(settings, temperature=filtered_at))]
        total = math.log(float(np.exp(inside).sum()))
        logs = inside - total
        p = np.exp(logs)
        entropy = -float(p @ np.maximum(logs, -1e9))
        excess.append(min(total - float(scaled[here.token]), MOST_SURPRISE) - entropy)
        variance.append(float(p @ (np.maximum(logs, -1e9) + entropy) ** 2))
    return (excess[0], excess[1]), (variance[0], variance[1])


def _tighter(settings: SamplerSettings) -> SamplerSettings:
    """Filters that keep only what filters with a little noise would keep in any case."""
    return replace(
        settings,
        top_k=max(settings.top_k * 4 // 5, 1) if settings.top_k else 0,
        top_p=settings.top_p if settings.top_p >= MICRO else settings.top_p * 9 // 10,
        min_p=min(settings.min_p * 5 // 4, MICRO),
    )


def _looser(settings: SamplerSettings) -> SamplerSettings:
    """Filters that keep all that filters with a little noise might keep (`top_k` and `min_p` cut at a logit, whose
    noise counts as a gap; a small change of mass can move top_p's cut far)."""
    return replace(settings, top_p=(settings.top_p + MICRO) // 2)


def _edge(row: np.ndarray, settings: SamplerSettings) -> float:
    """The logit of the last token that the filters keep."""
    temperature, edge = settings.temperature / MICRO, -math.inf
    if not temperature:
        return edge
    if 0 < settings.top_k < row.size:
        edge = float(np.partition(row, -settings.top_k)[-settings.top_k])
    if settings.min_p:
        edge = max(edge, float(row.max()) + _below_best(settings))
    if settings.top_p < MICRO:
        falling = np.sort(row)[::-1].astype(np.float64)
        mass = np.cumsum(np.exp((falling - falling[0]) / temperature))
        edge = max(edge, float(falling[int(np.searchsorted(mass, mass[-1] * settings.top_p / MICRO))]))
    return edge


def _below_best(settings: SamplerSettings) -> float:
    """Where min-p cuts, in nats of logits relative to the best."""
    return settings.temperature / MICRO * math.log(min(settings.min_p, MICRO) / MICRO) if settings.min_p else 0.0


_HOLDS: Final[Mapping[Test, str]] = {
    "forward": "the opened log-probabilities are this model's for this prompt, up to honest noise",
    "chosen": "the log-probabilities of the emitted tokens are this model's, up to honest noise",
    "opening": "the opened log-probabilities, the settings and the seed give these tokens",
    "sampler": "model, settings and seed give these tokens, up to honest noise",
    "surprise": "the tokens are as likely as tokens drawn with these settings are",
}
_FAILS: Final[Mapping[Test, str]] = {
    "forward": "the opened log-probabilities are not this model's for this prompt: other weights or another prompt",
    "chosen": "the log-probabilities of the emitted tokens are not this model's: tokens or numbers were changed",
    "opening": "the opened log-probabilities, the settings and the seed give other tokens: another seed, temperature "
    "or filter, tokens of another model, or edited tokens",
    "sampler": "model, settings and seed give other tokens: another seed, temperature or filter, tokens of another "
    "model, or edited tokens",
    "surprise": "the tokens are not as likely as tokens drawn with these settings are: another temperature or model",
}

SAME_BITS: Final = Entry(
    model="*",
    prover="same",
    verifier="same",
    scales={
        "forward": Scale(False, 0.0, 0.1, 0.0, 5.0),
        "chosen": Scale(True, 0.0, 1.0, 0.0, 4.0),
        "opening": Scale(True, 0.0, ROUNDING, 0.0, 5.0),
        "sampler": Scale(True, 0.0, 1.0, 0.0, 1.0),
    },
    responses=0,
    alarms=0,
    bound=0.0,
)
"""Where prover and verifier must compute equal bits there is no noise, only the rounding of what is opened."""
