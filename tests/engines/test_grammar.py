"""Grammars: every walk through the masks is JSON of the schema, every JSON text of the schema is a walk, and hostile
schemas are refused in bounded time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import EngineError, InvalidRequest
from assay.core.request import Request, SamplerSettings
from assay.engines.grammar import MAX_SCHEMA_CHARS, ConstraintSpec, GrammarCompiler, GrammarConstraint, constraint_spec
from assay.engines.llama_model import LlamaModel

WORDS = (
    '{"',
    '":',
    '",',
    '"}',
    " ",
    "  ",
    "\n",
    "true",
    "null",
    "name",
    "answer",
    "12",
    "é",
    "<tool_call>",
    "[]",
    "x" * 40,
)
"""Tokens after the 256 bytes."""
EOG, SECOND_EOG, CONTROL, EMPTY = range(256 + len(WORDS), 260 + len(WORDS))


@dataclass(frozen=True)
class Vocabulary:
    """A real, small vocabulary: bytes, some words, two ends of generation, a control token that looks like JSON."""

    n_vocab: int = 260 + len(WORDS)
    pieces: tuple[bytes, ...] = field(
        default=(*(bytes([b]) for b in range(256)), *(word.encode() for word in WORDS), b"", b"}", b'{"', b"")
    )

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        return tuple(text.encode())

    def piece(self, token: int) -> bytes:
        return self.pieces[token]

    def is_eog(self, token: int) -> bool:
        return token in (EOG, SECOND_EOG)

    def is_control(self, token: int) -> bool:
        return token in (EOG, CONTROL)


VOCABULARY = Vocabulary()
COMPILER = GrammarCompiler(VOCABULARY)
OBJECT = ConstraintSpec('{"type":"object"}', "response_format")


def spec(schema: object) -> ConstraintSpec:
    """A constraint by a schema."""
    return ConstraintSpec(json.dumps(schema), "response_format")


def feed(constraint: GrammarConstraint, text: str) -> bool:
    """Whether `text` can be written, byte by byte, in the constraint."""
    for byte in text.encode():
        if not constraint.allowed()[byte]:
            return False
        constraint.accept(byte)
    return True


def walk(constraint: GrammarConstraint, chooser: random.Random, steps: int = 400) -> str | None:
    """A text of random allowed tokens that ends, preferring what closes; None if it does not end in time."""
    text = b""
    for _ in range(steps):
        allowed = np.flatnonzero(constraint.allowed())
        ends = [token for token in allowed if VOCABULARY.is_eog(int(token))]
        closing = [token for token in allowed if VOCABULARY.pieces[token] in (b'"', b"}", b"]", b'"}', b"0")]
        token = int(chooser.choice(ends or (closing if closing and chooser.random() < 0.7 else list(allowed))))
        constraint.accept(token)
        if VOCABULARY.is_eog(token):
            assert constraint.finished
            return text.decode()
        text += VOCABULARY.pieces[token]
    return None


SCHEMAS: dict[str, object] = {
    "object": {"type": "object"},
    "required": {
        "type": "object",
        "properties": {
            "answer": {"type": "string", "maxLength": 5},
            "n": {"type": "integer", "minimum": -3, "maximum": 12},
        },
        "required": ["answer", "n"],
        "additionalProperties": False,
    },
    "list": {
        "type": "array",
        "items": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        "minItems": 1,
        "maxItems": 4,
    },
    "enum": {"enum": ["a", "ab", 1, None, {"x": [1]}]},
    "pattern": {"type": "string", "pattern": "^[a-c]{2}-[0-9]+$"},
    "tree": {
        "$defs": {
            "node": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
        },
        "$ref": "#/$defs/node",
    },
    "date": {"type": "string", "format": "date"},
    "anything": True,
}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@given(seed=st.integers(0, 2**32))
def test_every_walk_is_json_of_the_schema(name: str, seed: int) -> None:
    """Whatever is drawn from the masks parses and validates, and no control token is ever offered inside."""
    text = walk(COMPILER.compile(spec(SCHEMAS[name])), random.Random(seed))
    if text is not None:
        jsonschema.Draft202012Validator(SCHEMAS[name]).validate(json.loads(text))


# JSON leaves U+007F as it is; the library wants it escaped.
words = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e6, 1e6).map(lambda x: round(x, 3)) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(words, json_values, max_size=3), st.sampled_from([None, 1, 2]))
def test_every_object_can_be_written(value: dict[str, object], indent: int | None) -> None:
    """A JSON object is accepted compact or indented, and after it only the ends of generation follow."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    constraint = COMPILER.compile(OBJECT)
    assert feed(constraint, text)
    assert constraint.finished
    assert np.flatnonzero(constraint.allowed()).tolist() == [EOG, SECOND_EOG]
    constraint.accept(SECOND_EOG)
    assert np.flatnonzero(constraint.allowed()).tolist() == [EOG, SECOND_EOG]


