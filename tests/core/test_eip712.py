"""EIP-712, against eth_account's encode_typed_data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ethereum import Account, encode_typed_data
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core import eip712
from assay.core.errors import EncodingError
from assay.core.keys import Key, keccak256
from assay.core.receipt import DOMAIN, FIELDS, TYPE_NAME, Receipt
from assay.core.request import LEVELS

EVERY: eip712.Fields = (
    ("word", "bytes32"),
    ("who", "address"),
    ("a", "uint8"),
    ("b", "uint16"),
    ("c", "uint32"),
    ("d", "uint64"),
    ("e", "uint128"),
    ("f", "uint256"),
    ("text", "string"),
)
VALUES = st.fixed_dictionaries(
    {
        "word": st.binary(min_size=32, max_size=32),
        "who": st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex()),
        "text": st.text(st.characters(codec="utf-8"), max_size=20),
        **{name: st.integers(0, 2 ** int(kind[4:]) - 1) for name, kind in EVERY if kind.startswith("uint")},
    }
)


def independent(name: str, fields: eip712.Fields, values: dict[str, Any], domain: dict[str, Any]) -> Any:
    """eth_account's reading of the same typed data."""
    types = eip712.typed_data_types(name, fields, tuple(domain))
    return encode_typed_data(full_message={"types": types, "primaryType": name, "domain": domain, "message": values})


@given(VALUES)
@settings(max_examples=25, deadline=None)
def test_every_type_is_hashed_as_eth_account_does(values: dict[str, Any]) -> None:
    """Struct hash, domain separator and signing digest agree, with and without chain and contract."""
    contract = "0x" + "12" * 20
    domains = [
        ({"name": "A", "version": "1"}, eip712.domain_separator("A", "1")),
        ({"name": "A", "version": "1", "chainId": 8453}, eip712.domain_separator("A", "1", 8453)),
        (
            {"name": "A", "version": "1", "chainId": 1, "verifyingContract": contract},
            eip712.domain_separator("A", "1", 1, contract),
        ),
    ]
    struct = eip712.struct_hash("Every", EVERY, values)
    for domain, separator in domains:
        theirs = independent("Every", EVERY, values, domain)
        assert (separator, struct) == (theirs.header, theirs.body)
        whole = keccak256(b"\x19" + theirs.version + theirs.header + theirs.body)
        assert eip712.signing_digest(separator, struct) == whole


@pytest.mark.parametrize("level", LEVELS)
def test_a_wallet_reads_a_receipt(level: Any) -> None:
    """eth_account computes a receipt's digest from its members, and recovers the provider from its signature."""
    key = tiny_key(7)
    receipt = tiny_bundle(tiny_request(level=level, max_tokens=3), key, 5, amount=2**100).receipt
    theirs = independent(TYPE_NAME, FIELDS, typed(receipt), {"name": "Assay", "version": "1"})
    assert theirs.header == DOMAIN
    assert keccak256(b"\x19" + theirs.version + theirs.header + theirs.body) == receipt.digest
    assert Account.recover_message(theirs, signature=receipt.signature).lower() == receipt.provider == key.address


def typed(receipt: Receipt) -> dict[str, Any]:
    """The receipt's members under the names and numbers of the struct, spelled out."""
    return {
        "version": 1,
        "level": {"signed": 0, "statistical": 1, "pinned": 2, "exact": 3}[receipt.level],
        "stop": {"stop": 0, "length": 1, "cancelled": 2, "failed": 3}[receipt.stop],
        "request": receipt.request,
        "model": receipt.model,
        "profile": receipt.profile,
        "promptText": receipt.prompt_text,
        "promptTokens": receipt.prompt_tokens,
        "output": receipt.output,
        "evidence": receipt.evidence,
        "promptCount": receipt.prompt_count,
        "outputCount": receipt.output_count,
        "channel": receipt.channel,
        "amount": receipt.amount,
        "provider": receipt.provider,
        "sequence": receipt.sequence,
        "issued": receipt.issued,
    }


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("uint8", True),
        ("uint256", 2**256),
        ("uint64", b"\0"),
        ("uint64", "1"),
        ("bytes32", bytes(31)),
        ("bytes32", "0" * 32),
        ("bytes32", 0),
        ("address", "0x" + "AB" * 20),
        ("address", "0x" + " " * 40),
        ("address", "0x" + "1 " * 20),
        ("address", bytes(20)),
        ("string", b"text"),
        ("string", 1),
    ],
)
def test_values_that_do_not_fit_their_type(kind: eip712.Kind, value: Any) -> None:
    """A value of another type or size is refused, never cut or padded."""
    with pytest.raises(EncodingError, match="it"):
        eip712.struct_hash("S", (("it", kind),), {"it": value})


def test_type_hash_is_that_of_the_standard() -> None:
    """The example of EIP-712: the signature of Mail's flat cousin, spelled out."""
    fields: eip712.Fields = (("name", "string"), ("wallet", "address"))
    assert eip712.type_hash("Person", fields) == keccak256(b"Person(string name,address wallet)")
    person = {"name": "Cow", "wallet": "0xcd2a3d9f938e13cd947ec05abc7fe734df8dd826"}
    expected = "fc71e5fa27ff56c350aa531bc129ebdf613b772b6604664f5d8dbe21b85eb0c8"
    assert eip712.struct_hash("Person", fields, person).hex() == expected


def test_keys_sign_other_digests_otherwise() -> None:
    """A signature over one struct says nothing about another with the same bytes under another name."""
    values = {"it": 1}
    one, two = (eip712.signing_digest(DOMAIN, eip712.struct_hash(name, (("it", "uint8"),), values)) for name in "AB")
    key = Key.from_secret(bytes(31) + b"\1")
    assert key.sign(one) != key.sign(two)
