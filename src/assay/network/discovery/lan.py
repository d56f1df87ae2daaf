"""Providers on the local network, by multicast DNS (zeroconf).

A notice holds a provider's address and the digest of its record, no more; the record is asked for where the notice
says. Whoever is on the network can send notices, as many as it likes: work and memory are bounded, and what is over the
bounds is dropped.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal, TypeAlias

import httpx
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, IPVersion, NonUniqueNameException, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from assay.core.errors import AssayError, MachineError
from assay.core.ports import Finder
from assay.core.reach import Reach
from assay.core.record import ProviderRecord
from assay.network.discovery.fetching import fetch_record, record_client

SERVICE: Final = "_assay._tcp.local."
WAITING: Final = 256
"""Notices that wait to be followed; further ones are dropped."""
REMEMBERED: Final = 4096
"""Notices whose record is known, so that it is not asked for again."""
LOOK_SECONDS: Final = 30.0
"""Between two times that everybody is asked: who came while the network was cut was not heard."""
_WORKERS: Final = 4
_RESOLVE_MS: Final = 3000
_NAME: Final = re.compile(r"([0-9a-f]{40})\._assay\._tcp\.local\.")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Interfaces: TypeAlias = Sequence[str] | Literal["all"]
"""Addresses of this machine's interfaces, or all of them."""


class LocalNetwork:
    """Implements `Discovery` over notices; one that is withdrawn takes away only what it brought."""

    def __init__(
        self, interfaces: Interfaces = "all", *, look: float = LOOK_SECONDS, dropped: Callable[[], None] = lambda: None
    ) -> None:
        """`look`: seconds between two times that everybody is asked.

        `dropped`: told of each notice that is not followed, because too many wait.
        """
        self._interfaces: Final = interfaces
        self._look: Final = look
        self._dropped: Final = dropped
        self._waiting: Final[OrderedDict[str, None]] = OrderedDict()
        self._known: Final[OrderedDict[str, str]] = OrderedDict()
        """Digests of records by the names of the notices that led to them."""
        self._there: Final = asyncio.Semaphore(0)

    @property
    def name(self) -> str:
        """See `Discovery`."""
        return "lan"

    async def run(self, finder: Finder) -> None:
        """See `Discovery`.

        Raises:
            MachineError: there is no network to look at.
        """

        def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            del zeroconf, service_type
            self.notice(name, gone=state_change is ServiceStateChange.Removed, finder=finder)

        async def ask() -> None:
            while True:
                browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[changed])
                try:
                    await asyncio.sleep(self._look)
                finally:
                    await browser.async_cancel()
                await zeroconf.async_update_interfaces()

        zeroconf = _open(self._interfaces)
        try:
            async with record_client() as client, asyncio.TaskGroup() as group:
                group.create_task(ask())
                for _ in range(_WORKERS):
                    group.create_task(self._work(zeroconf, client, finder))
        finally:
            await zeroconf.async_close()

    def notice(self, name: str, *, gone: bool, finder: Finder) -> None:
        """A notice has come, changed or been withdrawn."""
        match = _NAME.fullmatch(name)
        if match is None:
            return
        if gone:
            if self._known.pop(name, None) is not None:
                finder.gone("0x" + match[1], self.name)
        elif name not in self._waiting:
            if len(self._waiting) >= WAITING:
                self._dropped()
                return
            self._waiting[name] = None
            self._there.release()

    async def _work(self, zeroconf: AsyncZeroconf, client: httpx.AsyncClient, finder: Finder) -> None:
        while True:
            await self._there.acquire()
            name, _ = self._waiting.popitem(last=False)
            info = AsyncServiceInfo(SERVICE, name)
            with suppress(AssayError, OSError):
                if await info.async_request(zeroconf.zeroconf, _RESOLVE_MS):
                    await self._follow(info, client, finder)

    async def _follow(self, info: AsyncServiceInfo, client: httpx.AsyncClient, finder: Finder) -> None:
        """Ask for the record; it counts only if it is the one that was announced."""
        digest = _text(info, b"record")
        if not _DIGEST.fullmatch(digest) or self._known.get(info.name) == digest:
            return
        kind = "https" if _text(info, b"tls") == "1" else "http"
        for address in info.parsed_scoped_addresses(IPVersion.All)[:4]:
            host = f"[{address}]" if ":" in address else address
            with suppress(AssayError):
                data, reach = await fetch_record(client, f"{kind}://{host}:{info.port}")
                record = ProviderRecord.decode(data)
                if record.digest.hex() == digest and f"{record.provider[2:]}.{SERVICE}" == info.name:
                    finder.heard(data, self.name, max(reach, Reach.NEIGHBOURHOOD))
                    self._known[info.name] = digest
                    if len(self._known) > REMEMBERED:
                        self._known.popitem(last=False)
                    return


class Notice:
    """A provider's own notice on the local network; close it."""

    def __init__(
        self, port: int, addresses: Callable[[], Sequence[str]], *, tls: bool, interfaces: Interfaces = "all"
    ) -> None:
        """The provider answers at these addresses (in numbers; they may change) and port, by HTTPS or HTTP."""
        self._port: Final = port
        self._addresses: Final = addresses
        self._tls: Final = tls
        self._interfaces: Final = interfaces
        self._zeroconf: AsyncZeroconf | None = None
        self._said: AsyncServiceInfo | None = None

    async def publish(self, record: ProviderRecord) -> None:
        """Announce a record, in place of the one before, where this machine is now; nothing if that is nowhere.

        Raises:
            MachineError: there is no network, or another machine announces this provider.
        """
        addresses = self._addresses()
        if not addresses:
            return
        info = AsyncServiceInfo(
            SERVICE,
            f"{record.provider[2:]}.{SERVICE}",
            port=self._port,
            properties={"record": record.digest.hex(), "tls": "1" if self._tls else "0"},
            server=f"assay-{record.provider[2:18]}.local.",
            parsed_addresses=list(addresses),
        )
        if self._zeroconf is None:
            self._zeroconf = _open(self._interfaces)
        try:
            if self._said is None:
                await (await self._zeroconf.async_register_service(info))
            else:
                told = await self._zeroconf.async_update_service(info)
                await self._zeroconf.async_update_interfaces()
                await told
        except NonUniqueNameException as error:
            raise MachineError(
                f"another machine announces {record.provider}", "give each provider a key of its own"
            ) from error
        except (ZeroconfError, OSError) as error:
            raise MachineError(f"the local network takes no notice ({error})", "set `lan = false`") from error
        self._said = info

    async def close(self) -> None:
        """Withdraw it."""
        if self._zeroconf is not None:
            await self._zeroconf.async_close()


def _open(interfaces: Interfaces) -> AsyncZeroconf:
    try:
        return AsyncZeroconf(interfaces=InterfaceChoice.All if interfaces == "all" else list(interfaces))
    except OSError as error:
        raise MachineError(
            f"the local network cannot be searched ({error})", "set `lan = false` in [network]"
        ) from error


def _text(info: AsyncServiceInfo, name: bytes) -> str:
    value = info.properties.get(name)
    return value.decode("ascii", "replace") if isinstance(value, bytes) else ""
