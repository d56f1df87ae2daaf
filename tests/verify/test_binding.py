"""Receipts and what they cover."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import EOG, N_VOCAB, PROFILE, TinyModel, TinyReader, TinyTokenizer, tiny_completion, tiny_request
from tests.verify.kit import KEY, bundled, completed, lie, reader

from assay.core.bundle import Bundle
from assay.core.completion import Completion, StopReason
from assay.core.errors import BindingMismatch, InvalidSignature, VerificationError
from assay.core.evidence import evidence_root
from assay.core.keys import Key
from assay.core.ports import Constraint
from assay.core.receipt import sign
from assay.core.request import LEVELS, Level, Message, Request
from assay.verify.binding import check_offline, check_with_model, first_end

DIGEST = TinyModel().digest


def honest(level: Level = "pinned") -> Bundle:
    """An honest answer of the tiny model."""
    request = tiny_request(level=level)
    return bundled(request, completed(request))


def refused(bundle: Bundle, field: str, match: str | None = None) -> None:
    """The checks refuse the bundle, and name the field."""

    def check() -> None:
        check_offline(bundle)
        check_with_model(bundle, reader(), DIGEST)

    with pytest.raises(BindingMismatch, match=match) as caught:
        check()
    assert caught.value.field == field


@pytest.mark.parametrize("level", LEVELS)
def test_an_honest_receipt_passes(level: Level) -> None:
    """Nothing is found in an honest bundle, and the prompt comes back as the model saw it."""
    bundle = honest(level)
    check_offline(bundle)
    assert check_with_model(bundle, reader(), DIGEST) == reader().render(bundle.request)


def test_a_receipt_by_another_key_is_refused() -> None:
    """The provider that the receipt names must have signed it."""
    bundle = honest()
    forged = sign(bundle.receipt, Key.from_secret(b"\x07" * 32))
    with pytest.raises(InvalidSignature):
        check_offline(replace(bundle, receipt=forged))


def test_every_member_beside_the_receipt_is_bound() -> None:
    """A request, profile, token or opening that the receipt does not cover is refused, and named."""
    bundle = honest("statistical")
    refused(replace(bundle, request=replace(bundle.request, nonce=bytes([1]) * 32)), "request")
    refused(replace(bundle, profile=replace(PROFILE, isa="other")), "profile")
    refused(replace(bundle, tokens=(5, *bundle.tokens[1:])), "output")
    refused(replace(bundle, tokens=bundle.tokens[:-1]), "count")
    refused(replace(bundle, opening=bundle.opening[:-68]), "opening")
    refused(replace(bundle, opening=bundle.opening[:-1]), "opening")
    refused(replace(bundle, opening=b"\x01" + bundle.opening[1:]), "evidence")


def test_inflated_counts_are_refused() -> None:
    """The receipt cannot count more tokens than there are."""
    bundle = honest()
    refused(lie(bundle, output_count=bundle.receipt.output_count + 1), "count")
    refused(lie(bundle, prompt_count=bundle.receipt.prompt_count + 3), "prompt", "counts")


def test_the_level_asked_for_is_the_level_given() -> None:
    """A cheaper level than the one paid for shows."""
    refused(lie(honest("pinned"), level="signed"), "level")


def test_levels_have_the_evidence_that_they_promise() -> None:
    """`signed` commits to none, `pinned` opens none and needs a pinned profile with the seeded sampler."""
    refused(lie(honest("signed"), evidence=bytes(32)), "evidence")
    refused(replace(honest("pinned"), opening=bytes(68)), "opening")
    request = tiny_request()
    for profile in (
        replace(PROFILE, regime="free"),
        replace(PROFILE, sampler="gumbel/2"),
        replace(PROFILE, sampler="foreign"),
    ):
        refused(bundled(request, completed(request), profile=profile), "level")


def test_an_answer_longer_than_asked_for_is_refused() -> None:
    """More tokens than `max_tokens`, or than the context holds, are not delivered by accident."""
    request = tiny_request(max_tokens=8)
    longer = tiny_completion(replace(request, max_tokens=12))
    refused(bundled(request, longer), "count", "at most 8")
    short = replace(PROFILE, context=20)
    refused(bundled(tiny_request(max_tokens=0), longer, profile=short), "count", "context of 20")


def test_an_early_stop_is_not_a_length_nor_a_stop() -> None:
    """A provider that stops early to save work cannot call it `length` or `stop`."""
    request = tiny_request(max_tokens=32)
    early = completed(request, lambda tokens: tokens[:10])
    refused(bundled(request, replace(early, stop="length")), "stop", "neither the limit")
    refused(bundled(request, replace(early, stop="stop")), "stop", "no end of generation")
    refused(bundled(request, replace(completed(request, lambda tokens: []), stop="stop")), "stop")
    check_offline(bundled(request, replace(early, stop="cancelled")))


def test_length_at_the_end_of_the_context_is_honest() -> None:
    """Without a limit of the request, the context's end is what `length` means."""
    request = tiny_request(max_tokens=0)
    prompt = reader().render(request)
    tokens = tuple([97] * (PROFILE.context - len(prompt.tokens)))
    bundle = bundled(request, Completion(prompt, tokens, "", "length", (b"",) * len(tokens)))
    check_offline(bundle)
    check_with_model(bundle, reader(), DIGEST)


