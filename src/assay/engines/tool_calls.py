"""Tool calls in a model's words: found in what it wrote, and as the form that a forced call must have.

Two styles, named after where they come from:

- `hermes` (Qwen and others): text, and any number of `<tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call>`;
- `llama3`: the whole answer is one object, `{"name": …, "parameters": {…}}`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, TypeAlias, get_args

from assay.core.errors import InvalidRequest
from assay.engines.carried import carried_json

ToolStyle: TypeAlias = Literal["hermes", "llama3"]
"""How a model writes tool calls."""
TOOL_STYLES: Final[tuple[ToolStyle, ...]] = get_args(ToolStyle)

MAX_TOOLS: Final = 128
"""Most tools of one request."""
MAX_CALL_CHARS: Final = 64 * 1024
"""Longest JSON text of a call; a longer one is text."""

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ARGUMENTS: Final[Mapping[ToolStyle, str]] = {"hermes": "arguments", "llama3": "parameters"}
_MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool."""

    id: str
    """The `tool` message with the result names it."""
    name: str
    arguments: str
    """A JSON object, as JSON text."""


def tool_style(template: str) -> ToolStyle | None:
    """How a model with this chat template writes tool calls; None for a style that is not read here."""
    if _OPEN in template:
        return "hermes"
    return "llama3" if re.search(r'\\?"parameters\\?": ', template) else None


def parse_tool_calls(
    text: str, style: ToolStyle, *, id_prefix: str, names: Collection[str] | None = None
) -> tuple[str, tuple[ToolCall, ...]]:  # fmt: skip
    """The text of a finished answer without its tool calls, and the calls in order.

    What is not closed, not JSON of the right form, or calls none of the tools `names` (None: any), stays in the text.
    Ids are derived from `id_prefix` (the id of the answer) and the call's position, so that anybody finds the same.
    """
    stream = ToolCallStream(style, names=names, id_prefix=id_prefix)
    content = stream.push(text)
    return content + stream.finish(), stream.calls