def test_masks_hold_whole_tokens() -> None:
    """At the start of an object: the tokens that begin it, and no control token that spells the same."""
    allowed = np.flatnonzero(COMPILER.compile(OBJECT).allowed())
    assert [VOCABULARY.pieces[token] for token in allowed] == [b"{", b'{"']
    assert CONTROL not in allowed


def test_control_tokens_never_come_inside_text() -> None:
    """In a string every text token may come, and neither ends nor control tokens nor empty ones."""
    constraint = COMPILER.compile(OBJECT)
    assert feed(constraint, '{"a": "b')
    allowed = constraint.allowed()
    assert not allowed[[EOG, SECOND_EOG, CONTROL, EMPTY]].any()
    assert allowed[256 + WORDS.index("<tool_call>")]


def test_an_end_may_come_where_more_could_follow() -> None:
    """A number is complete and could go on: both are allowed."""
    constraint = COMPILER.compile(spec({"type": "integer"}))
    assert feed(constraint, "1")
    assert not constraint.finished
    assert constraint.allowed()[[EOG, SECOND_EOG, ord("2")]].all()
    constraint.accept(EOG)
    assert constraint.finished


def test_properties_come_in_the_schemas_order() -> None:
    """A schema decides in which order a model thinks: the order of its properties."""
    schema = (
        '{"type":"object","properties":{"why":{"type":"null"},"answer":{"type":"null"}},"required":["why","answer"]}'
    )
    assert feed(COMPILER.compile(ConstraintSpec(schema, "response_format")), '{"why": null, "answer": null}')
    assert not feed(COMPILER.compile(ConstraintSpec(schema, "response_format")), '{"answer')


def test_tokens_outside_the_grammar_are_refused() -> None:
    """Accepting what the mask does not hold is an error, and leaves the constraint as it was."""
    constraint = COMPILER.compile(OBJECT)
    for token in (ord("x"), EOG, CONTROL, -1, 10**9):
        with pytest.raises(EngineError):
            constraint.accept(token)
    assert feed(constraint, "{}")
    with pytest.raises(EngineError):
        constraint.accept(ord(" "))


def test_schemas_do_not_change_the_rules() -> None:
    """The library's own options inside a schema have no effect."""
    options = {"whitespace_flexible": False, "item_separator": ";", "lenient": True}
    assert feed(COMPILER.compile(spec({"type": "object", "x-guidance": options})), '{"a": 1, "b": 2}')
    with pytest.raises(InvalidRequest):
        COMPILER.compile(spec({"not": {}, "x-guidance": options}))


def test_white_space_is_bounded() -> None:
    """A model cannot get lost in spaces: forty may come between two signs, the next not."""
    constraint = COMPILER.compile(OBJECT)
    assert feed(constraint, "{" + " " * 40)
    assert not constraint.allowed()[[ord(" "), ord("\n"), ord("\t")]].any()


@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(SCHEMAS)))
def test_masks_are_recomputed(seed: int, name: str) -> None:
    """Another compiler of the same vocabulary gives the same masks along any answer."""
    first, second = COMPILER.compile(spec(SCHEMAS[name])), OTHER.compile(spec(SCHEMAS[name]))
    chooser = random.Random(seed)
    for _ in range(60):
        mask = first.allowed()
        assert np.array_equal(mask, second.allowed())
        token = int(chooser.choice(np.flatnonzero(mask)))
        first.accept(token)
        second.accept(token)
        if first.finished:
            break
    assert first.finished == second.finished


OTHER = GrammarCompiler(Vocabulary())

DIGEST = """
import hashlib, sys
from tests.engines.test_grammar import COMPILER, SCHEMAS, spec, feed
total = hashlib.sha256()
for schema in SCHEMAS.values():
    constraint = COMPILER.compile(spec(schema))
    for byte in b'{"answer": "x", "n": 1}':
        total.update(constraint.allowed().tobytes())
        if not constraint.allowed()[byte]:
            break
        constraint.accept(byte)
print(total.hexdigest())
"""


