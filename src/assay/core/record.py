"""A provider's record: where it answers and what it offers, signed by the key that signs its receipts.

Records travel through strangers' hands: directories, neighbours, files. What is read here was written by anybody, and
every member is checked; a record that was read is as good from one hand as from another.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias, get_args

from assay.core.encoding import MAX_INTEGER, Json, b64, canonical, check_bounds, unb64
from assay.core.errors import EncodingError, InvalidSignature, RecordRefused
from assay.core.hashing import ZERO, Digest, digest
from assay.core.keys import Address, Key, parse_address, recover
from assay.core.offer import Offer
from assay.core.payment import Requirements
from assay.core.request import natural, text

VERSION: Final = 1
MAX_RECORD_BYTES: Final = 65_536
"""Of a record's canonical form."""
MAX_LIFE: Final = 86_400
"""Seconds from a record's issue to its end, at most."""
MAX_SKEW: Final = 600
"""Seconds by which a record's issue may lie ahead: each of two clocks may be wrong by five minutes."""
MAX_ENDPOINTS: Final = 8
MAX_RECORD_OFFERS: Final = 64
MAX_REGION: Final = 16
_MAX_ADDRESS: Final = 255

EndpointKind: TypeAlias = Literal["http", "https", "iroh", "relay"]
BY_KEY: Final = "assay://"
"""Begins the URL by which a provider's key stands for the machine behind it: `assay://0x…`, see `url_by_key`."""
ENDPOINT_KINDS: Final[tuple[EndpointKind, ...]] = get_args(EndpointKind)

_REGION: Final = re.compile(r"[a-z0-9-]*")
_RELAY: Final = re.compile(r"wss?://(?P<place>.+)")
_NODE: Final = re.compile(r"[0-9a-f]{64}(@(?P<place>.+))?")
_PLACE: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?):(?P<port>[1-9][0-9]{0,4})")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to reach a provider."""

    kind: EndpointKind
    address: str
    """`http` and `https`: `host:port` in lower case. `relay`: `ws://` or `wss://` and that, of the relay. `iroh`: the
    64 hexadecimal digits of the provider's node, and `@host:port` where it can be reached at once."""

    def __post_init__(self) -> None:
        """Check the spelling.

        Raises:
            EncodingError: it is no address of that kind.
        """
        if self.kind not in ENDPOINT_KINDS:
            raise EncodingError("an endpoint's kind is unknown")
        if not 0 < len(self.address) <= _MAX_ADDRESS:
            raise EncodingError(f"an endpoint's address has 1 to {_MAX_ADDRESS} characters")
        if self.direct:
            _check_place(self.address)
            return
        match = (_RELAY if self.kind == "relay" else _NODE).fullmatch(self.address)
        if match is None:
            raise EncodingError(f"an endpoint's address is none of kind {self.kind}")
        if match["place"] is not None:
            _check_place(match["place"])

    @property
    def direct(self) -> bool:
        """To the provider's own socket, which sees who comes."""
        return self.kind in ("http", "https")

    @property
    def place(self) -> str:
        """`host:port` that is connected to; empty for an `iroh` node that has to be looked up."""
        if self.kind == "iroh":
            return self.address.partition("@")[2]
        return self.address.rpartition("/")[2]

    @property
    def host(self) -> str:
        """The place's name or number, without brackets."""
        return self.place.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The place's; 0 without one."""
        return int(self.place.rpartition(":")[2] or 0)

    @property
    def url(self) -> str:
        """For people, and of an `http` or `https` endpoint the base URL."""
        return self.address if self.kind == "relay" else f"{self.kind}://{self.address}"


