"""An engine that has its tokens made by a foreign OpenAI-compatible server: llama-server, vLLM, Ollama, …

The model's GGUF file (its vocabulary is enough) renders prompts and names tokens; the server computes. The prompt goes
to `/v1/completions` as token ids where the server takes them, so that no template of its own comes between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from assay.core.completion import Prompt, Step
from assay.core.errors import Busy, InvalidRequest
from assay.core.hashing import Digest
from assay.core.ports import Constraint, PromptReader, Tokenizer
from assay.core.profile import Profile
from assay.core.request import Level, Request
from assay.engines.llama_regime import TEMPLATE_VERSION
from assay.engines.proxy_answer import Foreign, ProxyAnswer
from assay.engines.proxy_events import Names
from assay.engines.proxy_traits import SLACK, Traits, probe
from assay.engines.proxy_upstream import Patience, Upstream


class ProxyReader:
    """Implements `PromptReader`: the model's own, which also refuses what the server cannot do."""

    def __init__(self, inner: PromptReader, traits: Traits) -> None:
        self._inner: Final = inner
        self._traits: Final = traits

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's vocabulary."""
        return self._inner.tokenizer

    @property
    def context(self) -> int:
        """Positions that the model was trained on."""
        return self._inner.context

    def render(self, request: Request) -> Prompt:
        """The prompt as the model sees it.

        Raises:
            InvalidRequest: the model's template refuses, or the server cannot take the prompt or the settings, or the
                request continues an answer: most servers take text only, whose tokens may be others.
        """
        if request.continues:
            raise InvalidRequest(
                "the server behind this provider does not go on with answers of others",
                field="continues",
                remedy="ask a provider with Assay's own engine",
            )
        sampler = request.sampler
        for name, unset in (("top_p", 1_000_000), ("top_k", 0), ("min_p", 0)):
            if getattr(sampler, name) != unset and name not in self._traits.filters:
                raise InvalidRequest(
                    f"the server behind this provider does not follow {name}",
                    field=name,
                    remedy="leave it out, or ask another provider",
                )
        prompt = self._inner.render(request)
        self._traits.prompt_of(prompt, self.tokenizer)
        return prompt

    def constraint(self, request: Request) -> Constraint | None:
        """None.

        Raises:
            InvalidRequest: the request asks for a grammar. The server's own may allow other texts than Assay's.
        """
        forced = request.tool_choice == "required" or request.tool_choice.startswith("function:")
        if forced or request.response_format:
            raise InvalidRequest(
                "the server behind this provider has other grammars than Assay",
                field="tool_choice" if forced else "response_format",
                remedy="ask in words, or ask a provider with Assay's own engine",
            )
        return None


class ProxyEngine:
    """Implements `Engine` over a foreign server that was probed (see `connect`)."""

    def __init__(
        self,
        upstream: Upstream,
        traits: Traits,
        reader: PromptReader,
        names: Names,
        *,
        name: str,
        digest: Digest,
        end: int,
        parallel: int,
        context: int,
        checkable: bool = True,
    ) -> None:
        """`digest`: SHA-256 of the model file that the server serves, and whose vocabulary `reader` has.

        `end`: the token that ends an answer. `parallel`, `context`: at most; the server may allow less. `checkable`:
        verifiers can make statistical checks of this model file.
        """
        self.traits: Final = traits
        self.model: Final = name
        self.model_digest: Final = digest
        self.levels: Final[tuple[Level, ...]] = traits.levels if checkable else ("signed",)
        self.reader: Final[PromptReader] = ProxyReader(reader, traits)
        self.profile: Final = Profile(
            engine=f"openai:{traits.kind}",
            build=traits.build,
            regime="free",
            isa="unknown",
            kv_type="unknown",
            flash_attention=False,
            micro_batch=0,
            threads=0,
            context=min(context, traits.context - SLACK) if traits.context else context,
            sampler="foreign",
            template=TEMPLATE_VERSION,
            grammar="none",
        )
        self._server: Final = Foreign(upstream, traits, names, reader.tokenizer, end, self.profile.context)
        self.parallel: Final = min(parallel, traits.places or parallel)
        """Answers at the same time."""
        self._active = 0

    @property
    def active(self) -> int:
        """Answers under way."""
        return self._active

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncGenerator[Step, None]:
        """See `Engine.generate`.

        Raises:
            InvalidRequest: a grammar is asked for, or more log-probabilities than the server gives.
            ProviderFailed: the server broke off, or does not say what a receipt must cover.
        """
        if self._active >= self.parallel:
            raise Busy(f"all {self.parallel} places of the server behind this provider are taken")
        self.reader.constraint(request)
        answer = ProxyAnswer(self._server, request, prompt, top_logprobs)
        self._active += 1
        try:
            async with aclosing(answer.steps()) as steps:
                async for step in steps:
                    yield step
        finally:
            self._active -= 1


async def connect(
    url: str,
    reader: PromptReader,
    *,
    name: str,
    digest: Digest,
    end: int,
    served: str = "",
    api_key: str = "",
    parallel: int = 4,
    context: int = 2048,
    checkable: bool = True,
    patience: Patience | None = None,
) -> ProxyEngine:
    """Probe the server at `url` (some short completions) and make an engine of it.

    `served`: the server's name for the model, needed if it has several. Other arguments as for `ProxyEngine`.

    Raises:
        ProviderFailed: the server cannot be reached or is no OpenAI server.
        EngineError: it cannot be used for this model.
    """
    upstream = Upstream(url, api_key=api_key, patience=patience)
    names = Names(reader.tokenizer)
    traits = await probe(upstream, reader, names, model=served)
    return ProxyEngine(
        upstream,
        traits,
        reader,
        names,
        name=name,
        digest=digest,
        end=end,
        parallel=parallel,
        context=context,
        checkable=checkable,
    )
