"""Chat templates: from messages to the prompt that a model was trained on, without letting messages write markup.

The text is what Hugging Face's `apply_chat_template` gives. Beside it stands who wrote each part: only what the
template itself wrote may become control tokens (`encode_chat`), so a message that contains `<|im_end|>` says just
that. Where a template takes its own markup through an operation that loses track of it (upper-casing it, say), the
markup counts as a user's words: the model then sees it as plain text, and no message ever gains a control token.

Tool calls whose arguments are a JSON string, as in OpenAI's API, are given to the template as the object that
templates expect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol, TypeAlias

from jinja2 import nodes
from jinja2.exceptions import TemplateError

from assay.core.errors import InvalidRequest, ModelFileError
from assay.engines.marked_text import marked, runs
from assay.engines.template_fuel import Fuel, OutOfFuel, Refusal
from assay.engines.template_sandbox import Sandbox, compiled, render
from assay.engines.template_time import MAX_TIME_S

MAX_TEMPLATE_CHARS: Final = 128 * 1024
"""Longest chat template that is read."""
MAX_INPUT_CHARS: Final = 2 * 2**20
"""Most characters of messages and tools together, each value counting as at least four."""

MAX_DEPTH: Final = 64
"""Deepest nesting of messages and tools."""

Part: TypeAlias = tuple[str, bool]
"""A piece of a prompt, and whether the template wrote it."""

_FUEL: Final = 300_000
_FUEL_PER_CHAR: Final = 32
_HELLO: Final = ({"role": "user", "content": "Hello"},)
_TOO_BIG: Final = "send shorter messages"
_BROKEN: Final = "use another copy of the model, or another model"
# What Jinja and generated code raise for a template that does not work.
_FAILURES: Final = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    OutOfFuel,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


class Encode(Protocol):
    """`Tokenizer.encode`."""

    def __call__(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Token ids of `text`."""
        ...


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, object]],
    *,
    tools: Sequence[Mapping[str, object]] | None,
    add_generation_prompt: bool,
    bos_token: str,
    eos_token: str,
    now_s: int,
) -> str:
    """The prompt as text: `render_chat_parts` in one piece, with the same errors."""
    parts = render_chat_parts(
        template,
        messages,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        bos_token=bos_token,
        eos_token=eos_token,
        now_s=now_s,
    )
    return "".join(text for text, _ in parts)


def render_chat_parts(
    template: str,
    messages: Sequence[Mapping[str, object]],
    *,
    tools: Sequence[Mapping[str, object]] | None,
    add_generation_prompt: bool,
    bos_token: str,
    eos_token: str,
    now_s: int,
) -> list[Part]:
    """The prompt as (text, whether the template wrote it); neighbours differ.

    `now_s` is the time that the template sees, in Unix seconds. The same arguments give the same prompt everywhere.

    Raises:
        InvalidRequest: the template refuses the messages or cannot render them (and renders others), or they are too
            long, nested too deep, or not well-formed.
        ModelFileError: the template is broken, or takes more time or text than it may.
    """
    if not 0 <= now_s <= MAX_TIME_S:
        raise InvalidRequest(f"{now_s} is not a time in Unix seconds", field="created")
    variables: dict[str, object] = {
        "messages": [_with_parsed_arguments(message) for message in _plain(messages, "messages")],
        "tools": None if tools is None else _plain(tools, "tools"),
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "bos_token": marked(bos_token),
        "eos_token": marked(eos_token),
    }
    compiled_template(template)
    size = sum(_size(value) for value in (variables["messages"], variables["tools"]))
    try:
        return runs(render(template, variables, fuel=Fuel(_FUEL + _FUEL_PER_CHAR * size), now_s=now_s))
    except Refusal as refusal:
        raise InvalidRequest(
            f"the model's chat template refuses the messages: {refusal}", field="messages"
        ) from refusal
    except _FAILURES as failure:
        if _renders(template, _HELLO):
            raise InvalidRequest(
                f"the model's chat template cannot render these messages ({_said(failure)})",
                field="messages",
                remedy=_TOO_BIG if isinstance(failure, OutOfFuel) else "check their roles, order and content",
            ) from failure
        raise ModelFileError(f"the model's chat template does not work ({_said(failure)})", _BROKEN) from failure


def encode_chat(parts: Sequence[Part], markup: Sequence[str], encode: Encode) -> tuple[int, ...]:
    """Token ids (by `encode`) of a rendered prompt in which only the template's own markup became control tokens.

    `markup` are the texts of the vocabulary's control tokens. A prompt whose messages contain none of them is
    tokenized in one piece, exactly as without this protection (words that touch the template's words merge with them
    as the model has learnt it).
    """
    text = "".join(part for part, _ in parts)
    markup = tuple(filter(None, markup))
    if not markup or not _touches_words(text, parts, _pattern(markup, overlapping=True)):
        return encode(text, special=True)
    tokens: list[int] = []
    words = ""
    for part, trusted in parts:
        last = 0
        for match in _pattern(markup, overlapping=False).finditer(part) if trusted else ():
            words += part[last : match.start()]
            tokens += encode(words, special=False) if words else ()
            tokens += encode(match[1], special=True)
            words, last = "", match.end()
        words += part[last:]
    return (*tokens, *(encode(words, special=False) if words else ()))