def test_masks_are_the_same_in_every_process() -> None:
    """Hash seeds and addresses leave no trace: two processes print one digest of many masks."""
    root = Path(__file__).parents[2]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], cwd=root, check=True, capture_output=True, text=True,
            env={"PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1
    assert len(outputs.pop()) == 65


def nested(depth: int) -> object:
    """A schema of objects in objects."""
    schema: object = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def doubling(word: str, levels: int) -> object:
    """A schema whose references double at every level."""
    defs: dict[str, object] = {
        f"d{i}": {word: [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(levels)
    }
    return {"$defs": {**defs, f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


REFUSED: dict[str, object] = {
    "number": 5,
    "text": "x",
    "list": [1],
    "false": False,
    "unknown type": {"type": "banana"},
    "odd type": {"type": 5},
    "to itself": {"$ref": "#"},
    "to each other": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "all of itself": {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}}, "$ref": "#/$defs/a"},
    "to nowhere": {"$ref": "#/$defs/nothing"},
    "remote": {"$ref": "http://127.0.0.1:9/x.json"},
    "file": {"$ref": "file:///etc/passwd"},
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"minLength": 3}},
    "unevaluated": {"type": "object", "unevaluatedProperties": False},
    "overlapping one of": {"oneOf": [{"type": "object", "properties": {k: {"type": "string"}}} for k in "ab"]},
    "empty enum": {"enum": []},
    "empty range": {"type": "string", "minLength": 5, "maxLength": 2},
    "unknown format": {"type": "string", "format": "nonsense"},
    "look-around": {"type": "string", "pattern": "(?=x)y"},
    "broken pattern": {"type": "string", "pattern": "("},
    "huge count": {"type": "array", "maxItems": 2**70},
    "many options": {
        "allOf": [
            {"anyOf": [{"type": "object", "properties": {f"p{i}_{j}": {"type": "string"}}} for j in range(6)]}
            for i in range(8)
        ]
    },
    "and of patterns": {"allOf": [{"type": "string", "pattern": f".*{c}.{{12}}"} for c in "abcdef"]},
    "large factor": {"type": "integer", "multipleOf": 7919 * 104729},
    "too deep": nested(200),
    "too long": {"enum": ["x" * MAX_SCHEMA_CHARS]},
}
BOUNDED: dict[str, object] = {
    "doubling any": doubling("anyOf", 24),
    "doubling all": doubling("allOf", 24),
    "never ends": {
        "$defs": {"a": {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]}},
        "$ref": "#/$defs/a",
    },
    "deep": nested(48),
    "many values": {"enum": [f"value {i}" for i in range(4000)]},
    "long value": {"enum": ["x" * 60_000]},
    "many properties": {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(1500)}},
    "nested repeats": {"type": "string", "pattern": "^(((abc ){1000}){1000}){1000}$"},
    "ambiguous repeats": {"type": "string", "pattern": "^(((a{1,100}){1,100}){1,100}){1,100}$"},
    "backtracking": {"type": "string", "pattern": "^(a|aa)*(a|a?)+b{1000}$"},
    "late decision": {"type": "string", "pattern": "^.*a.{20}$"},
    "letters": {"type": "string", "pattern": "\\p{L}{500}.*\\p{L}{500}"},
    "long text": {"type": "string", "minLength": 10**6, "maxLength": 10**9},
    "long list": {"type": "array", "minItems": 10**6},
    "other options": {"type": "object", "x-guidance": {"lenient": True, "item_separator": "("}},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_unusable_schemas_are_refused(name: str) -> None:
    """What is no schema, cannot be fulfilled, or needs what is not supported is a 400 that names the field."""
    start = time.thread_time()
    with pytest.raises(InvalidRequest) as caught:
        COMPILER.compile(spec(REFUSED[name]))
    assert caught.value.field == "response_format"
    assert 10 < len(caught.value.message) < 400
    assert time.thread_time() - start < 10


