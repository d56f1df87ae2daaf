"""Grammars over tokens: what may come next when an answer must be JSON, follow a JSON schema, or call a tool.

The masks come from llguidance (https://github.com/guidance-ai/llguidance). They depend on the vocabulary's bytes and on
the request only, not on the tokenizer's merges, the machine or earlier answers, so a verifier recomputes them.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from assay.core.errors import EngineError, InvalidRequest
from assay.core.ports import Tokenizer
from assay.core.request import Request
from assay.engines.carried import carried_json
from assay.engines.tool_calls import ToolStyle, forced_call

MAX_SCHEMA_CHARS: Final = 64 * 1024
"""Longest JSON text of a schema."""

Field = Literal["response_format", "tools"]
"""The member of a request that asks for a grammar."""

# Between two tokens of JSON: a few spaces or line ends, never so many that a small model gets lost in them.
_WHITESPACE: Final = r"[ \n\t]{1,40}"
_REMEDY: Final = "use a smaller or simpler schema"
_UNSATISFIABLE: Final = "no JSON text follows the schema, or none that can be found"


def grammar_version() -> str:
    """What a profile says of grammars: the library that masks tokens, and its version."""
    return f"llguidance-{importlib.metadata.version('llguidance')}"


@dataclass(frozen=True, slots=True)
class ConstraintSpec:
    """What an answer must look like: `begin`, then JSON text by the schema, then `end`."""

    schema: str
    """A JSON schema as JSON text; its properties are written in their order there."""
    field: Field
    """The member of the request that errors name."""
    begin: str = ""
    end: str = ""


def constraint_spec(request: Request, style: ToolStyle = "hermes") -> ConstraintSpec | None:
    """What the request asks of the answer's form, or None; `style` is how the model writes tool calls.

    A forced tool call goes before a response format.

    Raises:
        InvalidRequest: the tool that must be called is not there, or the tools are not well-formed.
    """
    if request.tool_choice == "required" or request.tool_choice.startswith("function:"):
        begin, schema, end = forced_call(request.tools, request.tool_choice, style)
        return ConstraintSpec(schema, "tools", begin, end)
    if request.response_format == "json_object":
        return ConstraintSpec('{"type":"object"}', "response_format")
    return ConstraintSpec(request.response_format, "response_format") if request.response_format else None


class GrammarCompiler:
    """Compiles grammars for one vocabulary (0.1 s and 10 MB for 50,000 tokens, once). Safe to share between threads.

    Control tokens never match text, whatever their bytes.

    Raises:
        EngineError: the vocabulary cannot be used.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        n_vocab = tokenizer.n_vocab
        self._eog: Final = np.array([tokenizer.is_eog(token) for token in range(n_vocab)], dtype=np.bool_)
        pieces = [
            b"" if self._eog[token] or tokenizer.is_control(token) else tokenizer.piece(token)
            for token in range(n_vocab)
        ]
        self._text: Final = np.array([bool(piece) for piece in pieces], dtype=np.bool_)
        ends = np.flatnonzero(self._eog)
        if not len(ends):
            raise EngineError("the vocabulary has no token that ends an answer", "use another model for JSON answers")
        try:
            self._vocabulary: Final = LLTokenizer(
                TokenizerWrapper(_Vocabulary(pieces, int(ends[0]))), slices=LLTokenizer.json_slices()
            )  # fmt: skip
        except ValueError as error:
            raise EngineError(f"the vocabulary cannot be used for grammars ({error})") from error
        self._limits: Final = LLParserLimits(
            initial_lexer_fuel=500_000,
            step_lexer_fuel=100_000,
            step_max_items=20_000,
            max_lexer_states=20_000,
            max_grammar_size=50_000,
            verbose_errors=False,
        )

    def compile(self, spec: ConstraintSpec) -> GrammarConstraint:
        """A grammar at its start. Takes milliseconds; at most about a second for a schema made to be slow.

        Raises:
            InvalidRequest: the schema is not one, uses what the library does not have, cannot be fulfilled, or is too
                large or too complex.
        """
        matcher = LLMatcher(self._vocabulary, _grammar(spec), log_level=0, limits=self._limits)
        if matcher.is_error():
            raise InvalidRequest(
                f"the JSON schema cannot be used: {_reason(matcher)}", field=spec.field, remedy=_REMEDY
            )  # fmt: skip
        constraint = GrammarConstraint(matcher, self._text, self._eog, spec.field)
        constraint.allowed()
        return constraint


