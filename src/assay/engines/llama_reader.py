"""How a GGUF model reads requests: chat template, tokenizer, grammars. Shared by provider and verifier."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Final

from assay.core.completion import Prompt
from assay.core.errors import InvalidRequest
from assay.core.ports import Constraint
from assay.core.request import Message, Request
from assay.engines.carried import carried_objects
from assay.engines.chat_template import encode_chat, render_chat_parts, supports_tools
from assay.engines.continuing import continued, resumed
from assay.engines.grammar import GrammarCompiler, constraint_spec
from assay.engines.llama_model import LlamaModel, LlamaTokenizer
from assay.engines.tool_calls import ToolStyle, tool_style

_NO_TEMPLATE: Final = "this model has no chat template: use /v1/completions, or a model that was tuned for chat"


class LlamaReader:
    """Implements `PromptReader` for a model opened by llama.cpp (its vocabulary is enough)."""

    def __init__(self, model: LlamaModel, *, limit: int | None = None) -> None:
        """`limit`: the most tokens that a prompt may have (None: as many as the model was trained on)."""
        # A model of which only the vocabulary was opened does not say what it was trained on.
        self.context: Final[int] = model.n_ctx_train
        """Positions that the model was trained on, or 0."""
        self._limit: Final = limit or self.context or None
        self.tokenizer: Final[LlamaTokenizer] = model.tokenizer
        self._template: Final = model.chat_template
        self.chat: Final = self._template is not None
        """The model takes chats."""
        self.tools: Final = self._template is not None and supports_tools(self._template)
        """The model's template takes tool definitions."""
        self._style: Final[ToolStyle] = (tool_style(self._template) if self._template else None) or "hermes"

    def render(self, request: Request) -> Prompt:
        """The prompt's bytes and token ids; words from users never become control tokens.

        Raises:
            ContextOverflow: the prompt has more tokens than the limit.
            InvalidRequest: the template refuses the messages or has no place for the tools, or either is malformed; or
                the answer that is to be continued has ended.
            ModelFileError: the template is broken.
        """
        return continued(self._render(request), request, self.tokenizer)

    def constraint(self, request: Request) -> Constraint | None:
        """The grammar of the response format or the forced tool call, where the answer begins or goes on; None where
        anything may come.

        Raises:
            InvalidRequest: the schema uses what the grammar library does not have, or does not allow the tokens that
                are to be continued.
        """
        spec = constraint_spec(request, self._style)
        return None if spec is None else resumed(self._grammars.compile(spec), request)

    def _render(self, request: Request) -> Prompt:
        if request.kind == "completion":
            ids = self.tokenizer.encode(request.prompt, special=False, limit=self._limit)
            bos = self.tokenizer.bos() if self.tokenizer.add_bos else None
            return Prompt(request.prompt.encode(), ids if bos is None else (bos, *ids))
        if self._template is None:
            raise InvalidRequest(_NO_TEMPLATE, field="messages")
        if request.tools and not self.tools:
            raise InvalidRequest("this model's chat template does not take tools", field="tools")
        parts = render_chat_parts(
            self._template,
            [_as_template_sees(message) for message in request.messages],
            tools=carried_objects(request.tools, "tools") if request.tools and request.tool_choice != "none" else None,
            add_generation_prompt=True,
            bos_token=self._spell(self.tokenizer.bos()),
            eos_token=self._spell(self.tokenizer.eos()),
            now_s=request.created,
        )
        text = "".join(part for part, _ in parts)
        return Prompt(
            text.encode(), encode_chat(parts, self._markup, partial(self.tokenizer.encode, limit=self._limit))
        )

    @cached_property
    def _grammars(self) -> GrammarCompiler:
        return GrammarCompiler(self.tokenizer)

    @cached_property
    def _markup(self) -> tuple[str, ...]:
        """The spelling of every control token."""
        tokens = range(self.tokenizer.n_vocab)
        return tuple(self._spell(token) for token in tokens if self.tokenizer.is_control(token))

    def _spell(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.piece(token, special=True).decode("utf-8", "replace")


def _as_template_sees(message: Message) -> Mapping[str, object]:
    seen: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        seen["tool_calls"] = carried_objects(message.tool_calls, "messages")
    if message.tool_call_id:
        seen["tool_call_id"] = message.tool_call_id
    if message.name:
        seen["name"] = message.name
    return seen
