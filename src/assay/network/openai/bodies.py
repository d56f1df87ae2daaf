"""What a client may send: strict models of the OpenAI bodies, and one way to read them that names what is wrong.

Fields of OpenAI that cannot be honoured are listed with the values that ask for nothing, so that a client which
spells out the defaults is served and one that asks for more is told which field it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
)

from assay.core.errors import InvalidRequest
from assay.core.offer import Sort
from assay.core.record import MAX_REGION
from assay.core.request import Level

MAX_MEMBERS: Final = 20_000
"""Most members that all objects of one body may have together: what bounds the work of refusing it."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def _whole(value: object) -> object:
    """JSON knows no integers apart: 16.0 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _off(value: bool) -> bool:
    if value:
        raise ValueError("only false is supported")
    return value


WHOLE: Final = BeforeValidator(_whole)
Off: TypeAlias = Annotated[bool, AfterValidator(_off), WithJsonSchema({"const": False})] | None
Zero: TypeAlias = Annotated[float, Field(ge=0, le=0)] | None
NoBias: TypeAlias = Annotated[dict[str, float], Field(max_length=0)] | None
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
Label: TypeAlias = Annotated[str, Field(max_length=512)]
FunctionName: TypeAlias = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
StopText: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE]
Wei: TypeAlias = Annotated[int, Field(ge=0, le=2**53 - 1), WHOLE] | Annotated[str, Field(pattern=r"^[0-9]{1,38}$")]
Providers: TypeAlias = Annotated[tuple[Label, ...], Field(fail_fast=True, max_length=64)]


class Part(BaseModel):
    """Base of every object in a body: nothing is converted, nothing unknown is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TextPart(Part):
    """A piece of a message's content; pieces are joined by newlines."""

    type: Literal["text"]
    text: str


Content: TypeAlias = str | Annotated[tuple[TextPart, ...], Field(fail_fast=True, min_length=1, max_length=1024)]


class SpokenMessage(Part):
    """What the system, the developer or the user says."""

    role: Literal["system", "developer", "user"]
    content: Content
    name: Label | None = None


class CalledFunction(Part):
    """The function of an earlier tool call."""

    name: FunctionName
    arguments: str


class ToolCallBody(Part):
    """A tool call that the assistant made earlier."""

    id: Label
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Part):
    """What the assistant said earlier."""

    role: Literal["assistant"]
    content: Content | None = None
    name: Label | None = None
    tool_calls: Annotated[tuple[ToolCallBody, ...], Field(fail_fast=True, max_length=128)] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: None = None


class ToolMessage(Part):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Label