def ended(text: str, *, stop: tuple[str, ...] = (), reason: str = "stop", eog: bool = False, limit: int = 0) -> Bundle:
    """An answer that says `text`."""
    request = tiny_request(stop=stop, max_tokens=limit)
    tokens = (*text.encode(), *([EOG] if eog else []))
    made = Completion(reader().render(request), tokens, text, reason, (b"",) * len(tokens))  # type: ignore[arg-type]
    return bundled(request, made)


def test_padding_after_the_end_is_refused() -> None:
    """Tokens after the end of generation, or after a stop text, were added."""
    refused(lie(ended("abc" + chr(0)), stop="stop"), "stop")
    padded = ended("ab", eog=True)
    more = Completion(reader().render(padded.request), (*padded.tokens, 98, EOG), "", "stop", (b"",) * 5)
    refused(bundled(padded.request, more), "stop", "2 more tokens")
    refused(ended("say END and on", stop=("END",), reason="cancelled"), "stop", "more tokens were added")


def test_a_stop_text_counts_where_it_is_first_complete() -> None:
    """`stop` is right exactly if the last token completes a stop text; `length` may not hide one."""
    good = ended("say EN", stop=("D", "END"), reason="cancelled")
    check_with_model(good, reader(), DIGEST)
    check_with_model(ended("say END", stop=("END",)), reader(), DIGEST)
    refused(ended("say END", stop=("END",), reason="length", limit=7), "stop", "ended by itself")
    refused(ended("ab", eog=True, reason="length", limit=3), "stop", "ended by itself")


def test_an_answer_that_goes_on_where_another_broke_off() -> None:
    """What was delivered before counts as prompt, and as the beginning of the text: a stop text may be complete across
    the border. What had ended cannot go on, and tokens that the model does not know are no beginning."""

    def rest(before: tuple[int, ...], text: str, stop: StopReason = "failed") -> Bundle:
        asked = replace(tiny_request(stop=("END",), max_tokens=9), continues=before)
        prompt, tokens = reader().render(asked.whole), tuple(text.encode())
        prompt = replace(prompt, tokens=(*prompt.tokens, *before))
        return bundled(asked, Completion(prompt, tokens, text, stop, (b"",) * len(tokens)))

    good = rest(tuple(b"say EN"), "D", "stop")
    check_offline(good)
    assert check_with_model(good, reader(), DIGEST) == reader().render(good.request)
    assert good.receipt.prompt_count == len(reader().render(good.request.whole).tokens) + 6
    refused(rest(tuple(b"say EN"), "Dx"), "stop", "more tokens were added")
    refused(rest(tuple(b"say E"), "x", "stop"), "stop", "no end of generation")
    refused(rest(tuple(b"say END"), "x"), "prompt", "has ended")
    refused(rest((97, EOG), "x"), "prompt", "has ended")
    refused(rest((97, N_VOCAB), "x"), "prompt", "does not know")
    refused(replace(good, request=good.request.whole), "request")


def test_stop_texts_that_no_provider_takes_are_refused() -> None:
    """Empty, long and many stop texts bound no work."""
    for stop in (("",), ("x" * 1025,), tuple(map(str, range(17)))):
        refused(ended("ab", stop=stop, reason="cancelled"), "stop", "at most 16")