@pytest.mark.parametrize("name", sorted(BOUNDED))
def test_hostile_schemas_are_bounded(name: str) -> None:
    """Schemas made to explode either work or are refused, in bounded time, at the start or on the way."""
    start = time.thread_time()
    chooser = random.Random(name)
    try:
        for _ in range(3):
            walk(COMPILER.compile(spec(BOUNDED[name])), chooser, steps=100)
    except InvalidRequest as refusal:
        assert refusal.field == "response_format"  # noqa: PT017 - a refusal is one of two good outcomes
    assert time.thread_time() - start < 20


KEYWORDS = (
    "type", "$ref", "properties", "items", "required", "anyOf", "allOf", "oneOf", "enum", "const", "pattern", "format",
    "minimum", "maxLength", "minItems", "additionalProperties", "$defs", "a", "x-guidance",
)  # fmt: skip
random_schemas = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "object", "#", "^a*$", "date", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=12,
)


@given(random_schemas)
def test_random_schemas_never_crash(schema: object) -> None:
    """Any JSON as a schema either gives a grammar or is refused."""
    try:
        constraint = COMPILER.compile(spec(schema))
    except InvalidRequest:
        return
    assert constraint.allowed().any()


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 100_000, '{"a":1}}', "\x00"])
def test_schemas_that_are_not_json_are_refused(text: str) -> None:
    """The text of a schema must be JSON."""
    with pytest.raises(InvalidRequest):
        COMPILER.compile(ConstraintSpec(text, "response_format"))


def request(**members: str) -> Request:
    """A chat request with some members."""
    given: dict[str, str] = {"tools": "", "tool_choice": "auto", "response_format": "", **members}
    return Request(
        model="m", kind="chat", messages=(), prompt="", sampler=SamplerSettings(), max_tokens=0, stop=(),
        level="signed", nonce=bytes(32), created=0, **given,
    )  # fmt: skip


PARAMETERS = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = json.dumps([{"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}])


def specs() -> Iterator[tuple[ConstraintSpec, str, str]]:
    """Constraints of requests, a text each takes, and one it does not."""
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    bare = '{"name": "add", "parameters": {"a": 1}}'
    forced = constraint_spec(request(tools=TOOLS, tool_choice="required", response_format="json_object"))
    named = constraint_spec(request(tools=TOOLS, tool_choice="function:add"), "llama3")
    schema = constraint_spec(request(tools=TOOLS, response_format='{"type":"integer"}'))
    free = constraint_spec(request(response_format="json_object"))
    for made, good, bad in ((forced, call, bare), (named, bare, call), (schema, "7", "{"), (free, "{}", "[")):
        assert made is not None
        yield made, good, bad


@pytest.mark.parametrize(("made", "good", "bad"), list(specs()))
def test_requests_say_what_is_constrained(made: ConstraintSpec, good: str, bad: str) -> None:
    """Forced tool calls, then response formats; each takes its own texts only."""
    assert feed(COMPILER.compile(made), good)
    assert not feed(COMPILER.compile(made), bad)


def test_free_answers_have_no_constraint() -> None:
    """Without a format or a forced call anything may come; a forced call of nothing is refused."""
    assert constraint_spec(request()) is None
    assert constraint_spec(request(tools=TOOLS)) is None
    assert constraint_spec(request(tools=TOOLS, tool_choice="none")) is None
    with pytest.raises(InvalidRequest):
        constraint_spec(request(tool_choice="required"))


def test_a_vocabulary_without_an_end_is_refused() -> None:
    """A grammar has to be able to end."""

    class Endless(Vocabulary):
        def is_eog(self, token: int) -> bool:
            return False

    with pytest.raises(EngineError, match="no token that ends"):
        GrammarCompiler(Endless())


@pytest.mark.model
def test_the_real_vocabulary_writes_json(model_path: Path) -> None:
    """With the real tokens a document's own tokenization goes through, and no control token is offered on the way."""
    with LlamaModel(model_path, vocab_only=True) as model:
        tokenizer = model.tokenizer
        control = np.array([tokenizer.is_control(t) and not tokenizer.is_eog(t) for t in range(tokenizer.n_vocab)])
        ends = sorted(tokenizer.eog())
        compiler = GrammarCompiler(tokenizer)
        constraint = compiler.compile(spec(SCHEMAS["required"]))
        for token in tokenizer.encode('{"answer": "né 😀", "n": 12}', special=False):
            assert not (constraint.allowed() & control).any()
            constraint.accept(token)
        assert constraint.finished
        assert np.flatnonzero(constraint.allowed()).tolist() == ends
