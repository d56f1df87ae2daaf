"""One answer's path from logits to steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.tiny import EOG, N_VOCAB, TinyReader, tiny_request

from assay.core.completion import Prompt
from assay.core.errors import ContextOverflow, EngineError, InvalidRequest
from assay.core.evidence import TOP_K, logits_leaf, read_top_leaf
from assay.engines.answering import Answering

READER = TinyReader()
PROMPT = Prompt(b"hi", (1, 2, 3))


def row(*best: int) -> np.ndarray:
    """Logits whose largest are at `best`, in that order."""
    logits = np.zeros(N_VOCAB, dtype=np.float32)
    logits[list(best)] = np.arange(len(best), 0, -1) * 10
    return logits


def answering(*, context: int = 64, logprobs: int | None = None, **settings: object) -> Answering:
    """Greedy, with settings of the request replaced."""
    request = replace(tiny_request(temperature=0), **settings)
    return Answering(request, PROMPT, READER, context=context, logprobs=logprobs)


def test_a_step_is_a_pick_and_its_finish() -> None:
    """In two parts, the second a pass later, an answer is the same."""
    rows = [row(*np.random.default_rng(n).permutation(26)[:3] + 97) for n in range(12)]
    whole, parts = answering(level="pinned"), answering(level="pinned")
    picked = [parts.pick(each) for each in rows]
    finished = [parts.finish(each, pick) for each, pick in zip(rows, picked, strict=True)]
    assert [whole.step(each) for each in rows] == finished
    assert [pick.token for pick in picked] == [step.token for step in finished]


@pytest.mark.parametrize(("max_tokens", "context", "count"), [(5, 64, 5), (0, 10, 7), (100, 10, 7), (1, 4, 1)], ids=str)
def test_the_limit(max_tokens: int, context: int, count: int) -> None:
    """An answer ends as `length` after `max_tokens`, or where the context ends."""
    under_way = answering(max_tokens=max_tokens, context=context)
    assert under_way.limit == count
    stops = [under_way.step(row(97)).stop for _ in range(count)]
    assert stops == [None] * (count - 1) + ["length"]


def test_end_of_generation() -> None:
    """The token that ends generation ends the answer, adds no text, and is known as the last one when it is picked."""
    under_way = answering(max_tokens=1)
    picked = under_way.pick(row(EOG))
    assert picked.stop == "stop"
    step = under_way.finish(row(EOG), picked)
    assert (step.text, step.stop) == ("", "stop")


def test_a_stop_text_across_tokens() -> None:
    """A stop text ends the answer where it is complete, and none of it is shown."""
    under_way = answering(stop=("bcd",), max_tokens=9)
    steps = [under_way.step(row(token)) for token in b"abcd"]
    assert "".join(step.text for step in steps) == "a"
    assert [step.stop for step in steps] == [None, None, None, "stop"]


def test_half_a_character_at_the_end() -> None:
    """Bytes that no later token completes are shown as U+FFFD, at the end only."""
    under_way = answering(max_tokens=2)
    assert under_way.step(row(97)).text == "a"
    assert under_way.step(row(0xC3)).text == "\N{REPLACEMENT CHARACTER}"


def test_leaves_per_level() -> None:
    """`signed` has no evidence, `statistical` the top tokens, `pinned` the digest of all logits."""
    logits = row(97, 98, 99)
    assert answering(level="signed").step(logits).leaf == b""
    top = read_top_leaf(answering(level="statistical").step(logits).leaf)
    assert top.ids[:3] == (97, 98, 99)
    assert len(top.ids) == TOP_K
    assert answering(level="pinned").step(logits).leaf == logits_leaf(logits)


@pytest.mark.parametrize("level", ["signed", "statistical", "pinned"])
def test_log_probabilities(level: str) -> None:
    """They are there when they were asked for, as many as were asked for, with the bytes of their tokens."""
    assert answering(level=level).step(row(97)).top is None
    none = answering(level=level, logprobs=0).step(row(97)).top
    assert none is not None
    assert none.ids == ()
    two = answering(level=level, logprobs=2).step(row(97, 98)).top
    assert two is not None
    assert two.ids == (97, 98)
    assert (two.chosen_bytes, two.top_bytes) == (b"a", (b"a", b"b"))
    assert two.chosen == two.logprobs[0] > two.logprobs[1]


def test_refusals() -> None:
    """An empty prompt, one that leaves no room, and logits that are no numbers are refused."""
    with pytest.raises(InvalidRequest, match="no tokens"):
        Answering(tiny_request(), Prompt(b"", ()), READER, context=64)
    with pytest.raises(ContextOverflow):
        Answering(tiny_request(), PROMPT, READER, context=3)
    with pytest.raises(EngineError, match="not finite"):
        answering().step(np.full(N_VOCAB, np.nan, dtype=np.float32))


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_continued_answer_joins_what_was_shown(cut: int) -> None:
    """Wherever an answer breaks off, in the middle of a character or of what may be a stop text, the text before and
    the text after are the text of the unbroken one, which ends at the same token."""
    said, stop = "aé€ENxENDz".encode(), ("END",)
    unbroken = answering(stop=stop, max_tokens=20)
    steps = [unbroken.step(row(token)) for token in said[:12]]
    assert [step.stop for step in steps].index("stop") == 11
    before = "".join(step.text for step in steps[:cut])
    after = answering(stop=stop, max_tokens=20 - cut, continues=tuple(said[:cut]))
    rest = [after.step(row(token)) for token in said[cut:12]]
    assert before + "".join(step.text for step in rest) == "aé€ENx"
    assert [step.stop for step in rest] == [None] * (11 - cut) + ["stop"]
    assert [step.index for step in rest] == list(range(12 - cut))
