"""Does the receipt cover what stands beside it? First without a model, then with the model's reader."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Final

from assay.core.bundle import Bundle
from assay.core.completion import Prompt, output_digest
from assay.core.errors import BindingMismatch, EncodingError, InvalidRequest
from assay.core.evidence import TOP_K, evidence_root, read_top_leaf, split_opening
from assay.core.hashing import Digest
from assay.core.ports import PromptReader, Tokenizer
from assay.core.profile import EXACT_REGIME
from assay.core.receipt import verify_signature

MAX_STOPS: Final = 16
"""Most stop texts of one request."""
MAX_STOP_CHARS: Final = 1024
"""Most characters of one stop text."""


def check_offline(bundle: Bundle) -> None:
    """Check everything that needs no model: the signature, every digest, the counts and the evidence's shape.

    Raises:
        InvalidSignature: the provider that the receipt names did not sign it.
        BindingMismatch: a member of the bundle is not what the receipt covers, or the receipt contradicts itself.
    """
    receipt, request, profile = bundle.receipt, bundle.request, bundle.profile
    verify_signature(receipt)
    _same("request", receipt.request, request.digest, "the request beside the receipt is not the one that it covers")
    _same("profile", receipt.profile, profile.digest, "the profile beside the receipt is not the one that it covers")
    if receipt.level != request.level:
        raise BindingMismatch("level", f"{request.level!r} was asked for, and the receipt says {receipt.level!r}")
    if receipt.output_count != len(bundle.tokens):
        raise BindingMismatch(
            "count", f"the receipt counts {receipt.output_count} tokens, and there are {len(bundle.tokens)}"
        )
    _same(
        "output",
        receipt.output,
        output_digest(request.nonce, bundle.tokens),
        "the output tokens beside the receipt are not those that it covers",
    )
    _check_level(bundle)
    _check_counts(bundle)


def check_with_model(bundle: Bundle, reader: PromptReader, model_digest: Digest) -> Prompt:
    """Check what only the model's reader can say: the prompt, the vocabulary, where the answer ends, the grammar.

    `bundle` has passed `check_offline`. Returns the prompt as the model must have seen it.

    Raises:
        BindingMismatch: it does not hold; `field` is `model`, `prompt`, `tokens`, `stop` or `grammar`.
    """
    if bundle.receipt.model != model_digest:
        raise BindingMismatch(
            "model",
            f"the receipt is for model file {bundle.receipt.model.hex()[:16]}…, and this is {model_digest.hex()[:16]}…",
            "check it with the model file that it names",
        )
    prompt = _check_prompt(bundle, reader)
    vocabulary = reader.tokenizer.n_vocab
    for index, token in enumerate(bundle.tokens):
        if token >= vocabulary:
            raise BindingMismatch("tokens", f"token {index} is {token}, and the model knows {vocabulary} tokens")
    _check_opened_ids(bundle, vocabulary)
    _check_end(bundle, reader.tokenizer)
    if bundle.profile.sampler != "foreign":  # other samplers mask by grammars of their own
        _check_grammar(bundle, reader)
    return prompt


def first_end(tokens: Sequence[int], tokenizer: Tokenizer, stops: Sequence[str]) -> int | None:
    """Where an answer ends by itself: the first token that ends generation or completes a stop text, from 0.

    Bytes that are not UTF-8 count as U+FFFD, as in the text that users see.

    Raises:
        BindingMismatch: stop texts that no provider takes (an empty one, over MAX_STOPS or MAX_STOP_CHARS).
    """
    if len(stops) > MAX_STOPS or any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise BindingMismatch(
            "stop", f"a request has at most {MAX_STOPS} stop texts of 1 to {MAX_STOP_CHARS} characters"
        )
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    reach = max(map(len, stops), default=1) - 1
    tail = ""
    for index, token in enumerate(tokens):
        if tokenizer.is_eog(token):
            return index
        if stops:
            window = tail + decoder.decode(tokenizer.piece(token))
            if any(stop in window for stop in stops):
                return index
            tail = window[-reach:] if reach else ""
    return None


def _check_level(bundle: Bundle) -> None:
    receipt, profile = bundle.receipt, bundle.profile
    if receipt.level != "statistical" and bundle.opening:
        raise BindingMismatch("opening", f"a receipt at level {receipt.level!r} opens no evidence")
    if receipt.level == "signed":
        _same(
            "evidence",
            receipt.evidence,
            evidence_root((), bundle.request.nonce),
            "a receipt at level 'signed' commits to no evidence",
        )
    elif receipt.level == "pinned":
        if profile.regime in ("free", EXACT_REGIME) or profile.sampler != "gumbel/1":
            raise BindingMismatch(
                "level",
                f"'pinned' needs a pinned regime and sampler gumbel/1, not {profile.regime!r} and {profile.sampler!r}",
            )
    elif receipt.level == "exact":
        if profile.regime != EXACT_REGIME or profile.sampler != "gumbel/2":
            raise BindingMismatch(
                "level",
                f"'exact' needs the regime {EXACT_REGIME} and sampler gumbel/2, not {profile.regime!r} and "
                f"{profile.sampler!r}",
            )
    else:
        _check_opening(bundle)


def _check_opening(bundle: Bundle) -> None:
    try:
        leaves = split_opening(bundle.opening)
        for leaf in leaves:
            read_top_leaf(leaf)
    except EncodingError as error:
        raise BindingMismatch("opening", error.message) from error
    if len(leaves) != len(bundle.tokens):
        raise BindingMismatch("opening", f"{len(leaves)} leaves are opened for {len(bundle.tokens)} tokens")
    _same(
        "evidence",
        bundle.receipt.evidence,
        evidence_root(leaves, bundle.request.nonce),
        "the opened evidence is not what the receipt covers",
    )


def _check_opened_ids(bundle: Bundle, vocabulary: int) -> None:
    for index, leaf in enumerate(split_opening(bundle.opening)):
        ids = set(read_top_leaf(leaf).ids)
        if max(ids) >= vocabulary:
            raise BindingMismatch("opening", f"leaf {index} names a token that the model does not know")
        # Other servers may give fewer alternatives than a leaf has room for.
        if bundle.profile.sampler != "foreign" and len(ids) < min(TOP_K, vocabulary):
            raise BindingMismatch("opening", f"leaf {index} names a token twice")


def _check_counts(bundle: Bundle) -> None:
    receipt, request = bundle.receipt, bundle.request
    count, room = receipt.output_count, bundle.profile.context - receipt.prompt_count
    if request.max_tokens and count > request.max_tokens:
        raise BindingMismatch(
            "count", f"the answer has {count} tokens, and at most {request.max_tokens} were asked for"
        )
    if count > room:
        raise BindingMismatch(
            "count",
            f"{receipt.prompt_count} prompt and {count} output tokens do not fit the profile's context "
            f"of {bundle.profile.context}",
        )
    if receipt.stop == "stop" and not count:
        raise BindingMismatch("stop", "the receipt says 'stop', and there is no token that could have ended the answer")
    if receipt.stop == "length" and count not in (request.max_tokens, room):
        raise BindingMismatch(
            "stop",
            f"the receipt says 'length' after {count} tokens, but neither the limit asked for "
            f"({request.max_tokens or 'none'}) nor the context's end ({room}) was reached",
        )


def _check_prompt(bundle: Bundle, reader: PromptReader) -> Prompt:
    receipt, nonce = bundle.receipt, bundle.request.nonce
    try:
        prompt = reader.render(bundle.request)
    except InvalidRequest as error:
        raise BindingMismatch(
            "prompt", f"the model takes no such request ({error.message}), and still was 'answered'"
        ) from error
    text, tokens = prompt.text_digest(nonce) == receipt.prompt_text, prompt.token_digest(nonce) == receipt.prompt_tokens
    if not text or not tokens:
        what = "text differs" if not text else "text is equal but its token ids differ"
        raise BindingMismatch(
            "prompt",
            f"the prompt that was answered ({receipt.prompt_count} tokens) is not the one that the request renders to "
            f"({len(prompt.tokens)} tokens): its {what}",
            "something was added, cut or rendered by another template",
        )
    if receipt.prompt_count != len(prompt.tokens):
        raise BindingMismatch(
            "prompt", f"the receipt counts {receipt.prompt_count} prompt tokens, and there are {len(prompt.tokens)}"
        )
    return prompt


def _check_end(bundle: Bundle, tokenizer: Tokenizer) -> None:
    stop, last, before = bundle.receipt.stop, len(bundle.tokens) - 1, bundle.request.continues
    end = first_end((*before, *bundle.tokens), tokenizer, bundle.request.stop)
    if end is None:
        if stop == "stop":
            raise BindingMismatch(
                "stop", "the receipt says 'stop', but no end of generation and no stop text was reached"
            )
        return
    end -= len(before)
    if end < 0:
        raise BindingMismatch("stop", "the answer had ended before it was continued")
    if end < last:
        raise BindingMismatch("stop", f"the answer ended at token {end}, but {last - end} more tokens were added")
    if stop == "length":
        raise BindingMismatch("stop", f"the receipt says 'length', but the answer ended by itself at token {end}")


def _check_grammar(bundle: Bundle, reader: PromptReader) -> None:
    try:
        constraint = reader.constraint(bundle.request)
    except InvalidRequest as error:
        raise BindingMismatch("grammar", f"no grammar follows from the request ({error.message})") from error
    if constraint is None:
        return
    for index, token in enumerate(bundle.tokens):
        if not constraint.allowed()[token]:
            raise BindingMismatch(
                "grammar", f"token {index} is {token}, which the requested format does not allow there"
            )
        constraint.accept(token)


def _same(field: str, bound: Digest, actual: Digest, message: str) -> None:
    if bound != actual:
        raise BindingMismatch(field, message)
