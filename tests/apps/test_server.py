"""Listening, announcing and ending."""

from __future__ import annotations

import json
import socket

import pytest

from assay.apps.server import announce, bind, url_of
from assay.core.errors import ConfigError, MachineError


def test_a_free_port_is_found_and_named() -> None:
    """Port 0 listens somewhere; its address can be connected to."""
    with bind("127.0.0.1", 0) as sock:
        host, port = url_of(sock).removeprefix("http://").split(":")
        socket.create_connection((host, int(port))).close()


def test_a_port_in_use_is_named_with_another_to_try() -> None:
    """The message has the port, and how to choose another."""
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(MachineError, match=rf"port {port} on 127.0.0.1 is in use: .*--port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "192.0.2.1", "\x00"])
def test_a_host_that_is_not_here_is_refused(host: str) -> None:
    """An address of another machine, or none at all."""
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1"):
        bind(host, 0)


def test_ipv6_addresses_are_bracketed() -> None:
    """As URLs want it."""
    try:
        sock = bind("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    with sock:
        assert url_of(sock).startswith("http://[::1]:")


def test_every_address_is_announced_as_loopback() -> None:
    """0.0.0.0 is not an address that one can connect to."""
    with bind("0.0.0.0", 0) as sock:
        assert url_of(sock).startswith("http://127.0.0.1:")


def test_the_announcement_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON for programs, a sentence for people."""
    announce("provider", "http://127.0.0.1:1", as_json=True, address="0x1")
    assert json.loads(capsys.readouterr().out) == {"program": "provider", "url": "http://127.0.0.1:1", "address": "0x1"}
    announce("provider", "http://127.0.0.1:1", as_json=False)
    assert capsys.readouterr().out == "provider answers at http://127.0.0.1:1\n"
