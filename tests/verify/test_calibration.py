"""The calibration file, thresholds, and evidence over several answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.calibration.fit import fit
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import PROFILE
from tests.verify.kit import CALIBRATION, FREE

import assay.verify
from assay.core.encoding import b64
from assay.core.errors import ConfigError
from assay.verify.calibration import (
    REJECT,
    STAKE,
    TESTS,
    Calibration,
    Scale,
    largest_product,
    limit_of_block,
    profile_class,
)

ENTRY = {
    "model": "*",
    "prover": "tiny/none",
    "verifier": "tiny/none",
    "scales": {"forward": {"per_token": False, "mean": 1, "between": 0.1, "within": 0.2, "threshold": 4}},
    "responses": 300,
    "alarms": 0,
    "bound": 0.01,
    "history": [[0.5, 0.1], [1, 0.01]],
}
ANY = CALIBRATION.entries[0]
DATA = Path(__file__).parents[2] / "benchmarks" / "calibration"


def written(**changes: object) -> bytes:
    """A file with one entry."""
    return json.dumps({"entries": [ENTRY | changes], "confidence": 0.95}).encode()


def test_a_file_is_read_and_searched_by_model_and_profiles() -> None:
    """The entry of the very model comes before the one for any model; classes must fit."""
    own = json.loads(written())
    own["entries"].append(ENTRY | {"model": b64(bytes(32)), "responses": 7})
    calibration = Calibration.from_json(json.dumps(own).encode())
    found = calibration.find(bytes(32), FREE, PROFILE)
    assert found is not None
    assert found.responses == 7
    assert calibration.find(b"\x01" * 32, FREE, PROFILE) == calibration.entries[0]
    assert calibration.find(bytes(32), replace(FREE, kv_type="q8_0"), PROFILE) is None
    assert profile_class(replace(FREE, sampler="foreign")) == "foreign"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        written(scales={"forward": {}}),
        written(scales={"other": ENTRY["scales"]}),
        written(scales={"forward": {"per_token": False, "mean": 1, "between": 0, "within": 0, "threshold": 4}}),
        written(scales={"forward": {"per_token": False, "mean": "nan", "between": 1, "within": 0, "threshold": 4}}),
        written(scales=[]),
        written().replace(b"0.1]", b"0]"),
        written(history=[]),
        written(history=[[0.5, 1.5]]),
        written(history=5),
        json.dumps({"entries": []}).encode(),
    ],
)
def test_other_files_are_refused_with_a_remedy(data: bytes) -> None:
    """A damaged calibration never passes for one that accepts everything."""
    with pytest.raises(ConfigError, match="calibration"):
        Calibration.from_json(data)


def test_thresholds_follow_the_number_of_tokens() -> None:
    """Averages of many tokens vary less, sums of many tokens are larger; severity 1 is the limit."""
    average, total = Scale(False, 1.0, 0.1, 0.8, 4.0), Scale(True, 0.5, 2.0, 1.0, 4.0)
    assert average.limit(4) > average.limit(64) > 1.0
    assert total.limit(64) > total.limit(4) > 0.5
    for scale in (average, total):
        for tokens in (0, 1, 64, 5000):
            assert scale.severity(scale.limit(tokens), tokens) == pytest.approx(1.0)
            assert scale.severity(scale.limit(tokens) * 1.01, tokens) > 1.0


def test_an_honest_answer_multiplies_evidence_by_at_most_one_on_average() -> None:
    """If severities are as frequent as the bounds allow, the mean e-value is exactly 1: a fair bet."""
    bounds = [bound for _, bound in ANY.history]
    edges = [edge for edge, _ in ANY.history]
    chances = [1 - bounds[0], *(-np.diff([*bounds, 0.0]))]
    values = [ANY.evidence(edge) for edge in [0.0, *edges]]
    assert float(np.dot(chances, values)) == pytest.approx(1.0)
    assert values[0] == pytest.approx(1 - STAKE)


def test_honest_histories_are_rejected_less_often_than_promised() -> None:
    """20,000 histories of 8 honest answers: at most 0.1 % reach the limit, with the severities that bounds allow."""
    dice = np.random.default_rng(4)
    edges = [0.0, *(edge for edge, _ in ANY.history)]
    bounds = [bound for _, bound in ANY.history]
    chances = [1 - bounds[0], *(-np.diff([*bounds, 0.0]))]
    drawn = dice.choice(edges, size=(20_000, 8), p=chances)
    rejected = sum(largest_product(map(ANY.evidence, row)) >= REJECT for row in drawn)
    assert rejected <= 20


def test_all_blocks_of_a_provider_together_spend_the_promised_chance() -> None:
    """Ever more blocks are judged, each at its own limit: the chances of a false alarm add up to 1 / REJECT at most."""
    spent = [1 / limit_of_block(number) for number in range(1, 100_000)]
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) < 1 / REJECT
    assert sum(spent) == pytest.approx(1 / REJECT, rel=1e-4)


def test_each_class_has_a_history_of_its_own() -> None:
    """Bounds of one class say nothing about another: what 53 answers support is weaker than what 304 do."""
    path = Path(assay.verify.__file__).with_name("calibration.json")
    for entry in Calibration.from_json(path.read_bytes()).entries:
        chances = [bound for _, bound in entry.history]
        assert chances == sorted(chances, reverse=True)
        # No answer in n reached an edge: the chance is at most 1 - (0.05 / edges)^(1/n), all edges together at 95 %.
        assert min(chances) >= 1 - (0.05 / len(chances)) ** (1 / entry.responses)
    assert replace(ANY, history=()).evidence(9.0) == 1.0


@given(st.lists(st.floats(0, 3), max_size=8), st.floats(0, 3))
def test_evidence_grows_with_severity(severities: list[float], more: float) -> None:
    """A worse answer never helps a provider, and evidence once reached stays."""
    before = largest_product(map(ANY.evidence, severities))
    assert largest_product(map(ANY.evidence, [*severities, more])) >= before >= 1.0
    assert ANY.evidence(more + 0.5) >= ANY.evidence(more)


def test_the_packaged_file_is_what_the_published_data_give(tmp_path: Path) -> None:
    """Anybody can fit again; a class of provers whose data are missing gets no entry, and the others are the same."""
    packaged = json.loads(Path(assay.verify.__file__).with_name("calibration.json").read_bytes())
    fit(DATA, tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_bytes()) == packaged
    for name in ("honest.csv", "held-out.csv", "provenance.json"):
        shutil.copy(DATA / name, tmp_path)
    fit(tmp_path, tmp_path / "some.json")
    assert json.loads((tmp_path / "some.json").read_bytes())["entries"] == packaged["entries"][:1]


def test_the_packaged_file_covers_llama_cpp_and_states_its_bounds() -> None:
    """The package ships a calibration whose false-alarm bounds are those that the documentation promises."""
    path = Path(assay.verify.__file__).with_name("calibration.json")
    calibration = Calibration.from_json(path.read_bytes())
    free = replace(PROFILE, engine="llama.cpp", kv_type="f16", regime="free")
    pinned = replace(free, kv_type="bf16+f16", regime="pinned/1")
    for prover in (free, replace(free, sampler="foreign")):
        entry = calibration.find(bytes(32), prover, pinned)
        assert entry is not None
        assert entry.responses >= 300
        assert entry.bound < 0.01
        # The bound is what the sample supports: no alarm in n answers bounds the chance at 1 - 0.05^(1/n).
        assert entry.bound >= 1 - 0.05 ** (1 / entry.responses)
        assert set(entry.scales) <= set(TESTS)
    assert calibration.confidence == 0.95
    assert path.stat().st_size < 20_000