class ToolCallStream:
    """Finds tool calls in an answer while it comes; all that it shows together is what `parse_tool_calls` gives."""

    def __init__(self, style: ToolStyle, *, id_prefix: str, names: Collection[str] | None = None) -> None:
        self._style = style
        self._names = None if names is None else frozenset(names)
        self._id_prefix = id_prefix
        self._calls: list[ToolCall] = []
        self._held = ""
        self._space = ""
        self._started = False
        self._after_call = False
        self._plain = False

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls that are complete so far."""
        return tuple(self._calls)

    def push(self, text: str) -> str:
        """The content that can be shown after more text of the answer."""
        self._held += text
        return self._bare() if self._style == "llama3" else self._tagged()

    def finish(self) -> str:
        """The rest of the content: no text follows."""
        held, self._held = self._held, ""
        if self._style == "llama3":
            return "" if not self._plain and self._is_call(held) else held
        held = self._shown(held)
        # White space next to a call belongs to nobody.
        return held if self._calls else held + self._space

    def _bare(self) -> str:
        begins = self._held.lstrip()
        self._plain = self._plain or (begins != "" and not begins.startswith("{")) or len(self._held) > MAX_CALL_CHARS
        shown, self._held = (self._held, "") if self._plain else ("", self._held)
        return shown

    def _tagged(self) -> str:
        shown = ""
        while (start := self._held.find(_OPEN)) >= 0:
            end = self._held.find(_CLOSE, start)
            # Of several opening tags before a closing one the last counts.
            start = self._held.rfind(_OPEN, start, None if end < 0 else end)
            shown += self._shown(self._held[:start])
            self._held = self._held[start:]
            length = (end - start if end >= 0 else len(self._held) - len(_CLOSE)) - len(_OPEN)
            if length > MAX_CALL_CHARS:
                shown += self._shown(_OPEN)
                self._held = self._held[len(_OPEN) :]
                continue
            if end < 0:
                return shown
            block, self._held = self._held[: end - start + len(_CLOSE)], self._held[end - start + len(_CLOSE) :]
            if self._is_call(block[len(_OPEN) : -len(_CLOSE)]):
                # Of white space on both sides one is kept, between words.
                self._after_call = self._space != "" or not self._started
            else:
                shown += self._shown(block)
        keep = next(size for size in range(len(_OPEN) - 1, -1, -1) if self._held.endswith(_OPEN[:size]))
        cut = len(self._held) - keep
        shown += self._shown(self._held[:cut])
        self._held = self._held[cut:]
        return shown

    def _shown(self, text: str) -> str:
        """`text` after the white space that waits; white space at its end waits in turn."""
        if self._after_call:
            text = text.lstrip()
            self._after_call = not text
        text = self._space + text if text else ""
        shown = text.rstrip()
        if text:
            self._space = text[len(shown) :]
        self._started = self._started or shown != ""
        return shown

    def _is_call(self, text: str) -> bool:
        """Whether `text` is a call, which is then kept."""
        if len(text) > MAX_CALL_CHARS:
            return False
        try:
            call: object = json.loads(text, parse_constant=_refuse)
            if not isinstance(call, dict) or set(call) - {"type"} not in (
                {"name", "arguments"},
                {"name", "parameters"},
            ):
                return False
            name, values = call["name"], call.get("arguments", call.get("parameters"))
            if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(values, dict):
                return False
            if self._names is not None and name not in self._names:
                return False
            arguments = json.dumps(values, ensure_ascii=False, allow_nan=False)
            arguments.encode()  # a lone surrogate is no text
        except (ValueError, RecursionError):
            return False
        digest = hashlib.sha256(f"{self._id_prefix}/{len(self._calls)}".encode()).hexdigest()
        self._calls.append(ToolCall(f"call_{digest[:24]}", name, arguments))
        return True


def tool_names(tools: str) -> tuple[str, ...]:
    """The names in a JSON list of tool definitions, in order; none for an empty text.

    Raises:
        InvalidRequest: the list is malformed.
    """
    return tuple(name for name, _ in _functions(tools)) if tools else ()


def forced_call(tools: str, choice: str, style: ToolStyle) -> tuple[str, str, str]:
    """What an answer must be when a tool has to be called: what it begins with, a JSON schema, what it ends with.

    `tools` is the JSON list of tool definitions, `choice` is `required` or `function:NAME`.

    Raises:
        InvalidRequest: the list is malformed, or the tool is not in it.
    """
    functions = _functions(tools)
    if choice.startswith("function:"):
        wanted = choice.removeprefix("function:")
        functions = [(name, parameters) for name, parameters in functions if name == wanted]
        if not functions:
            raise InvalidRequest(f"no tool is named {wanted!r}", field="tool_choice", remedy="name one of the tools")
    if not functions:
        raise InvalidRequest("there are no tools to call", field="tools", remedy="send tool definitions")
    key = _ARGUMENTS[style]
    definitions: dict[str, object] = {}
    calls: list[object] = []
    for index, (name, parameters) in enumerate(functions):
        # References inside a tool's schema are relative to it.
        definitions[str(index)] = {"type": "object", **_moved(parameters, f"#/$defs/{index}")}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, key: {"$ref": f"#/$defs/{index}"}},
                "required": ["name", key],
                "additionalProperties": False,
            }
        )
    schema = json.dumps({"$defs": definitions, "anyOf": calls}, ensure_ascii=False)
    return (f"{_OPEN}\n", schema, f"\n{_CLOSE}") if style == "hermes" else ("", schema, "")


def _functions(tools: str) -> list[tuple[str, Mapping[str, object]]]:
    listed = carried_json(tools or "[]", "tools")
    if not isinstance(listed, list) or len(listed) > MAX_TOOLS:
        raise InvalidRequest(f"tools is a list of at most {MAX_TOOLS} definitions", field="tools")
    functions: list[tuple[str, Mapping[str, object]]] = []
    for index, tool in enumerate(listed):
        function: object = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict):
            raise InvalidRequest("a tool is {type: 'function', function: {…}}", field=f"tools[{index}]")
        name, parameters = function.get("name"), function.get("parameters", {})
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRequest(
                "a function's name has 1 to 64 letters, digits and _ . -", field=f"tools[{index}].function.name"
            )  # fmt: skip
        if not isinstance(parameters, dict):
            raise InvalidRequest("parameters is a JSON schema", field=f"tools[{index}].function.parameters")
        functions.append((name, parameters))
    if len({name for name, _ in functions}) < len(functions):
        raise InvalidRequest("two tools have the same name", field="tools", remedy="rename one of them")
    return functions


def _moved(schema: Mapping[str, object], root: str, depth: int = 0) -> dict[str, object]:
    """A schema whose references to its own root point to `root` instead.

    Raises:
        InvalidRequest: it is nested too deep.
    """

    def moved(value: object, depth: int) -> object:
        if depth > _MAX_DEPTH:
            raise InvalidRequest(f"a tool's parameters are nested more than {_MAX_DEPTH} deep", field="tools")
        if isinstance(value, dict):
            return _moved(value, root, depth)
        return [moved(inner, depth + 1) for inner in value] if isinstance(value, list) else value

    result: dict[str, object] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            result[key] = root + value[1:]
        elif key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            result[key] = {name: moved(inner, depth + 2) for name, inner in value.items()}
        elif key in ("const", "enum", "default", "examples"):
            result[key] = value
        elif not (depth == 0 and key in ("$id", "$schema")):
            result[key] = moved(value, depth + 1)
    return result


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
