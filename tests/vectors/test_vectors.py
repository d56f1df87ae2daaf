"""The checked-in vectors: the code reproduces them, and implementations that share no code with it agree."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.core import sampler_reference as reference
from tests.engines.exact import plain_reference as plain
from tests.engines.exact import sampler_reference as integers
from tests.engines.exact.models import Dice, write_model
from tests.engines.exact.running import kernel_passes, running
from tests.ethereum import Account, encode_typed_data, keccak
from tests.vectors import exact_vectors, generate

from assay.core import encoding, merkle, tree16
from assay.core.bundle import Bundle
from assay.core.completion import TopLogprobs
from assay.core.errors import BindingMismatch, EncodingError, InvalidSignature, VerificationError
from assay.core.evidence import logits_leaf, top_leaf
from assay.core.keys import recover
from assay.core.profile import Profile
from assay.core.receipt import Receipt, verify_signature
from assay.core.record import ProviderRecord
from assay.core.report import SignedReport
from assay.core.request import LEVELS, Request, SamplerSettings
from assay.core.voucher import VOUCHER, Terms, Voucher, channels_domain, voucher_digest
from assay.engines.exact.chunks import decode_vector, encode_vector
from assay.engines.exact.convert import convert
from assay.engines.exact.kernels import sampling as compiled
from assay.engines.exact.record import record_root
from assay.engines.exact.trace_header import Planned, TraceHeader
from assay.engines.exact.trace_stream import TraceReader, WholePass
from assay.verify.binding import check_offline

HERE = Path(__file__).parent
BUILT = generate.build()


def load(path: str) -> Any:
    """A vector file's content."""
    return json.loads((HERE / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(BUILT))
def test_the_code_reproduces_the_vectors(path: str) -> None:
    """A change of any encoding shows here. Meant? Raise its version, then run `python -m tests.vectors.generate`."""
    assert (HERE / path).read_bytes() == BUILT[path].encode()


def test_every_file_is_generated_described_and_small() -> None:
    """No stray vectors; each format's README names each of its files; all together stay under 200 KB."""
    expected = {*BUILT, exact_vectors.REAL}
    files = {path.relative_to(HERE).as_posix() for path in HERE.rglob("*.json")}
    assert files == expected
    for path in files:
        folder, name = path.split("/")
        assert f"`{name}`" in (HERE / folder / "README.md").read_text(encoding="utf-8"), path
    assert sum(path.stat().st_size for path in HERE.rglob("*.*") if path.suffix in (".json", ".md")) < 200_000


def test_canonical_encoding() -> None:
    """Canonical bytes are read; every other spelling listed is refused."""
    for case in load("encoding/canonical.json"):
        data = bytes.fromhex(case["hex"])
        assert data == case["canonical"].encode()
        assert encoding.parse_canonical(data, what="it") == json.loads(case["json"])
    for case in load("encoding/refused.json"):
        with pytest.raises(EncodingError):
            encoding.parse_canonical(bytes.fromhex(case["hex"]), what=case["why"])
    for text in load("encoding/base64url.json")["refused"]:
        with pytest.raises(EncodingError):
            encoding.unb64(text, size=None, what="it")


def test_merkle_proofs() -> None:
    """Each proof holds, and not for its neighbour's place."""
    for case in load("merkle/proofs.json"):
        root, item = bytes.fromhex(case["root"]), bytes.fromhex(case["leaf"])
        path = [bytes.fromhex(step) for step in case["path"]]
        merkle.verify(root, case["count"], case["index"], item, path)
        with pytest.raises(BindingMismatch):
            merkle.verify(root, case["count"], case["index"] ^ 1, item, path)


def test_vouchers() -> None:
    """Ids of channels, digests and signatures, each from the parts that stand there; eth_account signs the same."""
    found = load("voucher/vouchers.json")
    chain_id, contract = found["domain"]["chain_id"], found["domain"]["contract"]
    domain = channels_domain(chain_id, contract)
    assert domain.hex() == found["domain"]["separator"]
    theirs = {"name": "x402 Batch Settlement", "version": "1", "chainId": chain_id, "verifyingContract": contract}
    types = {"Voucher": [{"name": name, "type": kind} for name, kind in VOUCHER]}
    payer = Account.from_key(found["secret"])
    for item in found["items"]:
        *parts, salt = item["terms"]
        channel = Terms(*parts, bytes.fromhex(salt)).channel(domain)
        assert channel.hex() == item["channel"]
        read = Voucher.decode(item["canonical"].encode())
        assert voucher_digest(domain, channel, read.amount).hex() == item["digest"]
        message = {"channelId": channel, "maxClaimableAmount": read.amount}
        assert bytes(payer.sign_typed_data(theirs, types, message).signature) == read.signature
        read.check(domain, payer.address.lower())


def test_records() -> None:
    """Digests from the canonical text without its signature; eth_account signs the same."""
    found = load("record/records.json")
    provider = Account.from_key(found["secret"])
    for item in found["items"]:
        read = ProviderRecord.decode(item["canonical"].encode())
        unsigned = re.sub(r'"signature":"[^"]*",', "", item["canonical"]).encode()
        tag = hashlib.sha256(b"assay/record/1").digest()
        assert hashlib.sha256(tag + tag + unsigned).hexdigest() == item["digest"] == read.digest.hex()
        assert provider.unsafe_sign_hash(read.digest).signature == read.signature
        read.check(read.issued)


def test_reports() -> None:
    """Digests from the receipt's digest and one byte; eth_account signs the same."""
    found = load("report/reports.json")
    reporter = Account.from_key(found["secret"])
    tag = hashlib.sha256(b"assay/report/1").digest()
    for item, good in zip(found["items"], (b"\1", b"\0"), strict=True):
        read = SignedReport.decode(item["canonical"].encode())
        assert hashlib.sha256(tag + tag + read.receipt.digest + good).hexdigest() == item["digest"] == read.digest.hex()
        assert reporter.unsafe_sign_hash(read.digest).signature == read.signature
        read.check()


def test_keys() -> None:
    """eth_account has the same addresses and signatures; the refused ones are refused."""
    for case in load("keys/signatures.json"):
        account = Account.from_key(case["secret"])
        assert account.address.lower() == case["address"]
        assert account.unsafe_sign_hash(bytes.fromhex(case["digest"])).signature.hex() == case["signature"]
    for case in load("keys/refused.json"):
        with pytest.raises(InvalidSignature):
            recover(bytes.fromhex(case["digest"]), bytes.fromhex(case["signature"]))


def test_receipts() -> None:
    """eth_account computes each digest from the struct's type and recovers the provider."""
    struct = load("receipt/struct.json")
    name, members = struct["type"].rstrip(")").split("(")
    fields = [dict(zip(("type", "name"), member.split(" "), strict=True)) for member in members.split(",")]
    domain = [{"name": "name", "type": "string"}, {"name": "version", "type": "string"}]
    levels, stops = ("signed", "statistical", "pinned"), ("stop", "length", "cancelled", "failed")
    assert keccak(struct["type"].encode()).hex() == struct["type_hash"]
    for case in load("receipt/receipts.json"):
        receipt = Receipt.from_json(encoding.parse_canonical(case["canonical"].encode(), what="it"))
        verify_signature(receipt)
        message: dict[str, Any] = {}
        for field in fields:
            snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in field["name"])
            message[field["name"]] = getattr(receipt, snake, 1)
        message |= {"level": levels.index(receipt.level), "stop": stops.index(receipt.stop)}
        typed = encode_typed_data(
            full_message={
                "types": {"EIP712Domain": domain, name: fields},
                "primaryType": name,
                "domain": struct["domain"],
                "message": message,
            }
        )
        assert typed.header.hex() == struct["domain_separator"]
        assert keccak(b"\x19" + typed.version + typed.header + typed.body).hex() == case["digest"]
        assert Account.recover_message(typed, signature=case["signature"]).lower() == receipt.provider


