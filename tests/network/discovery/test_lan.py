"""Providers on the local network; here on loopback, where multicast works as well."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.network.discovery.kit import record, until
from tests.network.discovery.test_sources import Found, finding, reply
from tests.network.test_http import stranger
from tests.tiny import tiny_key
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from assay.core.errors import MachineError
from assay.core.record import ProviderRecord
from assay.network.discovery.lan import SERVICE, WAITING, LocalNetwork, Notice

pytestmark = pytest.mark.anyio
A, B = tiny_key(1), tiny_key(2)
HERE = ("127.0.0.1",)


def local(key=A, **more: object) -> ProviderRecord:  # noqa: ANN001
    """A record that lives now."""
    return record(key, issued=int(time.time()), endpoints=("http://127.0.0.1:1",), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def announced(port: int, *items: ProviderRecord) -> AsyncIterator[Notice]:
    """Notices of a provider, one after the other."""
    notice = Notice(port, lambda: HERE, tls=False, interfaces=HERE)
    try:
        for item in items:
            await notice.publish(item)
        yield notice
    finally:
        await notice.close()


def port_of(url: str) -> int:
    """Of an address."""
    return int(url.rpartition(":")[2])


@asynccontextmanager
async def looking(dropped: list[None] | None = None) -> AsyncIterator[Found]:
    """What is found on loopback."""
    source = LocalNetwork(HERE, dropped=lambda: dropped.append(None) if dropped is not None else None)
    async with finding(source) as found:
        yield found


async def test_a_provider_announces_itself() -> None:
    """Its record is asked for where its notice says; a newer one is found, and a withdrawn one is gone."""
    first, second = local(sequence=1), local(sequence=2)
    async with stranger(reply(first.encode()), reply(second.encode())) as url, looking() as found:
        async with announced(port_of(url), first) as notice:
            await until(lambda: found.providers == {A.address}, 15)
            await notice.publish(second)
            await until(lambda: found.outcomes == [("lan", "new")] * 2, 15)
        await until(lambda: found.providers == set(), 15)


async def test_a_provider_without_an_address_says_nothing_until_it_has_one() -> None:
    """Then where it is."""
    addresses: list[str] = []
    item = local()
    async with stranger(reply(item.encode())) as url, looking() as found:
        notice = Notice(port_of(url), lambda: addresses, tls=False, interfaces=HERE)
        try:
            await notice.publish(item)
            assert notice._zeroconf is None
            addresses += HERE
            await notice.publish(item)
            await until(lambda: found.providers == {A.address}, 15)
        finally:
            await notice.close()


async def test_a_notice_for_another_record_counts_nothing() -> None:
    """The record has to be the one that was announced, by the provider whose name the notice has."""
    told, newer = local(A, sequence=1), local(A, sequence=2)
    others_name = AsyncServiceInfo(
        SERVICE, f"{B.address[2:]}.{SERVICE}", port=0, properties={"record": told.digest.hex()},
        addresses=[socket.inet_aton(HERE[0])],
    )  # fmt: skip
    zeroconf = AsyncZeroconf(interfaces=list(HERE))
    try:
        async with stranger(reply(told.encode())) as url, looking() as found, announced(port_of(url), newer):
            others_name.port = port_of(url)
            await (await zeroconf.async_register_service(others_name))
            await asyncio.sleep(2.5)
            assert found.outcomes == []
    finally:
        await zeroconf.async_close()


async def test_garbage_in_notices() -> None:
    """Names that are none, members that are none, ports where nobody answers: nothing happens."""
    zeroconf = AsyncZeroconf(interfaces=list(HERE))
    try:
        for name, properties in (
            ("x" * 30, {"record": "00" * 32}),
            ("a" * 40, {"record": "z"}),
            ("b" * 40, {}),
            ("c" * 40, {"record": "00" * 32, "tls": "\udcff".encode("utf-8", "replace")}),
        ):
            info = AsyncServiceInfo(
                SERVICE, f"{name}.{SERVICE}", port=1, properties=properties, addresses=[socket.inet_aton(HERE[0])]
            )
            await (await zeroconf.async_register_service(info))
        good = local(B)
        async with stranger(reply(good.encode())) as url, looking() as found, announced(port_of(url), good):
            await until(lambda: found.providers == {B.address}, 15)
            assert found.outcomes == [("lan", "new")]
    finally:
        await zeroconf.async_close()


async def test_a_flood_of_notices_is_bounded() -> None:
    """Over so many that wait, notices are dropped and counted; other names are not even looked at."""
    dropped: list[None] = []
    source, found = LocalNetwork(HERE, dropped=lambda: dropped.append(None)), Found()
    for number in range(10_000):
        source.notice(f"{number:040x}.{SERVICE}", gone=False, finder=found)
        source.notice(f"{number}.{SERVICE}", gone=False, finder=found)
        source.notice(f"{number:040x}.{SERVICE}", gone=False, finder=found)
    assert len(source._waiting) == WAITING
    assert len(dropped) == 2 * (10_000 - WAITING)
    source.notice(f"{A.address[2:]}.{SERVICE}", gone=True, finder=found)  # nobody is taken away who did not come so


async def test_two_machines_with_one_key() -> None:
    """The second one hears that there is another."""
    item = local()
    async with announced(1, item):
        with pytest.raises(MachineError, match="another machine"):
            async with announced(2, item):
                pass
