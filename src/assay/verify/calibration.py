"""Thresholds of the statistical tests, and where they come from: a small JSON file that ships with the package."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from assay.core.encoding import b64
from assay.core.errors import ConfigError
from assay.core.hashing import Digest
from assay.core.profile import Profile

Test: TypeAlias = Literal["forward", "chosen", "opening", "sampler", "surprise"]
"""See `verify/statistics.py`."""
TESTS: Final[tuple[Test, ...]] = get_args(Test)
ANY_MODEL: Final = "*"
"""The tests measure the noise on each response itself, so one calibration can stand for models not measured."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How one test's statistic x behaves over n honest tokens.

    Sums (`per_token`) have mean n·mean and variance between² + n·within²; averages have mean `mean` and variance
    between² + within²/n. The test rejects where (x - mean) / deviation is over `threshold`.
    """

    per_token: bool
    mean: float
    between: float
    within: float
    threshold: float

    def severity(self, statistic: float, tokens: int) -> float:
        """How far `statistic` is on the way from what is usual (0) to the threshold (1); over 1 the test rejects."""
        center, spread = self._at(tokens)
        return (statistic - center) / (spread * self.threshold)

    def limit(self, tokens: int) -> float:
        """The statistic at which a response of this many tokens is rejected."""
        center, spread = self._at(tokens)
        return center + spread * self.threshold

    def _at(self, tokens: int) -> tuple[float, float]:
        n = max(tokens, 1)
        if self.per_token:
            return n * self.mean, math.hypot(self.between, self.within * math.sqrt(n))
        return self.mean, math.hypot(self.between, self.within / math.sqrt(n))


@dataclass(frozen=True, slots=True)
class Entry:
    """The calibration of one model and pair of profile classes."""

    model: str
    """base64url of the model file's SHA-256, or ANY_MODEL."""
    prover: str
    verifier: str
    """Classes, see `profile_class`."""
    scales: Mapping[Test, Scale]
    responses: int
    """Honest responses behind it that had no part in setting the thresholds."""
    alarms: int
    """How many of them were rejected."""
    bound: float
    """Upper confidence bound of the chance that one honest response is rejected."""
    history: tuple[tuple[float, float], ...] = ()
    """(severity, upper bound of the chance that an honest response's worst severity reaches it), rising severities."""

    def evidence(self, severity: float) -> float:
        """The e-value of one response: at most 1 on average over honest responses (with the calibration's confidence),
        large for severities that honest responses seldom reach; 1 where there is no data.

        An increasing step function of the severity: 1 - STAKE, plus an equal part of the stake divided by its chance
        for each step reached (Vovk and Wang, "E-values", Annals of Statistics 49, 2021).
        """
        if not self.history:
            return 1.0
        part = STAKE / len(self.history)
        return 1.0 - STAKE + sum(part / bound for edge, bound in self.history if severity >= edge)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The whole file."""

    entries: tuple[Entry, ...]
    confidence: float
    """Of all bounds."""

    @classmethod
    def from_json(cls, data: bytes) -> Calibration:
        """Read a calibration file (members beyond those used here, such as the provenance, are for people).

        Raises:
            ConfigError: it is not one.
        """
        try:
            value = json.loads(data)
            entries = tuple(_entry(item) for item in value["entries"])
            confidence = float(value["confidence"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"the calibration file cannot be read ({error!r})", "make it with benchmarks/") from error
        return cls(entries, confidence)

    def find(self, model: Digest, prover: Profile, verifier: Profile) -> Entry | None:
        """The entry for this model, or for any model, and these profiles' classes."""
        classes = profile_class(prover), profile_class(verifier)
        for name in (b64(model), ANY_MODEL):
            for entry in self.entries:
                if entry.model == name and (entry.prover, entry.verifier) == classes:
                    return entry
        return None


def largest_product(evidence: Iterable[float]) -> float:
    """The largest value that the product of e-values reaches along one provider's responses, in their order.

    A test supermartingale: for an honest provider it ever reaches c with probability at most 1/c (Ville 1939).
    """
    product = largest = 1.0
    for value in evidence:
        product *= value
        largest = max(largest, product)
    return largest


STAKE: Final = 0.6
"""What each response puts at stake: an ordinary one multiplies the evidence by about 1 - STAKE."""
REJECT: Final = 1000.0
"""An honest provider is ever rejected by its histories with probability at most 1 / REJECT, see `limit_of_block`."""


def limit_of_block(number: int) -> float:
    """Evidence at which the block of responses with this number, from 1, is rejected.

    Each new block is another chance for bad luck, and the failure of one counts for ever. So the k-th spends
    1 / (REJECT k (k + 1)) of an honest provider's total chance, and all blocks together 1 / REJECT.
    """
    return REJECT * number * (number + 1)


def profile_class(profile: Profile) -> str:
    """Profiles whose honest noise is alike. The other members change which numbers come out, not how far they vary."""
    return "foreign" if profile.sampler == "foreign" else f"{profile.engine}/{profile.kv_type}"


def _entry(value: Mapping[str, object]) -> Entry:
    scales = value["scales"]
    if not isinstance(scales, Mapping) or not set(scales) <= set(TESTS):
        raise ValueError("unknown tests")
    history = value["history"]
    if not isinstance(history, Sequence):
        raise ValueError("a history is a list")
    steps = tuple((float(edge), float(bound)) for edge, bound in history)
    if not steps or any(not 0 < bound <= 1 for _, bound in steps):
        raise ValueError("a history has no bounds, or bounds outside 0 to 1")
    return Entry(
        model=str(value["model"]),
        prover=str(value["prover"]),
        verifier=str(value["verifier"]),
        scales={name: _scale(item) for name, item in scales.items()},
        responses=int(str(value["responses"])),
        alarms=int(str(value["alarms"])),
        bound=float(str(value["bound"])),
        history=steps,
    )


def _scale(value: Mapping[str, object]) -> Scale:
    numbers = [float(str(value[name])) for name in ("mean", "between", "within", "threshold")]
    if not all(map(math.isfinite, numbers)) or numbers[1] <= 0 or numbers[3] <= 0:
        raise ValueError("a scale's numbers are finite, and its spread and threshold positive")
    return Scale(bool(value["per_token"]), *numbers)