def test_requests_and_profiles() -> None:
    """What the canonical text spells has the digests listed."""
    for case in load("request/requests.json"):
        request = Request.from_json(encoding.parse_canonical(case["canonical"].encode(), what="it"))
        assert request == Request.from_json(case["request"])
        assert [x.hex() for x in (request.digest, request.name, request.call, request.seed)] == [
            case["digest"],
            case["name"],
            case["call"],
            case["seed"],
        ]
    for case in load("profile/profiles.json"):
        profile = Profile.from_json(encoding.parse_canonical(case["canonical"].encode(), what="it"))
        assert profile == Profile.from_json(case["profile"])
        assert profile.digest.hex() == case["digest"]


def tagged(tag: str, *parts: bytes) -> bytes:
    """As docs/protocol.md says."""
    return hashlib.sha256(2 * hashlib.sha256(tag.encode()).digest() + b"".join(parts)).digest()


def test_request_openings() -> None:
    """The digest is over body, seed and rules, the seed over nonce and body."""
    for case in load("request/requests.json"):
        request, canonical = case["request"], case["canonical"].encode()
        body, seed, rules = (bytes.fromhex(case[name]) for name in ("body", "seed", "rules"))
        assert body == tagged("assay/request-body/1", canonical)
        assert seed == tagged("assay/seed/2", encoding.unb64(request["nonce"], size=32, what="nonce"), body)
        settings = [request["sampler"][name].to_bytes(8) for name in ("temperature", "top_k", "top_p", "min_p")]
        masked = bool(request["response_format"]) or request["tool_choice"] not in ("auto", "none")
        assert rules == b"".join([*settings, bytes([masked])])
        assert case["digest"] == tagged("assay/request/2", body, seed, rules).hex()


