"""A provider that signs two receipts under one number: found by the gateway, shown by the validator."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import ENGINES
from tests.e2e.kit import MODEL, SAY, Place, all_running, check_error, until

from assay.core.bundle import Bundle
from assay.core.encoding import b64
from assay.core.errors import Equivocation
from assay.core.receipt import Receipt, check_equivocation

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow]

TOKEN = "a secret of gateway and validator"


@ENGINES
def test_two_receipts_under_one_number(tmp_path: Path, model_path: Path, engine: str) -> None:
    """The buyer gets no second receipt, the cheat is asked no more, and the validator, which sees the gateway only
    through its desk, shows both receipts' contradiction within seconds."""
    place = Place(tmp_path)
    options = ("--port", "0", "--json", "--threads", "1", "--model", str(model_path))
    offered = (*options, "--engine", engine, "--context", "256")
    cheat = ("--key", "mallory", "--cheat", "equivocation", "--i-am-testing-dishonesty")
    serve = [
        place.running("mallory", "serve", *offered, *cheat, wait=False),
        place.running("ada", "serve", *offered, "--key", "ada", ASSAY_PROVIDER_OUTPUT_PRICE_WEI="5", wait=False),
    ]
    with all_running(serve) as (mallory, ada):
        named = ("--provider", mallory.url, "--provider", ada.url)
        front = ("gateway", "--port", "0", "--json", *named)
        with (
            place.running("gateway", *front, ASSAY_AUDIT_TOKEN=TOKEN) as gateway,
            place.running(
                "validator", "validate", *options, "--interval", "1", "--share", "0", "--gateway", gateway.url,
                ASSAY_AUDIT_TOKEN=TOKEN,
            ) as validator,
        ):  # fmt: skip
            ask = {"model": MODEL, "messages": SAY, "max_tokens": 3}
            with gateway.http as http:
                first = http.post("/v1/chat/completions", json=ask).json()
                assert first["assay"]["provider"] == mallory.facts["address"]
                refused = http.post("/v1/chat/completions", json=ask)
                assert "signed two different receipts under sequence number" in check_error(refused, 424)
                third = http.post("/v1/chat/completions", json=ask).json()
                assert third["assay"]["provider"] == ada.facts["address"]
                only = {**ask, "assay": {"only": [mallory.url]}}
                message = check_error(http.post("/v1/chat/completions", json=only), 424)
                assert "caught cheating" in message
            os.set_blocking(validator.process.stdout.fileno(), False)
            verdict = json.loads(until(validator.process.stdout.readline))["verdict"]
            assert verdict["provider"] == mallory.facts["address"]
            assert verdict["outcome"] == "fails"
            assert "signed two different receipts under sequence number" in verdict["reasons"][0]
            assert httpx.get(f"{validator.url}/health").json()["verdicts"]["fails"] == 1
            assert 'outcome="fails"' in httpx.get(f"{gateway.url}/metrics").text
            one = Receipt.from_json(first["assay"]["receipts"][0])
            desk = f"{gateway.url}/assay/v1/receipts/{b64(bytes.fromhex(verdict['receipt']))}"
            other = Bundle.decode(httpx.get(desk, headers={"authorization": f"Bearer {TOKEN}"}).content)
            with pytest.raises(Equivocation):
                check_equivocation(one, other.receipt)