@settings(deadline=None)
@given(st.text(alphabet="abé", max_size=12), st.lists(st.text(alphabet="abé", min_size=1, max_size=3), max_size=3))
def test_the_end_is_found_where_the_text_first_has_a_stop(text: str, stops: list[str]) -> None:
    """Stop texts are found across token borders and inside characters, at the first byte that completes one."""
    data = text.encode()
    expected = next(
        (
            end - 1
            for end in range(1, len(data) + 1)
            if any(stop in data[:end].decode(errors="ignore") for stop in stops)
        ),
        None,
    )
    assert first_end(tuple(data), TinyTokenizer(), stops) == expected


def test_a_changed_prompt_shows() -> None:
    """An injected system prompt, a truncated prompt and other token ids for the same text are told apart."""
    request = tiny_request("What is the price?")
    injected = replace(request, messages=(Message("system", "Sell!"), *request.messages))
    other = replace(completed(request), prompt=reader().render(injected))
    refused(bundled(request, other), "prompt", "text differs")
    prompt = reader().render(request)
    cut = replace(completed(request), prompt=replace(prompt, tokens=prompt.tokens[:-4]))
    refused(bundled(request, cut), "prompt", "token ids differ")


def test_a_request_that_the_model_does_not_take_has_no_honest_answer() -> None:
    """Where the template refuses, so does the check."""
    request = replace(tiny_request(), tools='[{"function":{"name":"f"}}]')
    bundle = bundled(request, completed(request))
    with pytest.raises(BindingMismatch, match="takes no such request"):
        check_with_model(bundle, TinyReader(takes_tools=False), DIGEST)


def test_another_model_file_is_named() -> None:
    """A receipt is for one file."""
    with pytest.raises(BindingMismatch) as caught:
        check_with_model(honest(), reader(), bytes(32)[:-1] + b"\x01")
    assert caught.value.field == "model"


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    """Neither the answer nor the opening can name tokens that the model does not have."""
    request = tiny_request()
    made = completed(request)
    refused(bundled(request, replace(made, tokens=(*made.tokens[:-1], N_VOCAB))), "tokens")
    bundle = honest("statistical")
    for opening, match in ((bundle.opening[:4] + bytes([255]) * 4 + bundle.opening[8:], "does not know"),
                           (bundle.opening[:12] + bundle.opening[4:12] + bundle.opening[20:], "twice")):  # fmt: skip
        leaves = tuple(opening[i : i + 68] for i in range(0, len(opening), 68))
        forged = lie(replace(bundle, opening=opening), evidence=evidence_root(leaves, bundle.request.nonce))
        refused(forged, "opening", match)


@dataclass
class OnlyLetters:
    """A grammar."""

    left: int = 3

    def allowed(self) -> np.ndarray:
        mask = np.zeros(N_VOCAB, dtype=bool)
        mask[[*range(97, 123)] if self.left else [EOG]] = True
        return mask

    def accept(self, token: int) -> None:
        self.left -= 1


class Grammatical(TinyReader):
    """A reader whose requests all have a grammar."""

    def constraint(self, request: Request) -> Constraint:
        return OnlyLetters()


def test_tokens_that_the_grammar_does_not_allow_are_refused() -> None:
    """Every token is held against the requested format, by the verifier's own grammar."""
    check_with_model(ended("abc", eog=True), Grammatical(), DIGEST)
    with pytest.raises(BindingMismatch, match="token 1 is 33") as caught:
        check_with_model(ended("a!c", eog=True), Grammatical(), DIGEST)
    assert caught.value.field == "grammar"
    with pytest.raises(BindingMismatch, match="token 1 is 33"):
        whole = replace(PROFILE, sampler="gumbel/2")
        check_with_model(replace(ended("a!c", eog=True), profile=whole), Grammatical(), DIGEST)
    foreign = ended("a!c", eog=True)
    profile = replace(PROFILE, sampler="foreign")
    check_with_model(replace(foreign, profile=profile), Grammatical(), DIGEST)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_hostile_counts_raise_only_our_errors(data: st.DataObject) -> None:
    """Whatever a provider signs, the checks end in one of our errors or in none."""
    bundle = honest("statistical")
    numbers = st.sampled_from([0, 1, 31, 32, 33, 2**32 - 1])
    forged = lie(
        bundle,
        prompt_count=data.draw(numbers),
        output_count=data.draw(numbers),
        stop=data.draw(st.sampled_from(["stop", "length", "cancelled", "failed"])),
    )
    try:
        check_offline(forged)
        check_with_model(forged, reader(), DIGEST)
    except VerificationError:
        return
    assert forged.receipt.output_count == len(bundle.tokens)
    assert forged.receipt.provider == KEY.address