MessageBody: TypeAlias = Annotated[SpokenMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionBody(Part):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class ToolBody(Part):
    """A tool definition."""

    type: Literal["function"]
    function: FunctionBody


class ChosenFunction(Part):
    """The name of the function to call."""

    name: FunctionName


class ChosenTool(Part):
    """The tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class TextFormat(Part):
    """Free text."""

    type: Literal["text"]


class ObjectFormat(Part):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Part):
    """A JSON schema with the name that OpenAI wants it to have."""

    name: FunctionName
    description: str | None = None
    body: dict[str, JsonValue] = Field(alias="schema")
    strict: bool | None = None


class SchemaFormat(Part):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


Format: TypeAlias = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class StreamOptions(Part):
    """How to stream."""

    include_usage: bool | None = None
    include_obfuscation: Off = None


class MaxPrice(Part):
    """Ceilings in wei per token, each part separately; what is left out is not limited."""

    prompt: Wei | None = None
    completion: Wei | None = None


class Wishes(Part):
    """The buyer's wishes, named like OpenRouter's `provider` preferences where they mean the same."""

    level: Level | None = None
    max_price: MaxPrice | None = None
    order: Providers | None = None
    only: Providers | None = None
    providers: Providers | None = Field(default=None, description="the same as `only`")
    ignore: Providers | None = None
    allow_fallbacks: bool | None = None
    seeded: bool | None = None
    hedge: bool | None = Field(
        default=None, description="ask a second provider as well when the first token is late; without it, as is set"
    )
    sort: Sort | None = Field(default=None, description="what is wanted least of; without it `balance`")
    model_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of the model's file: no other one under its name"
    )
    region: Annotated[str, Field(max_length=MAX_REGION, pattern=r"^[a-z0-9-]*$")] | None = Field(
        default=None, description="as providers say it; `eu` takes `eu-west` in, and empty takes all in"
    )
    min_stake: Wei | None = Field(default=None, description="wei that the provider has to lose, as the chain says")
    nonce: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")] | None = Field(
        default=None, description="32 bytes in base64url; salts every digest and seeds the sampler"
    )


class Common(Part):
    """What both kinds of body have."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: StopText | Annotated[tuple[StopText, ...], Field(fail_fast=True, max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WHOLE] | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=8), WHOLE] | None = None
    assay: Wishes | None = None
    # Harmless: they ask for nothing that changes the answer.
    user: Label | None = None
    metadata: Annotated[dict[str, Label], Field(max_length=16)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    # Not supported: only the values that ask for nothing.
    frequency_penalty: Zero = None
    presence_penalty: Zero = None
    logit_bias: NoBias = None


class ChatBody(Common):
    """`POST /v1/chat/completions`."""

    messages: Annotated[tuple[MessageBody, ...], Field(fail_fast=True, min_length=1, max_length=2048)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    response_format: Format | None = None
    tools: Annotated[tuple[ToolBody, ...], Field(fail_fast=True, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    audio: None = None
    function_call: None = None
    functions: None = None
    modalities: Annotated[tuple[Literal["text"], ...], Field(fail_fast=True, max_length=1)] | None = None
    prediction: None = None
    reasoning_effort: None = None
    store: Off = None
    verbosity: None = None
    web_search_options: None = None


class CompletionBody(Common):
    """`POST /v1/completions`."""

    prompt: Text | Annotated[tuple[Text, ...], Field(fail_fast=True, min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    best_of: Annotated[int, Field(ge=1, le=1), WHOLE] | None = None
    echo: Off = None
    suffix: None = None


UNSUPPORTED: Final = frozenset({
    "audio", "best_of", "echo", "frequency_penalty", "function_call", "functions", "logit_bias", "modalities",
    "prediction", "presence_penalty", "reasoning_effort", "store", "suffix", "verbosity", "web_search_options",
})  # fmt: skip
"""Fields of OpenAI that are known here and cannot be honoured."""

B = TypeVar("B", bound=Common)


def read_body(data: bytes, kind: type[B]) -> B:
    """Read a body; CPU-bound in proportion to its length.

    Raises:
        InvalidRequest: not JSON in UTF-8, a member twice, half a surrogate pair, NaN, nested too deeply, or not what
            `kind` allows; `field` names the place.
    """
    raw = _plain_json(data)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _explained(error, raw) from None


def _plain_json(data: bytes) -> object:
    members = 0

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal members
        members += len(pairs)
        if members > MAX_MEMBERS:
            raise InvalidRequest(f"the body has more than {MAX_MEMBERS} members", remedy="send a smaller request")
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise InvalidRequest("the body has a member twice in one object", field=twice[:64], remedy="send it once")
        return value

    try:
        text = data.decode()
        value: object = json.loads(text, object_pairs_hook=unique, parse_constant=_no_constant)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8", remedy="send JSON in UTF-8") from None
    except UnicodeEncodeError:
        raise InvalidRequest(
            "a string of the body holds half of a surrogate pair", remedy="send whole characters"
        ) from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", remedy="send a flatter one") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON ({str(error)[:200]})", remedy="send a JSON object") from None
    return value


def _no_constant(text: str) -> object:
    raise InvalidRequest(f"{text} is not JSON", remedy="send finite numbers")


def _explained(error: ValidationError, raw: object) -> InvalidRequest:
    """The error at the deepest place, and rather a wrong value than a wrong type: among the branches of a union that
    is the one that was meant."""
    found = [
        (_place(each["loc"], raw, missing=each["type"] == "missing"), each["type"], each["msg"])
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    place, kind, message = max(found, key=lambda item: (len(item[0]), not item[1].endswith("_type")))
    field = _dotted(place)
    if place and place[0] in UNSUPPORTED:
        return InvalidRequest(f"`{field}` is not supported", field=field, remedy="leave it out")
    if kind == "extra_forbidden":
        return InvalidRequest(f"`{field}` is not known or not supported", field=field, remedy="leave it out")
    if kind == "json_invalid":
        return InvalidRequest(f"the body is not JSON that can be read ({message[:200]})", remedy="send a flatter one")
    what = f"`{field}`" if field else "the body"
    return InvalidRequest(f"{what} is not valid: {message[:300]}", field=field)


def _place(loc: Sequence[int | str], raw: object, *, missing: bool) -> tuple[int | str, ...]:
    """The location without pydantic's names for branches: what can be walked in the body, and a missing last member."""
    place: list[int | str] = []
    for index, step in enumerate(loc):
        match raw, step:
            case dict(), str() if step in raw:
                raw = raw[step]
            case list(), int() if step < len(raw):
                raw = raw[step]
            case _ if not (missing and index == len(loc) - 1):
                continue
        place.append(step)
    return tuple(place)


def _dotted(place: Sequence[int | str]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:64]}" for step in place)
    return text.removeprefix(".")
