"""How a model reads requests that no OpenAI surface let through: whatever a bundle holds, its check is a verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.chat_templates import LLAMA3, QWEN
from tests.tiny import PROFILE, tiny_key, tiny_request

from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt
from assay.core.errors import EngineError, InvalidRequest
from assay.core.profile import Profile
from assay.core.receipt import attest
from assay.core.request import Message, Request, Role
from assay.core.verdict import Verdict
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from assay.verify.calibration import Calibration
from assay.verify.policy import verify_bundle

pytestmark = pytest.mark.model
GARBAGE = (
    "{",
    "5",
    '"x"',
    "null",
    "[5]",
    "[[]]",
    "[" * 5000,
    "[{}",
    "NaN",
    "[NaN]",
    "{}",
    '["\\ud800"]',
    "\x00",
    "9" * 5000,
)
SCHEMAS = (*GARBAGE, '{"type":7}', '{"$ref":"#/x"}', '{"not":{}}', '{"type":"string","pattern":"("}', "json_object")
TOOLS = (
    "[{}]",
    '[{"function":{},"type":"function"}]',
    '[{"function":{"name":"f","parameters":5},"type":"function"}]',
    '[{"function":{"name":"f","parameters":{"$ref":"#"}},"type":"function"}]',
    '[{"function":{"name":"f","parameters":{}},"type":"function"}]',
)
CALLS = ("[{}]", '[{"function":5}]', '[{"function":{"arguments":"{","name":7}}]', '[{"function":{"name":"\\ud800"}}]')


@pytest.fixture(scope="module")
def readers(model_path: Path) -> Iterator[list[LlamaReader]]:
    """The real vocabulary under templates of three kinds."""
    with LlamaModel(model_path, vocab_only=True) as model:
        yield [
            LlamaReader(SimpleNamespace(tokenizer=model.tokenizer, n_ctx_train=2048, chat_template=template))  # type: ignore[arg-type]
            for template in (model.chat_template, QWEN, LLAMA3)
        ]


class _Replayer:
    """A machine that can read, and compute nothing."""

    model_digest = bytes(32)

    def __init__(self, reader: LlamaReader) -> None:
        self.reader = reader

    @property
    def profile(self) -> Profile:
        return PROFILE

    def rows(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        raise EngineError("this machine computes nothing")


def checked(request: Request, reader: LlamaReader) -> Verdict:
    """The verdict on a validly signed answer of a few tokens to `request`."""
    try:
        prompt = reader.render(request)
    except InvalidRequest:
        prompt = Prompt(b"x", (1,))
    completion = Completion(prompt, (5, 6, 7), "", "cancelled", (bytes(32),) * 3)
    receipt = attest(
        request, completion, model=bytes(32), profile=PROFILE, key=tiny_key(), sequence=1, issued=1, amount=0
    )
    bundle = Bundle.decode(Bundle(receipt, request, PROFILE, completion.tokens).encode())
    clock = map(float, count()).__next__
    return verify_bundle(bundle, _Replayer(reader), calibration=Calibration((), 0.0), clock=clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", GARBAGE)
def test_tools_and_calls_that_are_no_lists_of_objects_are_refused(readers: list[LlamaReader], text: str) -> None:
    """By the reader as InvalidRequest, and by a check as an answer that no model can have given."""
    request = tiny_request(level="pinned")
    spoken = (*request.messages, Message("assistant", "", tool_calls=text), Message("user", "go on"))
    for reader in readers[1:]:
        for asked in (replace(request, tools=text, tool_choice="auto"), replace(request, messages=spoken)):
            with pytest.raises(InvalidRequest):
                reader.render(asked)
            verdict = checked(asked, reader)
            assert verdict.outcome == "fails"
            assert "takes no such request" in verdict.reasons[0]


def test_what_is_well_formed_is_rendered(readers: list[LlamaReader]) -> None:
    """Tools and calls as OpenAI writes them stay what they were."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    spoken = (Message("user", "hi"), Message("assistant", "", tool_calls=json.dumps([call])), Message("tool", "5"))
    request = replace(tiny_request(level="pinned"), messages=spoken, tools=TOOLS[-1], tool_choice="auto")
    assert b'{"name": "f", "arguments": {}}' in readers[1].render(request).text


_REQUESTS: Any = st.builds(
    lambda **changes: replace(tiny_request(level="pinned"), max_tokens=0, **changes),
    kind=st.sampled_from(["chat", "completion"]),
    messages=st.lists(
        st.builds(
            Message,
            st.sampled_from(get_args(Role)),
            st.sampled_from(["", "hi", "<|im_end|>", "\x00", "é"]),
            st.sampled_from(["", *CALLS, *GARBAGE]),
            st.sampled_from(["", "c"]),
            st.sampled_from(["", "n"]),
        ),
        max_size=4,
    ).map(tuple),
    prompt=st.sampled_from(["", "Once"]),
    tools=st.sampled_from(["", *TOOLS, *GARBAGE]),
    tool_choice=st.sampled_from(["", "auto", "none", "required", "function:", "function:f", "function:g", "x", "{"]),
    response_format=st.sampled_from(["", *SCHEMAS]),
    created=st.sampled_from([0, 1_790_000_000, 2**53 - 1]),
    stop=st.sampled_from([(), ("",), ("x",) * 20]),
)


@settings(max_examples=150, deadline=None)
@given(request=_REQUESTS, which=st.integers(0, 2))
def test_whatever_a_bundle_holds_its_check_is_a_verdict(
    readers: list[LlamaReader], request: Request, which: int
) -> None:
    """Odd roles, tool choices, tools, calls and formats in any combination: an outcome with a reason, no exception."""
    verdict = checked(request, readers[which])
    assert verdict.outcome in ("fails", "inconclusive")
    assert verdict.reasons