@dataclass(frozen=True, slots=True)
class Stake:
    """Where a provider's bond can be looked up."""

    chain_id: int
    court: Address


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """What one provider says of itself, for a time. A record that exists has members that can be; see `check` for
    whether it holds."""

    provider: Address
    sequence: int
    """Rises with each record of this provider: of two the higher one counts."""
    issued: int
    """Unix seconds."""
    expires: int
    """Unix seconds, at most MAX_LIFE after `issued`."""
    endpoints: tuple[Endpoint, ...]
    """At most MAX_ENDPOINTS, the provider's favourite first."""
    offers: tuple[Offer, ...]
    """At most MAX_RECORD_OFFERS; all by this provider, at its `url_by_key`, in its region, and paid in one way."""
    parallel: int
    """Answers at the same time: a hint, which nobody has to believe."""
    region: str = ""
    """At most MAX_REGION lower-case letters, digits and hyphens; empty: not said."""
    stake: Stake | None = None
    tls: Digest = ZERO
    """SHA-256 of the certificate (DER) that its `https` endpoints show; ZERO: they show one that the web's authorities
    vouch for."""
    signature: bytes = b""
    """65 bytes r ‖ s ‖ v over `digest`, by the provider's key."""
    _named: tuple[Digest, int] | None = field(default=None, init=False, repr=False, compare=False)
    """`digest` and `size` of a record that was read: to encode it takes longer than all checks."""

    def __post_init__(self) -> None:
        """Check everything but signature and time.

        Raises:
            EncodingError: a member is misspelt or out of range.
        """
        parse_address(self.provider, what="provider")
        for name in ("sequence", "issued", "expires", "parallel"):
            natural(getattr(self, name), name)
        if not 0 < self.expires - self.issued <= MAX_LIFE:
            raise EncodingError(f"a record lives at most {MAX_LIFE} seconds")
        if len(self.endpoints) > MAX_ENDPOINTS or len(self.offers) > MAX_RECORD_OFFERS:
            raise EncodingError(f"a record has at most {MAX_ENDPOINTS} endpoints and {MAX_RECORD_OFFERS} offers")
        if len(self.region) > MAX_REGION or not _REGION.fullmatch(self.region):
            raise EncodingError(f"a region has at most {MAX_REGION} lower-case letters, digits and hyphens")
        if len(self.tls) != 32:
            raise EncodingError("a certificate's digest has 32 bytes")
        url = url_by_key(self.provider)
        for offer in self.offers:
            own = (self.provider, url, self.payment, self.region)
            if (offer.provider, offer.url, offer.payment, offer.region) != own:
                raise EncodingError("a record's offers are its provider's own, in its region, paid in one way")

    @property
    def payment(self) -> Requirements | None:
        """How the provider is paid; None: it only counts what is owed."""
        return self.offers[0].payment if self.offers else None

    @property
    def digest(self) -> Digest:
        """The 32 bytes that are signed; also the record's name."""
        return self._named[0] if self._named else _digest(self.encode(), self.signature)

    @property
    def size(self) -> int:
        """Bytes of its canonical form."""
        return self._named[1] if self._named else len(self.encode())

    def to_json(self) -> dict[str, Json]:
        """Canonical form."""
        stake, payment = self.stake, self.payment
        return {
            "v": VERSION,
            "provider": self.provider,
            "sequence": self.sequence,
            "issued": self.issued,
            "expires": self.expires,
            "endpoints": [{"kind": each.kind, "address": each.address} for each in self.endpoints],
            "offers": [offer.to_json() for offer in self.offers],
            "payment": None if payment is None else payment.to_json(),
            "parallel": self.parallel,
            "region": self.region,
            "stake": None if stake is None else {"chain_id": stake.chain_id, "court": stake.court},
            "tls": b64(self.tls),
            "signature": b64(self.signature),
        }

    def encode(self) -> bytes:
        """Canonical bytes.

        Raises:
            EncodingError: over MAX_RECORD_BYTES.
        """
        data = canonical(self.to_json())
        if len(data) > MAX_RECORD_BYTES:
            raise EncodingError(f"a record has at most {MAX_RECORD_BYTES} bytes", "offer fewer models")
        return data

    @classmethod
    def decode(cls, data: bytes) -> ProviderRecord:
        """Inverse of `encode`; says nothing of signature and time (see `check`).

        Raises:
            EncodingError: not the canonical bytes of a record, whose members are all known and in range.
        """
        if len(data) > MAX_RECORD_BYTES:
            raise EncodingError(f"a record has at most {MAX_RECORD_BYTES} bytes")
        check_bounds(data, what="the record")
        try:
            value: Json = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EncodingError(f"the record is not JSON ({str(error)[:100]})") from error
        record = cls._from_json(value)
        if record.encode() != data:
            raise EncodingError("the record has other members than those that are known, or is not in canonical form")
        object.__setattr__(record, "_named", (_digest(data, record.signature), len(data)))
        return record

    def check(self, now: float) -> None:
        """Check signature and time; `now` in Unix seconds.

        Raises:
            InvalidSignature: another key signed it.
            RecordRefused: it has expired, or was issued more than MAX_SKEW ahead of `now`.
        """
        if now >= self.expires:
            raise RecordRefused("expired", f"the record of {self.provider} has expired")
        if self.issued > now + MAX_SKEW:
            raise RecordRefused("future", f"the record of {self.provider} is from the future")
        signer = recover(self.digest, self.signature)
        if signer != self.provider:
            raise InvalidSignature(f"the record names {self.provider}, but another key ({signer}) signed it")

    @classmethod
    def _from_json(cls, value: Json) -> ProviderRecord:
        if not isinstance(value, dict):
            raise EncodingError("a record is not an object")
        if natural(value.get("v"), "v") != VERSION:
            raise EncodingError("the record's version is unknown", "read it with a newer Assay")
        provider = parse_address(text(value.get("provider"), "provider"), what="provider")
        payment = None if value.get("payment") is None else Requirements.from_json(value["payment"])
        url, region = url_by_key(provider), text(value.get("region"), "region")
        return cls(
            provider=provider,
            sequence=natural(value.get("sequence"), "sequence"),
            issued=natural(value.get("issued"), "issued"),
            expires=natural(value.get("expires"), "expires"),
            endpoints=tuple(map(_endpoint, _list(value.get("endpoints"), MAX_ENDPOINTS, "endpoints"))),
            offers=tuple(
                Offer.from_json(item, provider=provider, url=url, payment=payment, region=region)
                for item in _list(value.get("offers"), MAX_RECORD_OFFERS, "offers")
            ),
            parallel=natural(value.get("parallel"), "parallel"),
            region=region,
            stake=_stake(value.get("stake")),
            tls=unb64(text(value.get("tls"), "tls"), size=32, what="tls"),
            signature=unb64(text(value.get("signature"), "signature"), size=65, what="signature"),
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """What is remembered of a provider when its record is gone, so that no older one takes its place."""

    provider: Address
    sequence: int
    """The highest that was seen."""
    digest: Digest
    """Of the record with that number; empty if there were two."""
    until: int
    """Unix seconds: from then on every older record has expired too, as it was issued before this one."""
    pinned: bool
    """We have dealt with this provider."""


def sign_record(record: ProviderRecord, key: Key) -> ProviderRecord:
    """`record` with `key`'s signature in place of any other."""
    return replace(record, signature=key.sign(record.digest))


def url_by_key(provider: Address) -> str:
    """The URL of whoever has this key, wherever that is: a record that is alive says where when it is connected to."""
    return BY_KEY + provider


def next_sequence(before: int, now: float) -> int:
    """A sequence number over `before`, and over those of a life that has been forgotten while the clock was right:
    milliseconds. `now` in Unix seconds."""
    return min(max(before + 1, int(now * 1000)), MAX_INTEGER)


def _digest(data: bytes, signature: bytes) -> Digest:
    """Of a record with this canonical form, without its signature: a member of its own, and nothing else is spelled so,
    because quotes within strings are escaped."""
    return digest("assay/record/1", data.replace(b'"signature":"' + b64(signature).encode() + b'",', b"", 1))


def _list(value: Json, most: int, what: str) -> list[Json]:
    if not isinstance(value, list) or len(value) > most:
        raise EncodingError(f"{what} is no list of at most {most}")
    return value


def _endpoint(value: Json) -> Endpoint:
    if not isinstance(value, dict):
        raise EncodingError("an endpoint is not an object")
    kind = value.get("kind")
    if kind not in ENDPOINT_KINDS:
        raise EncodingError("an endpoint's kind is unknown")
    return Endpoint(kind, text(value.get("address"), "address"))


def _stake(value: Json) -> Stake | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise EncodingError("a stake is not an object")
    court = parse_address(text(value.get("court"), "court"), what="court")
    return Stake(natural(value.get("chain_id"), "chain_id"), court)


def _check_place(address: str) -> None:
    """`host:port` in one spelling. What a resolver would read as a number has to be spelled as an address is, so that
    nobody takes 2130706433 for a name."""
    match = _PLACE.fullmatch(address)
    if match is None or int(match["port"]) > 65_535:
        raise EncodingError("an endpoint's address is not host:port in lower case")
    host = match["host"]
    try:
        if host.startswith("["):
            spelled = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        elif _NUMBER.fullmatch(host.rpartition(".")[2]):
            spelled = str(ipaddress.IPv4Address(host))
        else:
            spelled = host
    except ValueError as error:
        raise EncodingError("an endpoint's host is neither a name nor an address") from error
    if spelled != host:
        raise EncodingError("an endpoint's address is spelled in another way than addresses are")