def supports_tools(template: str) -> bool:
    """Whether the template has a place for tool definitions: it reads the variable `tools`.

    Raises:
        ModelFileError: the template is broken.
    """
    compiled_template(template)
    tree = Sandbox(Fuel(_FUEL), 0).parse(template)
    return any(name.name == "tools" and name.ctx == "load" for name in tree.find_all(nodes.Name))


def supports_system(template: str) -> bool:
    """Whether the template shows the model what a system message says.

    Raises:
        ModelFileError: the template is broken.
    """
    compiled_template(template)
    return _renders(template, ({"role": "system", "content": "%system%"}, *_HELLO), shows="%system%")


def compiled_template(template: str) -> None:
    """Check that the template is a program that can be run at all.

    Raises:
        ModelFileError: it is too long, or not a Jinja template, or uses what chat templates may not.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise ModelFileError(f"the model's chat template has more than {MAX_TEMPLATE_CHARS} characters", _BROKEN)
    try:
        compiled(template)
    except _FAILURES as failure:
        raise ModelFileError(f"the model's chat template is broken ({_said(failure)})", _BROKEN) from failure


@lru_cache(maxsize=32)
def _renders_cached(template: str, conversation: str, shows: str) -> bool:
    variables = {"messages": json.loads(conversation), "add_generation_prompt": True, "bos_token": "", "eos_token": ""}
    try:
        return shows in render(template, variables | {"tools": None, "documents": None}, fuel=Fuel(_FUEL), now_s=0)
    except (*_FAILURES, Refusal):
        return False


def _renders(template: str, messages: Sequence[Mapping[str, str]], shows: str = "") -> bool:
    return _renders_cached(template, json.dumps(messages), shows)


def _said(failure: BaseException) -> str:
    return f"{type(failure).__name__}: {failure}"[:300]


def _plain(values: Sequence[Mapping[str, object]], field: str) -> list[dict[str, object]]:
    """A copy of JSON data with Python's own types only, which a template cannot change for anybody else.

    Raises:
        InvalidRequest: the data is too large, nested too deep, holds a lone surrogate, or is not JSON.
    """
    left = MAX_INPUT_CHARS

    def copy(value: object, depth: int) -> object:
        nonlocal left
        left -= 4 + (len(value) if isinstance(value, str) else 0)
        if left < 0:
            raise InvalidRequest(
                f"the {field} have more than {MAX_INPUT_CHARS} characters", field=field, remedy=_TOO_BIG
            )
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"the {field} are nested more than {MAX_DEPTH} deep", field=field)
        if isinstance(value, str):
            if not value.isascii() and re.search("[\ud800-\udfff]", value):
                raise InvalidRequest(
                    f"the {field} hold a lone surrogate", field=field, remedy="send well-formed Unicode"
                )
            return str(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Mapping):
            return {str(copy(key, depth + 1)): copy(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, Sequence):
            return [copy(inner, depth + 1) for inner in value]
        raise InvalidRequest(f"the {field} hold a {type(value).__name__}, which JSON does not have", field=field)

    copied: list[dict[str, object]] = []
    for value in values:
        item = copy(value, 0)
        if not isinstance(item, dict):
            raise InvalidRequest(f"each of the {field} is an object", field=field)
        copied.append(item)
    return copied


def _with_parsed_arguments(message: dict[str, object]) -> dict[str, object]:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(arguments := function.get("arguments"), str):
            try:
                parsed: object = json.loads(arguments)
            except (ValueError, RecursionError):
                continue
            if isinstance(parsed, dict):
                (function["arguments"],) = _plain([parsed], "messages")
    return message


def _size(value: object) -> int:
    if isinstance(value, str):
        return 4 + len(value)
    if isinstance(value, dict):
        return 4 + sum(_size(key) + _size(inner) for key, inner in value.items())
    return 4 + sum(map(_size, value)) if isinstance(value, list) else 4


@lru_cache(maxsize=16)
def _pattern(markup: tuple[str, ...], *, overlapping: bool) -> re.Pattern[str]:
    """Finds the longest markup at a place; with `overlapping`, at every place."""
    alternatives = "|".join(re.escape(text) for text in sorted(markup, key=len, reverse=True))
    return re.compile(f"(?=({alternatives}))" if overlapping else f"({alternatives})")


def _touches_words(text: str, parts: Sequence[Part], pattern: re.Pattern[str]) -> bool:
    """Whether some markup in `text` has a character that a user wrote."""
    bounds: list[tuple[int, int]] = []
    offset = 0
    for part, trusted in parts:
        if not trusted:
            bounds.append((offset, offset + len(part)))
        offset += len(part)
    at = 0
    for match in pattern.finditer(text):
        start, stop = match.span(1)
        while at < len(bounds) and bounds[at][1] <= start:
            at += 1
        if at < len(bounds) and bounds[at][0] < stop:
            return True
    return False
