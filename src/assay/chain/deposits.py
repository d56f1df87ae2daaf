"""Deposits that a provider sends for its payers, by their signature."""

from __future__ import annotations

from typing import Final

from assay.chain.abi import CONFIG, encoded
from assay.chain.client import ChainClient
from assay.chain.ethereum import decode_abi, encode_abi
from assay.core.deposit import Authorization, TokenDomain
from assay.core.errors import ChainFailed, ConfigError
from assay.core.voucher import Terms

DEPOSIT_GAS: Final = 125_000
"""Of a deposit by signature, at most."""
_DOMAIN: Final = ("bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]")
_MOST: Final = 4096
"""Bytes that a token may say of its domain."""


class Deposits:
    """Through the collector of a chain; calls block."""

    def __init__(self, client: ChainClient) -> None:
        """Ask the token for its domain.

        Raises:
            ConfigError: no collector is known.
            ChainFailed: the chain cannot be asked, or the token has no domain (EIP-5267).
        """
        if not client.addresses.collector:
            raise ConfigError("no contract is known that takes deposits by signature", "name the collector's address")
        self._client: Final = client
        self.token: Final = _domain(client)

    def send(self, terms: Terms, authorization: Authorization, *, seconds: float) -> bytes:
        """Put a payer's money into its channel; the transaction's hash, when it is final. Once, however often it is
        called with this authorisation.

        Raises:
            InvalidSignature: the payer did not sign it.
            TransactionFailed: the payer does not have the money, or the deposit was made by somebody else.
            ChainFailed: it is not final within so many `seconds`.
            StoreError: it cannot be kept.
        """
        client, channel = self._client, terms.channel(self._client.domain)
        collector = client.addresses.collector
        authorization.check(self.token, terms.payer, collector, channel)
        own = (authorization.after, authorization.before, int.from_bytes(authorization.salt, "big"))
        data = encode_abi(("uint256", "uint256", "uint256", "bytes"), (*own, authorization.signature))
        kinds = (CONFIG, "uint128", "address", "bytes")
        call = encoded("deposit", kinds, terms.values(), authorization.amount, collector, data)
        name = f"x402/{authorization.nonce(channel).hex()}"
        client.outbox.send(name, client.addresses.channels, call)
        return client.outbox.wait(name, seconds).transaction


def _domain(client: ChainClient) -> TokenDomain:
    token, chain_id = client.addresses.token, client.addresses.chain_id
    data = client.node.call(token, encoded("eip712Domain", ()))
    try:
        if len(data) > _MOST:
            raise ValueError("it is too long")
        _, name, version, chain, contract, *_ = decode_abi(_DOMAIN, data)
    except Exception as error:
        raise ChainFailed(f"the token {token} does not tell its domain", "see that it knows EIP-5267") from error
    if chain != chain_id or contract.lower() != token:
        raise ChainFailed(f"the token {token} tells a domain that is not its own", "check its address")
    return TokenDomain(name, version, chain_id, token)