def test_openings_of_tokens() -> None:
    """Salt, leaf and root follow from nonce and tokens, and one of them is opened by salt and path."""
    for case in load("completion/tokens.json"):
        nonce, index, tokens = bytes.fromhex(case["nonce"]), case["index"], case["tokens"]
        tag = {"prompt": "assay/prompt-tokens/2", "output": "assay/output/2"}[case["of"]]
        salts = [tagged(tag, nonce, i.to_bytes(4)) for i in range(len(tokens))]
        level = [tagged("assay/token/1", salt, token.to_bytes(4)) for salt, token in zip(salts, tokens, strict=True)]
        assert (salts[index].hex(), level[index].hex()) == (case["salt"], case["leaf"])
        path = [bytes.fromhex(item) for item in case["path"]]
        tree16.verify(bytes.fromhex(case["root"]), len(tokens), index, level[index], path)
        while len(level) > 1:
            level = [tagged("assay/exact-node/1", *level[i : i + 16]) for i in range(0, len(level), 16)]
        assert tagged("assay/exact-root/1", len(tokens).to_bytes(8), *level).hex() == case["root"]


def test_evidence() -> None:
    """Leaves follow from the numbers listed."""
    for case in load("evidence/pinned.json"):
        assert logits_leaf(np.frombuffer(bytes.fromhex(case["logits"]), "<f4")).hex() == case["leaf"]
    for case in load("evidence/statistical.json"):
        top = TopLogprobs(float(case["chosen"]), tuple(case["ids"]), tuple(map(float, case["logprobs"])))
        assert top_leaf(top).hex() == case["leaf"]


@pytest.mark.parametrize("level", LEVELS)
def test_bundles(level: str) -> None:
    """Each file holds as far as can be told without a model."""
    bundle = Bundle.decode((HERE / "bundle" / f"{level}.json").read_bytes())
    check_offline(bundle)
    assert bundle.receipt.level == level


def test_edited_bundles() -> None:
    """Each edit is refused by what the vector says, and for a binding at the field it says."""
    for case in load("bundle/refused.json"):
        text = (HERE / "bundle" / case["file"]).read_bytes().decode()
        assert text.count(case["replace"]) == 1, case
        error, *field = case["by"].split(" ")
        with pytest.raises((EncodingError, VerificationError)) as caught:
            check_offline(Bundle.decode(text.replace(case["replace"], case["with"]).encode()))
        assert type(caught.value).__name__ == error, case
        assert [getattr(caught.value, "field", "")] == (field or [""]), case


def test_sampler_noise_and_weights() -> None:
    """The scalar reference gives the same keys, hashes, noise and weights, to the bit."""
    vectors = load("sampler/noise.json")
    seed = bytes.fromhex(vectors["seed"])
    for case in vectors["positions"]:
        assert f"{reference.position_key(seed, case['position']):016x}" == case["key"]
        for item in case["tokens"]:
            assert reference.hash32(seed, case["position"], item["token"]) == item["hash"]
            assert reference.noise(item["hash"]).hex() == item["noise"]
    for hashed, noise in vectors["hashes"]:
        assert reference.noise(hashed).hex() == noise
    for case in load("sampler/weights.json"):
        assert reference.weight(float.fromhex(case["deficit"])) == case["weight"]


