"""Every cheat of the catalogue on the real model: caught at `pinned` for the reason that gives it away, refused for the
promise that it breaks, or never vouched for."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks._audits import KEY, answers, built
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.models import write_model

from assay.apps.admission import offers_of
from assay.apps.cheats import CHEATS, Dishonest, Workshop, make_cheat
from assay.apps.checking import load_calibration
from assay.apps.exact import open_auditor
from assay.core.bundle import Bundle
from assay.core.completion import Step
from assay.core.errors import BindingMismatch, ConfigError, ProviderFailed
from assay.core.request import Level, Message, Request, SamplerSettings
from assay.core.verdict import Verdict
from assay.engines.exact.auditor import ExactAuditor
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from assay.engines.llama_replay import LlamaReplayer
from assay.engines.models import ModelFile
from assay.journey import check_promise
from assay.network.wire import decode_event, step_event
from assay.verify.calibration import Calibration
from assay.verify.policy import contradictions, verify_bundle

UNCALIBRATED = Calibration((), 0.0)
NUMBERS = {"logits", "sampler"}
GIVEN_AWAY_BY = {
    "early-stop": {"stop"},
    "early-length": {"stop"},
    "padded": {"stop", "count"},
    "inflated-counts": {"count"},
    "inflated-prompt": {"prompt"},
    "other-key": {"signature"},
}
"""Names of the findings that fail; all other cheats show in the numbers."""
QUICK = ("system-prompt", "temperature", "inflated-counts")
PAIRS = ("replayed", "equivocation")
"""Cheats that take two answers."""
SINGLE = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name, cheat in CHEATS.items()
    if cheat.caught_by == "check" and name not in PAIRS and "llama.cpp" in cheat.engines
]
EXACT = [
    pytest.param(name, marks=() if name == "accumulator" else pytest.mark.slow)
    for name, cheat in CHEATS.items()
    if cheat.caught_by == "check" and name not in PAIRS and "exact" in cheat.engines
]
EXACT_NUMBERS = {"products", "sampler"}


@pytest.fixture(scope="module")
def shop(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Engines of one stream and a small context."""
    scratch = tmp_path_factory.mktemp("cheats")
    return Workshop(
        model_path, "smollm2-135m", hashlib.sha256(model_path.read_bytes()).digest(), scratch, parallel=1, context=256
    )


@pytest.fixture(scope="module")
def replayer(shop: Workshop) -> Iterator[LlamaReplayer]:
    """The verifier."""
    with LlamaModel(shop.path) as model:
        replayer = LlamaReplayer(model, digest=shop.digest)
        yield replayer
        replayer.close()


@pytest.fixture(scope="module")
def exact_shop(shop: Workshop) -> Workshop:
    """The same on the exact engine."""
    return replace(shop, kind="exact")


@pytest.fixture(scope="module")
def auditor(shop: Workshop) -> Iterator[ExactAuditor]:
    """The verifier of level `exact`."""
    with LlamaModel(shop.path) as model:
        found = ModelFile(shop.name, shop.path, shop.digest, 0)
        yield open_auditor(found, LlamaReader(model, limit=256), context=256, threads=1, stopped=lambda: False)


def ask(provider: Dishonest, *nonces: int, tokens: int = 24, level: Level = "pinned") -> list[Bundle]:
    """The same question once with each nonce."""
    request = Request(
        "smollm2-135m", "chat", (Message("user", "Tell me what a lighthouse keeper does in a storm."),), "",
        SamplerSettings(900_000, top_p=600_000), tokens, (), "", "auto", "", level, bytes(32), 1_700_000_000,
    )  # fmt: skip
    asked = iter([replace(request, nonce=bytes([nonce]) * 32) for nonce in nonces])

    async def collected() -> list[Bundle]:
        return [bundle async for bundle in answers(provider, asked, parallel=1)]

    return asyncio.run(collected())


