"""Whom a provider lets in: listed consumers, and nobody too often; real HTTP, with requests that others signed."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from tests.apps.test_gateway import gateway
from tests.running import provider
from tests.tiny import TinyEngine, tiny_key, tiny_request

from assay.apps.config import Provider
from assay.apps.door import Door, Rates
from assay.core.consumer import HEADER, consumer_of, sign_body
from assay.core.errors import Busy, EncodingError, InvalidSignature
from assay.core.keys import Key
from assay.core.payment import Payment
from assay.core.voucher import Terms
from assay.network.wire import Asked, encode_request

PROVIDER, FRIEND, STRANGER = tiny_key(), tiny_key(21), tiny_key(22)
BODY = encode_request(Asked(tiny_request()))


async def ask(url: str, header: str | None, path: str = "/assay/v1/answers", body: bytes = BODY) -> httpx.Response:
    """One request for an answer."""
    headers = {} if header is None else {HEADER: header}
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.post(url + path, content=body, headers=headers)


@pytest.mark.anyio
async def test_only_listed_consumers_are_served(tmp_path: Path) -> None:
    """A gateway with a listed key gets its answer; others do not, whoever else's signature they show."""
    door = Door(PROVIDER.address, [FRIEND.address])
    async with provider(tmp_path, TinyEngine(), PROVIDER, door=door) as here:
        good = sign_body(FRIEND, PROVIDER.address, BODY)
        assert (await ask(here.url, good)).status_code == 200
        forbidden = {
            "nothing": None,
            "a stranger's": sign_body(STRANGER, PROVIDER.address, BODY),
            "a friend's for another provider": sign_body(FRIEND, STRANGER.address, BODY),
            "a friend's of another request": sign_body(FRIEND, PROVIDER.address, BODY + b" "),
        }
        for what, header in forbidden.items():
            reply = await ask(here.url, header)
            assert (what, reply.status_code) == (what, 403)
            assert reply.json()["error"]["type"] == "permission_error"
        assert (await ask(here.url, "AAAA")).status_code == 400
        chat = b'{"model":"tiny","messages":[{"role":"user","content":"x"}]}'
        assert (await ask(here.url, good, "/v1/chat/completions", chat)).status_code == 403
        async with gateway(tmp_path, here.url, key=FRIEND) as theirs:
            assert (await theirs.ask()).status_code == 200


@pytest.mark.anyio
async def test_a_stranger_is_told_so(tmp_path: Path) -> None:
    """By its own gateway, in words."""
    door = Door(PROVIDER.address, [FRIEND.address])
    async with (
        provider(tmp_path, TinyEngine(), PROVIDER, door=door) as here,
        gateway(tmp_path, here.url, key=STRANGER) as theirs,
    ):
        reply = await theirs.ask()
        assert reply.status_code == 424
        assert f"{STRANGER.address} is none of them" in reply.json()["error"]["message"]


@pytest.mark.anyio
async def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    """Listed keys have a count each. Of keys that are not listed anybody makes as many as they like: they share one."""
    async with provider(tmp_path, TinyEngine(), PROVIDER, door=Door(PROVIDER.address, (), 3)) as here:
        statuses = [
            (await ask(here.url, sign_body(tiny_key(30 + i), PROVIDER.address, BODY))).status_code for i in range(5)
        ]
        assert statuses == [200, 200, 200, 429, 429]
        reply = await ask(here.url, None, "/v1/chat/completions", b"{}")
        assert reply.status_code == 429
        assert 1 <= int(reply.headers["retry-after"]) <= 60
    door = Door(PROVIDER.address, [FRIEND.address, STRANGER.address], 2)
    async with provider(tmp_path, TinyEngine(), PROVIDER, door=door) as here:
        for key in (FRIEND, STRANGER):
            header = sign_body(key, PROVIDER.address, BODY)
            assert [(await ask(here.url, header)).status_code for _ in range(3)] == [200, 200, 429]


def test_rates() -> None:
    """So many a minute, saved up for a minute, in bounded memory."""
    time_ = 0.0
    rates = Rates(60, clock=lambda: time_)
    for _ in range(60):
        rates.take("a")
    with pytest.raises(Busy):
        rates.take("a")
    rates.take("b")
    time_ = 2.0
    rates.take("a")
    rates.take("a")
    with pytest.raises(Busy):
        rates.take("a")
    for number in range(20_000):
        rates.take(str(number))
    assert len(rates._left) == 10_000


def test_keys_that_pay_have_a_count_each() -> None:
    """Those that pay for this very request by a channel of theirs; who shows another one's terms shares with all."""
    door = Door(PROVIDER.address, (), 1)

    def enter(key: Key, payer: Key) -> bool:
        terms = Terms(*[payer.address] * 5, 900, bytes(32))
        scope = {
            "type": "http", "method": "POST", "path": "/", "client": ("127.0.0.1", 1),
            "headers": [(HEADER.encode(), sign_body(key, PROVIDER.address, BODY).encode())],
        }  # fmt: skip
        try:
            door.admit(Request(scope), BODY, Payment(terms, None, bytes(65)))
        except Busy:
            return False
        return True

    assert [enter(FRIEND, FRIEND), enter(STRANGER, STRANGER), enter(FRIEND, FRIEND)] == [True, True, False]
    assert [enter(STRANGER, FRIEND), enter(FRIEND, STRANGER)] == [True, False]


def test_a_signature_names_its_key() -> None:
    """And is of one provider and one body."""
    header = sign_body(FRIEND, PROVIDER.address, BODY)
    assert consumer_of(header, PROVIDER.address, BODY) == FRIEND.address
    assert consumer_of(header, STRANGER.address, BODY) != FRIEND.address
    with pytest.raises(EncodingError):
        consumer_of(header[:-4], PROVIDER.address, BODY)
    with pytest.raises(InvalidSignature):
        consumer_of("A" * 87, PROVIDER.address, BODY)


def test_addresses_are_checked() -> None:
    """Whichever way they are spelt."""
    assert Provider(consumers=("0x" + "Ab" * 20,)).consumers == ("0x" + "ab" * 20,)
    with pytest.raises(ValueError, match="consumers"):
        Provider(consumers=("0x12",))
