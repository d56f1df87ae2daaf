"""A provider enters a registry of identities, and others look it up; the registry is a test's own, see Registry.vy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from tests.chain.kit import PEOPLE
from tests.e2e.kit import ROOT, Place

from assay.chain.ethereum import Web3
from assay.core.registration import provider_in

pytestmark = pytest.mark.e2e
ADA = PEOPLE[0]
COMPILE = """
import sys
from pathlib import Path
from vyper.cli.vyper_compile import compile_files
(found,) = compile_files([Path(sys.argv[1])], ["bytecode"]).values()
sys.stdout.write(found["bytecode"])
"""


def deploy(url: str) -> str:
    """The registry on a chain on which Ada has money; its address."""
    source = str(ROOT / "tests" / "chain" / "Registry.vy")
    code = subprocess.run([sys.executable, "-c", COMPILE, source], capture_output=True, text=True, check=True).stdout
    web3 = Web3(Web3.HTTPProvider(url))
    creation = {
        "chainId": 31337, "nonce": 0, "value": 0, "data": code, "gas": 8_000_000,
        "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9,
    }  # fmt: skip
    raw = Account.from_key(ADA.secret).sign_transaction(creation).raw_transaction
    made = web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw))
    assert made["status"] == 1
    return str(made["contractAddress"]).lower()


def test_a_provider_has_an_identity(tmp_path: Path) -> None:
    """It enters, changes its file, and anybody reads who it is and what it has at stake; strangers change nothing."""
    place = Place(tmp_path)
    with place.running("devnet", "devnet", "--port", "0", "--json", "--fund", ADA.address) as program:
        there = ("--chain", program.url, "--registry", deploy(program.url), "--json")

        def identity(*args: str, code: int = 0) -> Any:
            done = place.assay("identity", *args, *there)
            assert done.returncode == code, done.stderr
            return json.loads(done.stdout) if code == 0 else done.stderr

        key = json.loads(place.assay("keys", "new", "provider", "--json").stdout)["address"]
        made = identity("register", "--name", "Ada's box", "--url", "https://ada.example")
        assert (made["owner"], made["provider"], made["same_key"], made["bond"]) == (key, key, True, "0")
        file = json.loads(_file(made["uri"]))
        assert file["name"] == "Ada's box"
        assert file["registrations"] == [{"agentId": made["agent"], "agentRegistry": made["registry"]}]
        assert {each["name"]: each["endpoint"] for each in file["services"]} == {
            "Assay": f"assay://{key}",
            "OpenAI": "https://ada.example/v1",
        }
        assert place.assay("stake", "bond", "7", "--chain", program.url, "--json").returncode == 0
        changed = identity("change", str(made["agent"]), "--name", "Another")
        assert json.loads(_file(changed["uri"]))["name"] == "Another"
        assert identity("show", str(made["agent"])) == changed
        assert changed["bond"] == "7"
        place.assay("keys", "new", "eve", "--json")
        assert "not its owner" in identity("change", str(made["agent"]), "--key", "eve", code=4)
        eve = identity("register", "--key", "eve")
        assert (eve["agent"], eve["same_key"]) == (made["agent"] + 1, True)
        assert "no agent 77" in identity("show", "77", code=2)


def _file(uri: str) -> bytes:
    import base64

    assert provider_in(uri)
    return base64.b64decode(uri.partition("base64,")[2])