def judged(bundle: Bundle, replayer: LlamaReplayer) -> Verdict:
    """The verdict on a bundle."""
    return verify_bundle(bundle, replayer, calibration=UNCALIBRATED, clock=time.perf_counter)


def failures(bundle: Bundle, replayer: LlamaReplayer) -> set[str]:
    """Names of the findings that fail."""
    verdict = judged(bundle, replayer)
    assert verdict.outcome in ("holds", "fails")
    return {finding.check for finding in verdict.findings if finding.outcome == "fails"}


def exact_failures(bundle: Bundle, auditor: ExactAuditor) -> set[str]:
    """The same at level `exact`."""
    verdict = verify_bundle(bundle, None, calibration=UNCALIBRATED, clock=time.perf_counter, auditor=lambda: auditor)
    assert verdict.outcome in ("holds", "fails")
    return {finding.check for finding in verdict.findings if finding.outcome == "fails"}


@pytest.mark.model
def test_an_honest_answer_holds(shop: Workshop, replayer: LlamaReplayer) -> None:
    """Without a cheat nothing fails: what the other tests find is the cheat."""
    with built(lambda shop: Dishonest(shop.engine()), shop) as provider:
        assert [failures(bundle, replayer) for bundle in ask(provider, 1, 2)] == [set(), set()]


@pytest.mark.model
@pytest.mark.parametrize("name", SINGLE)
def test_a_cheat_is_caught(name: str, shop: Workshop, replayer: LlamaReplayer) -> None:
    """Each answer of the dishonest provider fails, and at the point where it lies."""
    with built(CHEATS[name].build, shop) as provider:
        for bundle in ask(provider, 3, 4):
            found = failures(bundle, replayer)
            assert found
            assert found <= GIVEN_AWAY_BY.get(name, NUMBERS)


@pytest.mark.model
def test_an_honest_exact_answer_holds(exact_shop: Workshop, auditor: ExactAuditor) -> None:
    """Also on the exact engine what the other tests find is the cheat."""
    with built(lambda shop: Dishonest(shop.engine()), exact_shop) as provider:
        for bundle in ask(provider, 1, 2, level="exact"):
            assert exact_failures(bundle, auditor) == set()


@pytest.mark.model
@pytest.mark.parametrize("name", EXACT)
def test_a_cheat_on_the_exact_engine_is_caught(name: str, exact_shop: Workshop, auditor: ExactAuditor) -> None:
    """At the point where it lies, without tolerance."""
    with built(CHEATS[name].build, exact_shop) as provider:
        for bundle in ask(provider, 3, 4, level="exact"):
            found = exact_failures(bundle, auditor)
            assert found
            assert found <= GIVEN_AWAY_BY.get(name, EXACT_NUMBERS)


@pytest.mark.model
def test_cheats_of_another_engine(shop: Workshop, exact_shop: Workshop) -> None:
    """They are refused with a list of those that there are."""
    with pytest.raises(ConfigError, match=r"accumulator is no cheat of the engine llama\.cpp"):
        make_cheat("accumulator", shop)
    with pytest.raises(ConfigError, match="temperature"):
        make_cheat("kv-q8_0", exact_shop)


@pytest.mark.model
@pytest.mark.slow
def test_an_old_answer_does_not_fit_a_new_nonce(shop: Workshop, replayer: LlamaReplayer) -> None:
    """The first sale is honest; the second one was not drawn from its seed."""
    with built(CHEATS["replayed"].build, shop) as provider:
        first, second = ask(provider, 5, 6)
        assert first.tokens == second.tokens
        assert failures(first, replayer) == set()
        assert failures(second, replayer) == {"sampler"}


@pytest.mark.model
def test_two_receipts_under_one_number_are_fraud_by_themselves(shop: Workshop) -> None:
    """Both receipts may hold; together they contradict each other."""
    with built(CHEATS["equivocation"].build, shop) as provider:
        one, two = ask(provider, 7, 8, tokens=4)
        assert contradictions([one.receipt, two.receipt]) == [(one.receipt, two.receipt)]