def test_sampler_draws() -> None:
    """The scalar reference draws the same tokens, and finds the same gaps."""
    vectors = load("sampler/draws.json")
    seed = bytes.fromhex(vectors["seed"])
    for case in vectors["draws"]:
        row, settings = vectors["rows"][case["row"]], SamplerSettings(**case["settings"])
        allowed = None if case["allowed"] is None else [i in case["allowed"] for i in range(len(row))]
        drawn = [reference.draw(row, settings, seed, position, allowed) for position in range(len(case["tokens"]))]
        assert drawn == case["tokens"]
        if settings.temperature:
            scores = reference.scores(row, settings, seed, 0, allowed)
            best = max(scores.values())
            gaps = [best - scores[token] if token in scores else float("inf") for token in range(6)]
            assert gaps == [float(gap) if gap == "inf" else float.fromhex(gap) for gap in case["gaps"]]


def test_tree16_proofs() -> None:
    """Each proof holds, and not for its neighbour's place."""
    for case in load("tree16/proofs.json"):
        root, item = bytes.fromhex(case["root"]), bytes.fromhex(case["leaf"])
        path = [bytes.fromhex(step) for step in case["path"]]
        tree16.verify(root, case["count"], case["index"], item, path)
        with pytest.raises(BindingMismatch):
            tree16.verify(root, case["count"], case["index"] ^ 1, item, path)


def test_trace_chunks() -> None:
    """The widths are those that the numbers need."""
    for case in load("trace/chunks.json"):
        encoded = encode_vector(np.array([*case["first"], *[-1] * 253], np.int64))
        assert encoded.widths.tolist() == [case["width"]]
        assert hashlib.sha256(encoded.data.tobytes()).hexdigest() == case["sha256"]


def test_trace_stream() -> None:
    """The stream is read, and gives the numbers that its labels say."""
    case = load("trace/streams.json")["secret"]
    header, plan = TraceHeader.decode(case["header"].encode()), [Planned(*item) for item in case["plan"]]
    reader = TraceReader(header, plan, bytes.fromhex(case["nonce"]))
    passes = reader.feed(bytes.fromhex(case["stream"]))
    reader.finish()
    found = {n: item for item in passes for n in ([item.position] if isinstance(item, WholePass) else item.positions)}
    assert list(found) == [0, 1, 2]
    for i, item in found.items():
        record = generate.accumulators(f"record {i}", 256 * header.layout.chunks, 16).astype(np.int16)
        assert record_root(header.layout, record).hex() == case["roots"][i]
        if isinstance(item, WholePass):
            assert item.head is not None
            assert decode_vector(item.body, 768).tolist() == generate.accumulators(f"body {i}", 768, 30).tolist()
            assert decode_vector(item.head, 16).tolist() == generate.accumulators(f"head {i}", 16, 38).tolist()
        else:
            kept = item.kept[i - item.positions[0]]
            assert kept.tolist() == record[: kept.size].tolist()


def test_integer_sampler_functions() -> None:
    """The scalar reference has the same tables, deficits, weights and noise."""
    own = {"exp2": integers.EXP2, "log2": integers.LOG2, "tail": integers.TAIL}
    for name, case in load("integer_sampler/tables.json").items():
        table = np.array(own[name], "<i4")
        assert (table.size, hashlib.sha256(table.tobytes()).hexdigest()) == (case["entries"], case["sha256"])
        assert {i: own[name][int(i)] for i in case["some"]} == case["some"]
    for case in load("integer_sampler/rates.json"):
        for below, deficit in case["deficits"]:
            assert integers.deficit(below, case["temperature"]) == deficit
            assert below * case["multiplier"] >> case["shift"] == deficit
    for deficit, weight in load("integer_sampler/weights.json"):
        assert integers.weight(deficit) == weight
    for hashed, noise in load("integer_sampler/noise.json"):
        assert integers.noise(hashed) == noise


