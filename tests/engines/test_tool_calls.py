"""Tool calls: found in text however it is split, malformed ones left alone, and forced ones given a schema."""

from __future__ import annotations

import json
from itertools import pairwise

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.chat_templates import CHATML, LLAMA3, QWEN

from assay.core.errors import InvalidRequest
from assay.engines.tool_calls import (
    MAX_CALL_CHARS,
    MAX_TOOLS,
    ToolCallStream,
    ToolStyle,
    forced_call,
    parse_tool_calls,
    tool_names,
    tool_style,
)

NAMES = ("weather", "add")
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
BARE = '{"name": "add", "parameters": {"a": 1}}'
STYLES: tuple[ToolStyle, ...] = ("hermes", "llama3")
fragments = st.sampled_from(
    ["<tool_call>", "</tool_call>", CALL, BARE, " ", "\n", "x", "<", "tool_", "<tool", '{"name": "add"', "}", "é", "{}"]
)


def parsed(text: str, style: ToolStyle = "hermes") -> tuple[str, list[tuple[str, object]]]:
    """Content and calls of a whole answer."""
    content, calls = parse_tool_calls(text, style, names=NAMES, id_prefix="chatcmpl-1")
    return content, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize("style", STYLES)
@given(pieces=st.lists(fragments, max_size=12), cuts=st.lists(st.integers(0, 200), max_size=12))
def test_any_split_gives_the_same(style: ToolStyle, pieces: list[str], cuts: list[int]) -> None:
    """However an answer is split, the stream shows the content and finds the calls of the whole text."""
    text = "".join(pieces)
    stream = ToolCallStream(style, names=NAMES, id_prefix="chatcmpl-1")
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    content = "".join(stream.push(text[start:stop]) for start, stop in pairwise(borders))
    content += stream.finish()
    assert (content, stream.calls) == parse_tool_calls(text, style, names=NAMES, id_prefix="chatcmpl-1")


@given(st.lists(fragments, max_size=12))
def test_text_without_calls_is_untouched(pieces: list[str]) -> None:
    """Where no call is found every character stays, tags and white space included."""
    text = "".join(pieces)
    for style in STYLES:
        content, calls = parsed(text, style)
        assert calls or content == text


def test_calls_are_taken_out_of_the_text() -> None:
    """Calls leave with the white space next to them, of which one side stays between words."""
    call = ("weather", {"city": "Zürich"})
    assert parsed(f"Let me see.\n\n{CALL}") == ("Let me see.", [call])
    assert parsed(f"{CALL}\n{CALL}") == ("", [call, call])
    assert parsed(f"\nbefore {CALL}\n after\n") == ("\nbefore after", [call])
    assert parsed(f"before{CALL} after") == ("before after", [call])
    assert parse_tool_calls(CALL.replace("weather", "other"), "hermes", id_prefix="x")[1][0].name == "other"
    assert parsed(BARE, "llama3") == ("", [("add", {"a": 1})])
    assert parsed('\n{"type": "function", "name": "add", "parameters": {}}\n', "llama3") == ("", [("add", {})])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        '"add"',
        '{"name": "add"}',
        '{"name": "add", "arguments": "{}"}',
        '{"name": "add", "arguments": []}',
        '{"name": 1, "arguments": {}}',
        '{"name": "unknown", "arguments": {}}',
        '{"name": "add", "arguments": {}, "more": 1}',
        '{"name": "add", "arguments": {"x": NaN}}',
        '{"name": "add", "arguments": {"x": 1e999}}',
        '{"name": "add", "arguments": {"x": "\\ud800"}}',
        '{"name": "add", "arguments": {"x": ' + "[" * 100_000 + "}}",
        '{"name": "add", "arguments": {"x": ' + "9" * 5_000 + "}}",
        '{"name": "add", "arguments": {"x": "' + "y" * MAX_CALL_CHARS + '"}}',
    ],
)
def test_malformed_calls_stay_in_the_text(body: str) -> None:
    """What is not exactly a call of a known tool is text, in both styles, and never an error."""
    for text, style in (
        (f"<tool_call>{body}</tool_call>", STYLES[0]),
        (body.replace("arguments", "parameters"), STYLES[1]),
    ):
        assert parsed(text, style) == (text, [])


def test_unclosed_and_reopened_calls() -> None:
    """A call that is not closed is text; of two opening tags before a closing one the last counts."""
    assert parsed("a <tool_call>\n" + BARE) == ("a <tool_call>\n" + BARE, [])
    assert parsed(f"<tool_call> oops {CALL}") == ("<tool_call> oops", [("weather", {"city": "Zürich"})])


def test_words_are_shown_at_once() -> None:
    """Only what may belong to a call waits: white space, the beginning of a tag, and what is inside."""
    stream = ToolCallStream("hermes", names=NAMES, id_prefix="x")
    assert [stream.push(text) for text in ("Hi ", "there", " <to", "ast>", "\n", "<tool_call>", "{")] == [
        "Hi", " there", "", " <toast>", "", "", "",
    ]  # fmt: skip
    bare = ToolCallStream("llama3", names=NAMES, id_prefix="x")
    assert [bare.push(text) for text in ("\n", "Hi", " {")] == ["", "\nHi", " {"]