@pytest.mark.model
@pytest.mark.slow
def test_a_swapped_file_is_caught(shop: Workshop, replayer: LlamaReplayer) -> None:
    """`swap:FILE` serves any GGUF under the claimed model's name and digest."""
    other = shop.variant("q8_0", lambda source, target: _requantised(source, target))
    with built(lambda shop: make_cheat(f"swap:{other}", shop), shop) as provider:
        for bundle in ask(provider, 9, 10):
            assert failures(bundle, replayer)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.F16], ids=lambda kind: kind.name)
def test_a_swapped_file_of_another_vocabulary(
    shop: Workshop, replayer: LlamaReplayer, tmp_path: Path, kind: Kind
) -> None:
    """Also one without a chat template, and one that cannot run in the pinned regime."""
    other = write_model(tmp_path / "other.gguf", kind=kind)
    with built(lambda shop: make_cheat(f"swap:{other}", shop), shop) as provider:
        for bundle in ask(provider, 9, 10):
            assert failures(bundle, replayer)


@pytest.mark.model
def test_a_small_context_breaks_the_promise(shop: Workshop, replayer: LlamaReplayer) -> None:
    """The receipt fits together, so a check blames nobody and vouches for nothing; the gateway knows the offer."""
    with built(CHEATS["small-context"].build, shop) as provider:
        [found] = [item for item in offers_of(provider.engine, KEY.address, "", {}) if item.level == "pinned"]
        for bundle in ask(provider, 11, 12):
            verdict = judged(bundle, replayer)
            assert (verdict.outcome, verdict.reasons[0].startswith("the answer was cut")) == ("inconclusive", True)
            with pytest.raises(BindingMismatch, match="context is not what was promised"):
                check_promise(bundle, found, bundle.request, bundle.tokens, "length")


@pytest.mark.model
def test_an_early_end_called_cancelled_leaves_the_protocol(shop: Workshop) -> None:
    """The receipt alone could be that of a consumer who hung up; the consumer who did not sees who ended it."""
    with built(CHEATS["cancelled-early"].build, shop) as provider:
        [bundle] = ask(provider, 13)
        assert (bundle.receipt.stop, len(bundle.tokens)) == ("cancelled", 12)
        last = len(bundle.tokens) - 1
        with pytest.raises(ProviderFailed, match="stop reason"):
            decode_event(step_event(Step(last, 5, "", b"", stop="cancelled"))[6:], last)  # type: ignore[arg-type]


@pytest.mark.model
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "other-template" else pytest.mark.slow)
        for name, cheat in CHEATS.items()
        if cheat.caught_by == "ranking"
    ],
)
def test_a_claimed_machine_is_never_vouched_for(name: str, shop: Workshop, replayer: LlamaReplayer) -> None:
    """Nobody is blamed and nothing holds; its promise is kept to the letter, so that only its rank suffers. With a
    calibration for such machines, the statistics may fail it."""
    with built(CHEATS[name].build, shop) as provider:
        [found] = [item for item in offers_of(provider.engine, KEY.address, "", {}) if item.level == "pinned"]
        [bundle] = ask(provider, 14)
        check_promise(bundle, found, bundle.request, bundle.tokens, None)
        assert judged(bundle, replayer).outcome == "inconclusive"
        verdict = verify_bundle(bundle, replayer, calibration=load_calibration(), clock=time.perf_counter)
        assert verdict.outcome in ("inconclusive", "fails")


def test_an_unknown_cheat_is_refused(tmp_path: Path) -> None:
    """The error lists those that there are."""
    with pytest.raises(ConfigError, match="system-prompt"):
        make_cheat("kindness", Workshop(tmp_path, "m", bytes(32), tmp_path))


def _requantised(source: Path, target: Path) -> None:
    from assay.apps.cheats.variants import requantise

    requantise(source, target, "Q8_0")
