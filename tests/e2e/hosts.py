"""Hosts on one bridge: network namespaces that belong to whoever runs the tests, with clocks of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

_HOLD: Final = ("sh", "-c", "echo; exec cat")
"""Says that its namespace is there, and keeps it until its standard input ends."""

_RELAY: Final = """
import asyncio, sys

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()

async def relay(reader, writer):
    there, back = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, back), pump(there, writer))

async def main():
    async with await asyncio.start_unix_server(relay, sys.argv[1]):
        print(flush=True)
        await asyncio.to_thread(sys.stdin.read)
        import os; os._exit(0)

asyncio.run(main())
"""
"""From a socket in the file system to a port of the host: files are the same in all namespaces."""

_CLOCK: Final = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long skew(void) { const char *s = getenv("CLOCK_SKEW"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    int failed = (int)syscall(SYS_clock_gettime, id, t);
    if (!failed && id == CLOCK_REALTIME) t->tv_sec += skew();
    return failed;
}
time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
int gettimeofday(struct timeval *v, void *zone) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    v->tv_sec = t.tv_sec;
    v->tv_usec = t.tv_nsec / 1000;
    return 0;
}
"""
"""A wall clock that is wrong by CLOCK_SKEW seconds; time namespaces shift only the others."""


def impossible() -> str:
    """Why there cannot be hosts here; empty: there can."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"no {missing[0]} here"
    tried = subprocess.run(
        ["unshare", "-Urn", "ip", "link", "add", "bridge", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip()


def skewed(folder: Path, seconds: int) -> Mapping[str, str]:
    """The environment of a program whose wall clock is wrong by so much.

    Raises:
        subprocess.CalledProcessError: the C compiler does not do it.
    """
    library = folder / "clock.so"
    if not library.exists():
        command = ["gcc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=_CLOCK.encode(), check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_SKEW": str(seconds)}


@dataclass(frozen=True)
class Host:
    """A host that is plugged into the bridge."""

    number: int
    bridge: Sequence[str]
    """What goes before a command that is run at the bridge."""
    prefix: Sequence[str]
    """What goes before a command that is run on this host."""

    def move(self, number: int) -> None:
        """Change its address to 10.77.0.NUMBER, in place of all others."""
        _run(self.prefix, "ip", "-4", "address", "flush", "dev", "eth0")
        _run(self.prefix, "ip", "address", "add", f"10.77.0.{number}/24", "dev", "eth0")

    def plug(self, *, into: bool) -> None:
        """Put its cable into the bridge or pull it out."""
        _run(self.bridge, "ip", "link", "set", f"port{self.number}", "up" if into else "down")

    @contextmanager
    def client(self, port: int, folder: Path) -> Iterator[httpx.Client]:
        """HTTP to a port on this host, as programs on it reach it."""
        path = folder / f"port{port}.sock"
        with (
            _held([*self.prefix, sys.executable, "-c", _RELAY, str(path), str(port)]),
            httpx.Client(base_url="http://host", transport=httpx.HTTPTransport(uds=str(path)), timeout=60) as http,
        ):
            yield http


@contextmanager
def bridged(count: int) -> Iterator[list[Host]]:
    """Hosts on one bridge, with addresses 10.77.0.1, .2 and so on and as many of IPv6; each sees the bridge only."""
    with ExitStack() as stack:
        bridge = stack.enter_context(_held(["unshare", "-Urn", *_HOLD]))
        within = ("nsenter", "-t", str(bridge.pid), "-U", "-n", "--preserve-credentials")
        _run(within, "ip", "link", "add", "bridge", "type", "bridge")
        _run(within, "ip", "link", "set", "bridge", "up")
        hosts = []
        for number in range(1, count + 1):
            holder = stack.enter_context(_held([*within, "unshare", "-n", *_HOLD]))
            prefix = ("nsenter", "-t", str(holder.pid), "-U", "-n", "--preserve-credentials")
            host = Host(number, within, prefix)
            cable = ("link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            _run(within, "ip", *cable)
            _run(within, "ip", "link", "set", f"port{number}", "master", "bridge")
            for device in ("lo", "eth0"):
                _run(prefix, "ip", "link", "set", device, "up")
            _run(prefix, "ip", "address", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
            host.move(number)
            host.plug(into=True)
            hosts.append(host)
        yield hosts


@contextmanager
def _held(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun its work when it has written a line, until the end of the block."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"\n", command
        yield process
    finally:
        with suppress(OSError):
            process.stdin.close()
        process.wait(10)
        process.stdout.close()


def _run(prefix: Sequence[str], *command: str) -> None:
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