class GrammarConstraint:
    """A grammar's state along one answer; made by `GrammarCompiler.compile`."""

    def __init__(
        self, matcher: LLMatcher, text: npt.NDArray[np.bool_], eog: npt.NDArray[np.bool_], field: Field
    ) -> None:  # fmt: skip
        self._matcher = matcher
        self._text = text
        self._eog = eog
        self._field = field
        self._bits = np.zeros((len(text) + 31) // 32, dtype=np.uint32)
        self._mask: npt.NDArray[np.bool_] | None = None
        self.finished = False
        """The text is complete: only end-of-generation tokens may follow."""

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next: bool [n_vocab], never all False, read-only.

        End-of-generation tokens are allowed where the text so far is complete, other control tokens nowhere.

        Raises:
            InvalidRequest: the schema turned out too complex at this place, or leads to where nothing can follow.
        """
        if self._mask is None:
            self._mask = self._eog if self.finished else self._computed()
            self._mask.flags.writeable = False
        return self._mask

    def accept(self, token: int) -> None:
        """Go on to after `token`; any end-of-generation token finishes.

        Raises:
            EngineError: the token is not allowed here.
            InvalidRequest: the schema turned out too complex at this place.
        """
        if not 0 <= token < len(self._text) or not self.allowed()[token]:
            raise EngineError(f"token {token} does not follow the grammar")
        self._mask = None
        if self._eog[token]:
            self.finished = True
            return
        if not self._matcher.consume_token(token):
            raise self._too_complex()
        self.finished = self._matcher.is_stopped()

    def _computed(self) -> npt.NDArray[np.bool_]:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise self._too_complex()
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=len(self._text))
        mask = np.logical_and(bits, self._text)
        if self._matcher.is_accepting():
            mask |= self._eog
        if not mask.any():
            raise InvalidRequest(_UNSATISFIABLE, field=self._field, remedy=_REMEDY)
        return mask

    def _too_complex(self) -> InvalidRequest:
        reason = _reason(self._matcher)
        message = _UNSATISFIABLE if reason.startswith("NoExtension") else f"the JSON schema is too complex: {reason}"
        return InvalidRequest(message, field=self._field, remedy=_REMEDY)


class _Vocabulary:
    """A vocabulary as `TokenizerWrapper` reads it."""

    bos_token_id: int | None = None

    def __init__(self, tokens: list[bytes], eos_token_id: int) -> None:
        self.tokens = tokens
        self.eos_token_id = eos_token_id
        self.special_token_ids: list[int] = []

    def __call__(self, text: bytes | str) -> list[int]:  # noqa: ARG002 - as the library calls it
        # Asked for only where a grammar lets the library choose the tokens of a text, which `no_forcing` rules out.
        raise EngineError("the grammar library tokenized a text by itself", "report this with the request's schema")


def _grammar(spec: ConstraintSpec) -> str:
    """The grammar in llguidance's variant of Lark.

    Raises:
        InvalidRequest: the schema is too long, or not JSON.
    """
    if len(spec.schema) > MAX_SCHEMA_CHARS:
        raise InvalidRequest(
            f"the JSON schema has more than {MAX_SCHEMA_CHARS} characters", field=spec.field, remedy=_REMEDY
        )  # fmt: skip
    schema = carried_json(spec.schema, spec.field)
    try:
        # The library's own options inside a schema would change whitespace and strictness.
        if isinstance(schema, dict):
            schema = {**schema, "x-guidance": {"whitespace_pattern": _WHITESPACE}}
        body = json.dumps(schema)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the JSON schema is not JSON ({error})", field=spec.field) from error
    parts = (json.dumps(spec.begin) if spec.begin else "", "body", json.dumps(spec.end) if spec.end else "")
    # Without `no_forcing` the library would allow one spelling in tokens only, which takes the model's tokenizer.
    return f'%llguidance {{"no_forcing": true}}\nstart: {" ".join(filter(None, parts))}\nbody: %json {body}\n'


def _reason(matcher: LLMatcher) -> str:
    """The library's first line, without its position in our grammar and its own text of it."""
    text = matcher.get_error().split("\n", 1)[0]
    return text.split("failed to compile JSON schema: ")[-1][:300]