def test_integer_sampler_draws() -> None:
    """The scalar reference and the compiled sampler draw the same tokens."""
    vectors = load("integer_sampler/draws.json")
    seed = bytes.fromhex(vectors["seed"])
    for case in vectors["draws"]:
        row, settings = vectors["rows"][case["row"]], SamplerSettings(**case["settings"])
        allowed = None if case["allowed"] is None else [i in case["allowed"] for i in range(len(row))]
        assert [integers.draw(row, settings, seed, i, allowed) for i in range(16)] == case["tokens"]
        mask = None if allowed is None else np.array(allowed)
        assert [compiled.draw(np.array(row), settings, seed, i, mask) for i in range(16)] == case["tokens"]


def test_exact_kernels() -> None:
    """The compiled engine has the logits, roots and evidence that the vectors of small models say."""
    with tempfile.TemporaryDirectory() as folder:
        for case in load("exact/models.json"):
            path = write_model(
                Path(folder) / case["name"], **exact_vectors.MODELS[case["name"]], dice=Dice(case["name"])
            )
            with running(convert(path), threads=2) as runner:
                passes = kernel_passes(runner, exact_vectors.TOKENS, [3, 16])
                kept = runner.program.layout.kept_chunks
            found = exact_vectors.passes_of(passes, exact_vectors.PROMPT, kept)
            assert found == {name: case[name] for name in ("passes", "evidence")}, case["name"]


@pytest.mark.model
def test_the_real_model(model_path: Path) -> None:
    """SmolLM2-135M commits to the digests listed, here as on every machine."""
    assert (HERE / exact_vectors.REAL).read_text(encoding="utf-8") == generate.build_real(model_path)


def words(values: Sequence[int]) -> str:
    """SHA-256 of numbers as 8 bytes each."""
    return hashlib.sha256(b"".join(x.to_bytes(8, "little", signed=True) for x in values)).hexdigest()


def test_exact_functions() -> None:
    """Plain Python that was written from the page has the same tables and functions."""
    case = load("exact/functions.json")
    for name, table in (("exp2", plain.EXP2), ("sigmoid", plain.SIGMOID), ("sine", plain.SINE)):
        assert case["tables"][name] == {"entries": len(table), "sha256": words(table)}
    for name in ("round_shift", "divide", "exp2_negative", "sigmoid", "silu", "gelu"):
        for *arguments, result in case[name]:
            assert getattr(plain, name)(*arguments) == result, (name, arguments)
    for turn, sine, cosine in case["sine"]:
        assert (plain.sine(int(turn)), plain.cosine(int(turn))) == (sine, cosine)
    for item in case["narrow"]:
        assert plain.narrow(item["x"], item["fraction"]) == (item["activations"], item["fraction_after"])


def test_exact_operations() -> None:
    """It normalises, turns and attends alike."""

    def numbers(label: str, count: int, bits: int) -> list[int]:
        data = hashlib.shake_256(label.encode()).digest(8 * count)
        return [int.from_bytes(data[8 * i : 8 * i + 8], "big", signed=True) >> (64 - bits) for i in range(count)]

    def activations(label: str, count: int) -> list[int]:
        return [plain.clip(x, 32767) for x in numbers(label, count, 16)]

    vectors = load("exact/operations.json")
    for case in vectors["normalise"]:
        x = numbers("norm", 64, case["bits"])
        y, f = plain.norm(x, case["fraction"], activations("gain", 64), 12, case["epsilon"])
        assert (y[:4], words(y), f) == (case["first"], case["sha256"], case["fraction_after"])
    for case in vectors["turn"]:
        turns = [t % 2**64 for t in numbers("turn", 8, 64)]
        assert plain.turned(numbers("head", 16, 31), turns, halves=case["halves"]) == case["y"]
    for case in vectors["attend"]:
        count, step = case["positions"], case["spread"] + 1
        keys, values = activations("keys", 16 * count), activations("values", 16 * count)
        mixed = plain.attend(
            activations("query", 16),
            13,
            [(keys[16 * i : 16 * i + 16], 14 + i % step) for i in range(count)],
            [(values[16 * i : 16 * i + 16], 9 + 7 * i % step) for i in range(count)],
            6051102,
        )
        assert mixed == (case["mixed"], case["fraction_after"])