def test_a_flood_is_read_in_linear_time() -> None:
    """Half a megabyte inside a tag that never closes is shown as text, token by token, without rescanning it all."""
    stream = ToolCallStream("hermes", names=NAMES, id_prefix="x")
    text = "<tool_call>" + "{ab}" * 120_000
    shown = "".join(stream.push(text[at : at + 4]) for at in range(0, len(text), 4))
    assert len(text) - len(shown) <= MAX_CALL_CHARS + 100
    assert shown + stream.finish() == text


def test_ids_are_unique_and_reproducible() -> None:
    """The id depends on the answer and on the call's position only."""
    first = parse_tool_calls(CALL + CALL, "hermes", names=NAMES, id_prefix="a")[1]
    again = parse_tool_calls(CALL + CALL, "hermes", names=NAMES, id_prefix="a")[1]
    other = parse_tool_calls(CALL + CALL, "hermes", names=NAMES, id_prefix="b")[1]
    assert first == again
    assert len({call.id for call in first + other}) == 4


def test_styles_are_read_from_templates() -> None:
    """The template shows how its model writes calls."""
    assert [tool_style(template) for template in (QWEN, LLAMA3, CHATML)] == ["hermes", "llama3", None]


def tool(name: object = "add", parameters: object = None, **more: object) -> dict[str, object]:
    """A tool definition."""
    function = {"name": name, **({} if parameters is None else {"parameters": parameters})}
    return {"type": "function", "function": function, **more}


TREE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "properties": {"left": {"$ref": "#"}, "leaf": {"$ref": "#/$defs/leaf"}, "$ref": {"const": {"$ref": "#"}}},
    "$defs": {"leaf": {"type": "integer"}, "enum": {"$ref": "#/$defs/leaf"}},
    "additionalProperties": False,
}


@pytest.mark.parametrize("style", STYLES)
def test_forced_calls_have_a_schema(style: ToolStyle) -> None:
    """The schema of a forced call takes the right calls only, references inside the tools' schemas included."""
    tools = json.dumps([tool("add", {"properties": {"a": {"type": "integer"}}, "required": ["a"]}), tool("tree", TREE)])
    key = "arguments" if style == "hermes" else "parameters"
    begin, schema, end = forced_call(tools, "required", style)
    check = jsonschema.Draft202012Validator(json.loads(schema))
    good = {"left": {"leaf": 1}, "leaf": 2, "$ref": {"$ref": "#"}}
    assert check.is_valid({"name": "add", key: {"a": 1}})
    assert check.is_valid({"name": "tree", key: good})
    for bad in ({"leaf": "x"}, {"left": {"leaf": "x"}}, {"$ref": {"$ref": "#/$defs/1"}}, {"other": 1}, 1):
        assert not check.is_valid({"name": "tree", key: bad})
    assert not check.is_valid({"name": "add", key: {"leaf": 1}})
    assert not check.is_valid({"name": "none", key: {}})
    only = jsonschema.Draft202012Validator(json.loads(forced_call(tools, "function:tree", style)[1]))
    assert only.is_valid({"name": "tree", key: good})
    assert not only.is_valid({"name": "add", key: {"a": 1}})
    text = begin + json.dumps({"name": "tree", key: good}) + end
    assert parse_tool_calls(text, style, names=tool_names(tools), id_prefix="x")[1][0].name == "tree"


@pytest.mark.parametrize(
    ("tools", "choice", "field"),
    [
        ("", "required", "tools"),
        ("[]", "required", "tools"),
        ("{", "required", "tools"),
        ("[" * 100_000, "required", "tools"),
        ("{}", "required", "tools"),
        (json.dumps([tool(f"t{i}") for i in range(MAX_TOOLS + 1)]), "required", "tools"),
        (json.dumps([tool(), tool()]), "required", "tools"),
        (json.dumps([tool(), {"type": "other"}]), "required", "tools[1]"),
        ("[1]", "required", "tools[0]"),
        (json.dumps([tool("a b")]), "required", "tools[0].function.name"),
        (json.dumps([tool(5)]), "required", "tools[0].function.name"),
        (json.dumps([tool("add", [])]), "required", "tools[0].function.parameters"),
        (json.dumps([tool("add", json.loads('{"not":' * 200 + "{}" + "}" * 200))]), "required", "tools"),
        (json.dumps([tool()]), "function:sub", "tool_choice"),
    ],
    ids=str,
)
def test_malformed_tools_are_refused(tools: str, choice: str, field: str) -> None:
    """Definitions that are not tools are the request's fault, and the field is named."""
    with pytest.raises(InvalidRequest) as caught:
        forced_call(tools, choice, "hermes")
    assert caught.value.field == field
