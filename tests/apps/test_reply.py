"""How a reply ends: consumers that hang up or stop reading, silence, servers that stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from tests.apps.openai_kit import CHAT, NOW, Scripted, ScriptedAnswer, scripted_app
from tests.running import running
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.apps.reply import Patience, Reply
from assay.core.completion import Step
from assay.core.encoding import b64
from assay.core.errors import ProviderFailed
from assay.core.receipt import verify_signature
from assay.network.openai.accept import accept_chat
from assay.network.openai.bodies import ChatBody, read_body
from assay.network.openai.shape import Shape

pytestmark = pytest.mark.anyio


@dataclass
class Wire:
    """The consumer's end of an ASGI call."""

    hangs_up_after: int | None = None
    """Body messages after which the consumer is gone."""
    stalls: bool = False
    """It takes the head and reads nothing else."""
    sent: list[MutableMapping[str, Any]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> MutableMapping[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if self.stalls and message["type"] == "http.response.body":
            await asyncio.sleep(3600)
        self.sent.append(message)
        if len(self.sent) - 1 == self.hangs_up_after:
            self.gone.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def reply(script: Scripted, patience: Patience | None = None, **body: object) -> Reply:
    """The reply to a small chat with `body`'s members."""
    read = read_body(json.dumps({**CHAT, **body}).encode(), ChatBody)
    accepted = accept_chat(read, nonce=bytes(32), now_s=NOW, default_level="signed")
    return Reply(script, Shape.of(accepted, NOW), patience=patience)


async def serve(wire: Wire, served: Reply) -> None:
    """Run the reply to its end; no task of it may be left."""
    before = asyncio.all_tasks()
    try:
        await asyncio.wait_for(served({"type": "http", "method": "POST"}, wire.receive, wire.send), 10)
    finally:
        assert asyncio.all_tasks() <= before


@pytest.mark.parametrize("n", [1, 3])
async def test_hanging_up_a_stream(n: int) -> None:
    """A consumer that hangs up in mid-stream stops every choice at once, and each has a receipt of what it got."""
    script = Scripted(script=lambda _: ["word "] * 1000, delay=0.01)
    wire = Wire(hangs_up_after=6)
    await serve(wire, reply(script, stream=True, n=n))
    assert script.active == 0
    assert script.closed == n
    assert [bundle.receipt.stop for bundle in script.kept] == ["cancelled"] * n
    written = wire.body.count(b'"content":"word "')
    for bundle in script.kept:
        verify_signature(bundle.receipt)
    assert written <= sum(bundle.receipt.output_count for bundle in script.kept) <= written + n


async def test_hanging_up_before_the_reply() -> None:
    """A consumer that does not wait for its unstreamed reply stops generation too."""
    script = Scripted(script=lambda _: ["word "] * 1000, delay=0.01)
    wire = Wire()
    asyncio.get_running_loop().call_later(0.1, wire.gone.set)
    await serve(wire, reply(script))
    assert wire.sent == []
    assert (script.active, script.closed) == (0, 1)
    assert 0 < script.kept[0].receipt.output_count < 50


async def test_hanging_up_before_the_start() -> None:
    """A consumer that goes while its answer is being placed leaves nothing behind."""
    script = Scripted(start_delay=60)
    wire = Wire()
    asyncio.get_running_loop().call_later(0.05, wire.gone.set)
    await serve(wire, reply(script, n=2))
    assert (wire.sent, script.asked, script.kept) == ([], [], [])


class Slow(Scripted):
    """Does not end at once when it is told to."""

    async def answer(self, *args: Any, **more: Any) -> ScriptedAnswer:
        try:
            return await super().answer(*args, **more)
        finally:
            await asyncio.sleep(1.5)


async def test_hanging_up_before_a_start_that_takes_its_time() -> None:
    """Neither an error of ours nor a word to who is gone, though the provider has not heard of it yet."""
    wire, script = Wire(), Slow(start_delay=5)
    asyncio.get_running_loop().call_later(0.05, wire.gone.set)
    served = reply(script)
    await asyncio.wait_for(served({"type": "http", "method": "POST"}, wire.receive, wire.send), 10)
    assert not wire.sent


async def test_consumer_that_stops_reading() -> None:
    """Who takes nothing for `write` seconds counts as gone: no place is held for it."""
    script = Scripted()
    wire = Wire(stalls=True)
    await serve(wire, reply(script, Patience(write=0.05), stream=True))
    assert (script.active, script.kept[0].receipt.stop) == (0, "cancelled")


async def test_keep_alive() -> None:
    """While nothing comes, a stream is kept open by comments, which clients skip."""
    script = Scripted(start_delay=0.3, script=lambda _: ["late"])
    wire = Wire()
    await serve(wire, reply(script, Patience(keep_alive=0.05), stream=True))
    assert wire.body.count(b": still working\n\n") >= 2
    assert wire.body.startswith(b": ")
    assert wire.body.index(b": still") < wire.body.index(b"late")
    assert wire.body.endswith(b"data: [DONE]\n\n")
    assert wire.sent[-1]["more_body"] is False


async def test_error_after_a_keep_alive() -> None:
    """An error that comes after the head was sent is an event, not a second head."""
    script = Scripted(start_delay=0.2, breaks_at=0, breaks_with=ProviderFailed("gone"))
    wire = Wire()
    await serve(wire, reply(script, Patience(keep_alive=0.05), stream=True))
    assert [message["type"] for message in wire.sent].count("http.response.start") == 1
    assert b'data: {"error":{"message":"gone"' in wire.body
    assert wire.body.endswith(b"data: [DONE]\n\n")


async def test_one_choice_fails() -> None:
    """When one choice breaks off, the others are stopped, and the receipts of all that was delivered come along."""
    script = Scripted(script=lambda request: ["word "] * (1000 if request.choice else 3), delay=0.01)

    class Fails(Scripted):
        async def answer(self, request: Any, ask: Any, *, top_logprobs: int | None = None) -> ScriptedAnswer:
            answer = await super().answer(request, ask, top_logprobs=top_logprobs)
            if request.choice == 0:
                answer._owner = broken
                broken.active += 1
                self.active -= 1
            return answer

    broken = Scripted(script=lambda _: ["word "] * 9, delay=0.01, breaks_at=3, breaks_with=ProviderFailed("gone"))
    script = Fails(script=lambda _: ["word "] * 1000, delay=0.01)
    wire = Wire()
    await serve(wire, reply(script, stream=True, n=2))
    failure = json.loads(wire.body.split(b"\n\n")[-3].removeprefix(b"data: "))
    assert failure["error"]["message"] == "gone"
    assert [receipt["stop"] for receipt in failure["assay"]["receipts"]] == ["failed", "cancelled"]
    assert (script.active, broken.active) == (0, 0)


@pytest.mark.parametrize("word", ["cancelled", "failed", None])
async def test_an_answer_that_does_not_say_that_it_is_whole(word: str | None) -> None:
    """Only `stop` and `length` end a reply well; whatever else a last step says is an error for the consumer."""

    class Quits(ScriptedAnswer):
        async def steps(self) -> AsyncIterator[Step]:
            async for step in super().steps():
                yield replace(step, stop=word)  # type: ignore[arg-type]
                return

    class Quitting(Scripted):
        async def answer(self, request: Any, ask: Any, *, top_logprobs: int | None = None) -> ScriptedAnswer:
            self.active += 1
            return Quits(self, request, top_logprobs)

    wire = Wire()
    await serve(wire, reply(Quitting(), stream=True))
    assert b"provider_error" in wire.body
    assert b'"finish_reason":"length"' not in wire.body


async def test_receipt_that_does_not_come() -> None:
    """A provider that withholds its receipt fails the reply within the time allowed."""

    class Silent(ScriptedAnswer):
        async def bundle(self) -> Any:
            self._end()
            await asyncio.sleep(3600)

    class Withholds(Scripted):
        async def answer(self, request: Any, ask: Any, *, top_logprobs: int | None = None) -> ScriptedAnswer:
            await super().answer(request, ask)
            return Silent(self, request, top_logprobs)

    wire = Wire()
    await serve(wire, reply(Withholds(), Patience(receipt=0.05)))
    assert wire.sent[0]["status"] == 424
    assert b"receipt did not come in time" in wire.body


@pytest.mark.parametrize("stream", [False, True])
async def test_parts_by_others_are_told_also_where_the_last_one_fails(stream: bool) -> None:
    """An answer that others had begun, and that broke off for good: the error brings the receipts that there are."""
    part = tiny_bundle(tiny_request(level="signed"), tiny_key(), 1)

    class Later(ScriptedAnswer):
        earlier = (part,)

    class Went(Scripted):
        async def answer(self, request: Any, ask: Any, *, top_logprobs: int | None = None) -> ScriptedAnswer:
            await super().answer(request, ask)
            return Later(self, request, top_logprobs)

    wire = Wire()
    await serve(wire, reply(Went(no_receipt=ProviderFailed("it is gone")), stream=stream))
    assert b"it is gone" in wire.body
    assert b64(part.receipt.signature).encode() in wire.body
    wire = Wire()
    await serve(wire, reply(Went(), stream=stream))
    assert wire.body.count(b'"signature"') == 2


async def test_server_that_stops() -> None:
    """A call that is cancelled from outside hangs up and has its receipt kept."""
    script = Scripted(script=lambda _: ["word "] * 1000, delay=0.01)
    task = asyncio.create_task(serve(Wire(), reply(script, stream=True)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (script.active, script.kept[0].receipt.stop) == (0, "cancelled")


async def test_mistakes_of_ours() -> None:
    """An unforeseen exception is a 500 in OpenAI's shape without a traceback, and still ends the answer."""
    script = Scripted(breaks_at=2, breaks_with=ZeroDivisionError("secret"))
    wire = Wire()
    with pytest.raises(ZeroDivisionError):
        await serve(wire, reply(script))
    assert wire.sent[0]["status"] == 500
    assert b"secret" not in wire.body
    assert json.loads(wire.body)["error"]["type"] == "assay_error"
    assert script.active == 0


async def test_hanging_up_a_socket() -> None:
    """Closing a real connection stops generation within one second."""
    script = Scripted(script=lambda _: ["word "] * 10_000, delay=0.01)
    async with running(scripted_app(script)) as url, httpx.AsyncClient(base_url=url) as http:
        async with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            lines: AsyncIterator[str] = response.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
        for _ in range(100):
            if script.kept:
                break
            await asyncio.sleep(0.01)
        assert script.active == 0
        receipt = script.kept[0].receipt
        verify_signature(receipt)
        assert receipt.stop == "cancelled"
        found = await http.get(f"/receipts/{b64(script.kept[0].request.call)}")
    assert found.content == script.kept[0].encode()
