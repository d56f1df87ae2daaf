"""Write the golden vectors: `python -m tests.vectors.generate`. The same bytes on every machine and every run."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tests.vectors import exact_vectors

from assay.core import eip712, encoding, merkle, sampler, tree16, voucher
from assay.core.bundle import Bundle
from assay.core.completion import (
    Completion,
    Prompt,
    StopReason,
    TopLogprobs,
    output_digest,
    token_leaves,
    token_salts,
)
from assay.core.evidence import TOP_K, evidence_root, evidence_salt, logits_leaf, top_leaf
from assay.core.hashing import Tag, digest
from assay.core.keys import Key, keccak256
from assay.core.offer import Offer, Price
from assay.core.payment import Requirements
from assay.core.profile import Profile
from assay.core.receipt import DOMAIN, FIELDS, TYPE_NAME, Receipt, attest
from assay.core.record import Endpoint, ProviderRecord, Stake, sign_record, url_by_key
from assay.core.report import sign_report
from assay.core.request import LEVELS, Level, Message, Request, SamplerSettings, seeded_nonce
from assay.engines.exact import sampling
from assay.engines.exact.chunks import accumulators_root, encode_vector
from assay.engines.exact.convert import convert
from assay.engines.exact.program import program_of
from assay.engines.exact.record import RecordLayout, chunk_digests, evidence_leaves, record_root, root_of
from assay.engines.exact.tables import exp2_table, log2_table, tail_table
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import Computed, write_trace

HERE = Path(__file__).parent
KEY = Key.from_secret(hashlib.sha256(b"the key of the vectors").digest())
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
PROFILE = Profile(
    engine="vectors",
    build="1",
    regime="pinned/1",
    isa="none",
    kv_type="f16",
    flash_attention=True,
    micro_batch=32,
    threads=1,
    context=4096,
    sampler="gumbel/1",
    template="none/1",
    grammar="none",
)
EXACT_PROFILE = replace(PROFILE, build="ab" * 32, regime="exact/1", isa="any", sampler="gumbel/2")


def build() -> dict[str, str]:
    """Every vector file: path below this folder → content."""
    files: dict[str, str] = {}
    for format_ in (
        _encoding,
        _hashing,
        _merkle,
        _keys,
        _request,
        _profile,
        _completion,
        _evidence,
        _receipt,
        _voucher,
        _report,
        _record,
        _sampler,
        _tree16,
        _trace,
        _integer_sampler,
        _exact,
    ):
        for name, value in format_().items():
            files[f"{format_.__name__[1:]}/{name}.json"] = _dump(value)
    for level in LEVELS:
        files[f"bundle/{level}.json"] = _bundle(level).encode().decode()
    files["bundle/refused.json"] = _dump(_refused_bundles())
    return files


def _dump(value: Any) -> str:
    """Readable JSON: one line an item of the outermost list."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]\n"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n}\n"


def logits(label: str, count: int) -> np.ndarray:
    """Made-up logits, float32 [count]: multiples of 1/2048 within ±16 out of SHAKE-256."""
    return (np.frombuffer(hashlib.shake_256(label.encode()).digest(2 * count), ">i2") / 2048).astype(np.float32)


def log_softmax(row: np.ndarray, token: int, count: int) -> TopLogprobs:
    """Log-probabilities without numpy's exp, so that the vectors do not depend on a processor."""
    values = row.tolist()
    total = max(values) + math.log(math.fsum(math.exp(x - max(values)) for x in values))
    ids = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    return TopLogprobs(values[token] - total, tuple(ids), tuple(values[i] - total for i in ids))


def request(level: Level = "pinned", **changes: Any) -> Request:
    """A chat with something in every member."""
    whole = Request(
        model="vectors",
        kind="chat",
        messages=(
            Message("system", "Be brief."),
            Message("user", 'Ça va ? Two lines,\nand "quotes" \\ 😀 مرحبا'),
            Message(
                "assistant", "", tool_calls='[{"function":{"arguments":"{}","name":"f"},"id":"c1","type":"function"}]'
            ),
            Message("tool", "4", tool_call_id="c1", name="f"),
        ),
        prompt="",
        sampler=SamplerSettings(800_000, 40, 950_000, 20_000),
        max_tokens=12,
        stop=("END", "\n\n"),
        tools='[{"function":{"name":"f"},"type":"function"}]',
        tool_choice="auto",
        response_format="",
        level=level,
        nonce=bytes(range(32)),
        created=1_790_000_000,
    )
    return replace(whole, **changes)


def completion(asked: Request, count: int = 12, stop: StopReason = "length") -> Completion:
    """Tokens drawn from made-up logits."""
    rows = [logits(f"bundle {i}", 64) for i in range(count)]
    tokens = tuple(sampler.draw(row, asked.sampler, asked.seed, i) for i, row in enumerate(rows))
    leaves: tuple[bytes, ...] = ()
    if asked.level == "pinned":
        leaves = tuple(map(logits_leaf, rows))
    elif asked.level == "statistical":
        leaves = tuple(top_leaf(log_softmax(row, token, TOP_K)) for row, token in zip(rows, tokens, strict=True))
    elif asked.level == "exact":  # four passes over the prompt, then one over each token but the last
        passes = [*(logits(f"prompt {i}", 64) for i in range(4)), *rows[1:]]
        records = [(row * 2048).astype(np.int16).repeat(4)[None] for row in passes]
        leaves = tuple(evidence_leaves([root_of(chunk_digests(record)) for record in records], 4))
    return Completion(Prompt(b"<user>vectors", (1, 2, 3, 2**17)), tokens, "", stop, leaves)


def _attest(asked: Request, done: Completion, **changes: Any) -> Receipt:
    given = {"sequence": 7, "issued": 1_790_000_060, "amount": 123_456_789_012_345_678_901}
    given |= {"profile": PROFILE} | changes
    return attest(asked, done, model=hashlib.sha256(b"a model file").digest(), key=KEY, **given)


def _bundle(level: Level) -> Bundle:
    asked = request(level)
    done = completion(asked)
    opening = b"".join(done.leaves) if level == "statistical" else b""
    profile = EXACT_PROFILE if level == "exact" else PROFILE
    return Bundle(_attest(asked, done, profile=profile), asked, profile, done.tokens, opening)


def _encoding() -> dict[str, Any]:
    texts = [
        ' { "b" : [ ] , "a" : { } } ',
        '{"\\ud800\\udc00": 1, "\\ue000": 2, "\\u20ac": 3, "\\r": 4, "1": 5, "": 6, "A": 7, "a": 8}',
        '"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f \\"\\\\\\/\\u007f\\u0080\\u2028\\ud83d\\ude00"',
        "[0, -1, 9007199254740991, -9007199254740991, true, false, null]",
        '"\\u0041\\u00e9"',
    ]
    refused = {
        "white space": b"[1, 2]",
        "unsorted keys": b'{"b":1,"a":2}',
        "a key twice": b'{"a":1,"a":1}',
        "an escape that is not needed": b'"\\u0041"',
        "an escaped solidus": b'"\\/"',
        "upper-case hexadecimal digits": b'"\\u001F"',
        "a lone surrogate, escaped": b'"\\ud800"',
        "a lone surrogate, as bytes": b'"\xed\xa0\x80"',
        "bytes that are not UTF-8": b'"\xff"',
        "a byte-order mark": b"\xef\xbb\xbf1",
        "a fraction": b"1.0",
        "an exponent": b"1e0",
        "negative zero": b"-0",
        "a leading zero": b"01",
        "an integer over 2^53 - 1": b"9007199254740992",
        "not a number": b"NaN",
        "a newline at the end": b"1\n",
        "a trailing comma": b"[1,]",
        "65 arrays in each other": b"[" * 66 + b"]" * 66,
        "nothing": b"",
    }
    ids = [[], [0], [1, 2, 3], [2**17, 2**31, 2**32 - 1]]
    samples = [b"", b"\0", b"\xfb\xff", b"\xfb\xff\xfe", bytes(range(32))]
    return {
        "canonical": [
            {
                "json": text,
                "canonical": encoding.canonical(json.loads(text)).decode(),
                "hex": encoding.canonical(json.loads(text)).hex(),
            }
            for text in texts
        ],
        "refused": [{"why": why, "hex": data.hex()} for why, data in refused.items()],
        "base64url": {
            "pairs": [[data.hex(), encoding.b64(data)] for data in samples],
            "refused": ["AA==", "AB", "A", "+/8", "AA\n", "A A", "AA=", "ＡＡ"],
        },
        "ids": [{"ids": item, "hex": encoding.pack_ids(item).hex()} for item in ids],
    }


def _hashing() -> dict[str, Any]:
    parts = {"nothing": b"", "one byte": b"\0", "a text": b"assay"}
    return {
        "tagged": [
            {"tag": tag, "data": data.hex(), "digest": digest(tag, data).hex()}
            for tag in get_args(Tag)
            for data in parts.values()
        ]
    }


def _merkle() -> dict[str, Any]:
    contents = [b"leaf %d" % i for i in range(17)]
    leaves = [merkle.leaf(item) for item in contents]
    proofs = [(1, 0), (2, 0), (2, 1), (3, 2), (5, 4), (7, 3), (8, 5), (17, 0), (17, 16)]
    return {
        "roots": {
            "contents": [item.hex() for item in contents],
            "leaves": [item.hex() for item in leaves],
            "roots": {count: merkle.root(leaves[:count]).hex() for count in (*range(10), 16, 17)},
        },
        "proofs": [
            {
                "count": count,
                "index": index,
                "root": merkle.root(leaves[:count]).hex(),
                "leaf": leaves[index].hex(),
                "path": [item.hex() for item in merkle.prove(leaves[:count], index)],
            }
            for count, index in proofs
        ],
    }


def _keys() -> dict[str, Any]:
    keys = [Key.from_secret(number.to_bytes(32, "big")) for number in (1, 2, ORDER - 1)] + [KEY]
    digests = [keccak256(b""), keccak256(b"assay")]
    good = KEY.sign(digests[0])
    s = int.from_bytes(good[32:64], "big")
    refused = {
        "s in the upper half": good[:32] + (ORDER - s).to_bytes(32, "big") + bytes([55 - good[64]]),
        "v of 0 or 1": good[:64] + bytes([good[64] - 27]),
        "r of zero": bytes(32) + good[32:],
        "s of zero": good[:32] + bytes(32) + good[64:],
        "r of the group's order": ORDER.to_bytes(32, "big") + good[32:],
        "64 bytes": good[:64],
        "66 bytes": good + b"\0",
    }
    return {
        "signatures": [
            {
                "secret": key.secret.hex(),
                "address": key.address,
                "digest": item.hex(),
                "signature": key.sign(item).hex(),
            }
            for key in keys
            for item in digests
        ],
        "refused": [{"why": why, "digest": digests[0].hex(), "signature": item.hex()} for why, item in refused.items()],
    }


def _request() -> dict[str, Any]:
    plain = Request("m", "completion", (), "Once", SamplerSettings(), 0, (), "", "auto", "", "signed", bytes(32), 0)
    schema = encoding.canonical_text({"type": "object", "properties": {"x": {"type": "number", "minimum": 0.5}}})
    requests = [plain, request(), request("statistical", response_format=schema, tools=""), request().for_choice(2)]
    requests.append(request("exact", sampler=SamplerSettings(700_000, 40, 950_000, 2**53 - 1)))
    requests.append(request().for_choice(1).after((0, 49151, 2**32 - 1)))
    seeds = [0, 1, -1, 42, 2**63 - 1, -(2**127), 2**127 - 1]
    return {
        "requests": [
            {
                "request": item.to_json(),
                "canonical": encoding.canonical(item.to_json()).decode(),
                "digest": item.digest.hex(),
                "name": item.name.hex(),
                "call": item.call.hex(),
                "body": item.opening.body.hex(),
                "seed": item.seed.hex(),
                "rules": item.opening.rules.hex(),
            }
            for item in requests
        ],
        "nonces": [{"seed": str(seed), "nonce": seeded_nonce(seed).hex()} for seed in seeds],
    }


def _profile() -> dict[str, Any]:
    profiles = [
        PROFILE,
        replace(PROFILE, engine="vLLM", regime="free", sampler="foreign", flash_attention=False, threads=0),
    ]
    return {
        "profiles": [
            {
                "profile": item.to_json(),
                "canonical": encoding.canonical(item.to_json()).decode(),
                "digest": item.digest.hex(),
            }
            for item in profiles
        ]
    }


def _completion() -> dict[str, Any]:
    cases = [(bytes(32), "", ()), (bytes(range(32)), "<user>Ça va ?", (1, 2, 2**32 - 1))]
    return {
        "digests": [
            {
                "nonce": nonce.hex(),
                "text": text,
                "tokens": tokens,
                "prompt_text": Prompt(text.encode(), tokens).text_digest(nonce).hex(),
                "prompt_tokens": Prompt(text.encode(), tokens).token_digest(nonce).hex(),
                "output": output_digest(nonce, tokens).hex(),
            }
            for nonce, text, tokens in cases
        ],
        "tokens": [_token(*case) for case in itertools.product((1, 18), (True, False))],
    }


def _token(count: int, prompt: bool) -> dict[str, Any]:
    """The last token but one of so many, or the only one, opened."""
    nonce, tokens, index = bytes(range(32)), tuple(1000 * i for i in range(count)), max(0, count - 2)
    salts = token_salts("assay/prompt-tokens/2" if prompt else "assay/output/2", nonce, count)
    leaves = token_leaves(salts, tokens)
    return {
        "nonce": nonce.hex(),
        "tokens": tokens,
        "of": "prompt" if prompt else "output",
        "root": (Prompt(b"", tokens).token_digest(nonce) if prompt else output_digest(nonce, tokens)).hex(),
        "index": index,
        "salt": salts[index].hex(),
        "leaf": leaves[index].hex(),
        "path": [item.hex() for item in tree16.prove(leaves, index)],
    }


def _evidence() -> dict[str, Any]:
    rows = [np.array([0.0], np.float32), np.array([-0.0], np.float32), logits("evidence", 5)]
    tops = [
        TopLogprobs(-0.5, (7, 300), (-0.25, -3.0)),
        TopLogprobs(-math.inf, (1,), (0.0,)),
        log_softmax(logits("evidence", 50), 3, TOP_K),
    ]
    leaves = [[], [b""], [logits_leaf(row) for row in rows], [top_leaf(top) for top in tops]]
    nonce = bytes(range(32))
    return {
        "pinned": [{"logits": row.astype("<f4").tobytes().hex(), "leaf": logits_leaf(row).hex()} for row in rows],
        "statistical": [
            {
                "chosen": _word(top.chosen),
                "ids": top.ids,
                "logprobs": [*map(_word, top.logprobs)],
                "leaf": top_leaf(top).hex(),
            }
            for top in tops
        ],
        "roots": [
            {
                "nonce": nonce.hex(),
                "leaves": [leaf.hex() for leaf in item],
                "salt": evidence_salt(nonce).hex(),
                "evidence": evidence_root(item, nonce).hex(),
            }
            for item in leaves
        ],
    }


def _word(x: float) -> float | Literal["-inf"]:
    return x if math.isfinite(x) else "-inf"


def _voucher() -> dict[str, Any]:
    contract, token = "0x" + "c4" * 20, "0x" + "70" * 20
    domain = voucher.channels_domain(31_337, contract)
    receiver = Key.from_secret(hashlib.sha256(b"the receiver of the vectors").digest()).address
    items = []
    for delay, salt, amount in (
        (900, bytes(32), 0),
        (86_400, bytes(range(32)), 10**18),
        (2_592_000, b"\xff" * 32, 2**128 - 1),
    ):
        terms = voucher.Terms(KEY.address, KEY.address, receiver, receiver, token, delay, salt)
        channel = terms.channel(domain)
        signed = voucher.sign_voucher(KEY, domain, channel, amount)
        items.append(
            {
                "terms": [each.hex() if isinstance(each, bytes) else each for each in terms.values()],
                "channel": channel.hex(),
                "digest": voucher.voucher_digest(domain, channel, amount).hex(),
                "canonical": encoding.canonical(signed.to_json()).decode(),
            }
        )
    return {
        "vouchers": {
            "domain": {"chain_id": 31_337, "contract": contract, "separator": domain.hex()},
            "secret": KEY.secret.hex(),
            "items": items,
        }
    }


def _receipt() -> dict[str, Any]:
    receipts = []
    for level, stop, amount in (
        ("signed", "stop", 0),
        ("statistical", "cancelled", 2**128 - 1),
        ("pinned", "failed", 1),
    ):
        asked = request(level)
        receipts.append(_attest(asked, completion(asked, 3, stop), amount=amount))
    asked = request()
    receipts.append(_attest(asked, completion(asked, 0, "cancelled"), channel=b"\xcc" * 32, sequence=2**53 - 1))
    return {
        "struct": {
            "type": f"{TYPE_NAME}({','.join(f'{kind} {name}' for name, kind in FIELDS)})",
            "type_hash": eip712.type_hash(TYPE_NAME, FIELDS).hex(),
            "domain": {"name": "Assay", "version": "1"},
            "domain_separator": DOMAIN.hex(),
        },
        "receipts": [
            {
                "secret": KEY.secret.hex(),
                "canonical": receipt.encode().decode(),
                "digest": receipt.digest.hex(),
                "signature": receipt.signature.hex(),
            }
            for receipt in receipts
        ],
    }


def _refused_bundles() -> list[dict[str, str]]:
    """Edits of the files beside it: each text stands there once; `by` is who refuses, and at which field."""
    edits: list[tuple[Level, str, str, str, str]] = [
        ("signed", "cut short", "}\n", "}", "EncodingError"),
        ("signed", "a blank", '"v":1', '"v": 1', "EncodingError"),
        ("signed", "a later version", '"v":1', '"v":2', "EncodingError"),
        ("signed", "another level", '"level":"signed","model":', '"level":"pinned","model":', "InvalidSignature"),
        ("signed", "another stop reason", '"stop":"length"', '"stop":"stop"', "InvalidSignature"),
        ("signed", "another amount", '"123456789012345678901"', '"123456789012345678902"', "InvalidSignature"),
        ("pinned", "another word in the request", "Be brief.", "Be brief!", "BindingMismatch request"),
        ("pinned", "another temperature", '"temperature":800000', '"temperature":900000', "BindingMismatch request"),
        ("pinned", "another number of threads", '"threads":1', '"threads":2', "BindingMismatch profile"),
        ("pinned", "an opening where none belongs", '"opening":""', '"opening":"AAAA"', "BindingMismatch opening"),
    ]
    for level, why, tokens, by in (
        ("pinned", "three tokens more", (*_bundle("pinned").tokens, 1, 2, 3), "BindingMismatch count"),
        ("pinned", "another last token", (*_bundle("pinned").tokens[:-1], 1), "BindingMismatch output"),
        ("statistical", "the last token left out", _bundle("statistical").tokens[:-1], "BindingMismatch count"),
    ):
        old = encoding.b64(encoding.pack_ids(_bundle(level).tokens))
        edits.append((level, why, f'"tokens":"{old}"', f'"tokens":"{encoding.b64(encoding.pack_ids(tokens))}"', by))
    return [
        {"file": f"{level}.json", "why": why, "replace": old, "with": new, "by": by}
        for level, why, old, new, by in edits
    ]


def _record() -> dict[str, Any]:
    """Records of providers: one with something in every member, and the least one."""
    other = "0x" + "c4" * 20
    paid = Requirements(31_337, other, other, other, KEY.address, 86_400, 10**20)
    offers = tuple(
        Offer(
            KEY.address,
            url_by_key(KEY.address),
            "vectors",
            hashlib.sha256(b"model").digest(),
            level,
            Price(5, 2**96),
            4096,
            True,
            False,
            PROFILE.digest,
            "gumbel/1",
            paid,
            region="eu-west",
        )
        for level in LEVELS[:2]
    )
    least = ProviderRecord(KEY.address, 0, 0, 1, (), (), 0)
    full = ProviderRecord(
        provider=KEY.address,
        sequence=1_790_000_000_000,
        issued=1_790_000_000,
        expires=1_790_086_400,
        endpoints=(Endpoint("https", "node.example:443"), Endpoint("http", "[2001:db8::1]:8100")),
        offers=offers,
        parallel=4,
        region="eu-west",
        stake=Stake(31_337, other),
        tls=hashlib.sha256(b"certificate").digest(),
    )
    signed = [sign_record(record, KEY) for record in (least, full)]
    items = [{"digest": each.digest.hex(), "canonical": each.encode().decode()} for each in signed]
    return {"records": {"secret": KEY.secret.hex(), "items": items}}


def _report() -> dict[str, Any]:
    asked = request()
    receipt = _attest(asked, completion(asked, 3))
    reporter = Key.from_secret(hashlib.sha256(b"the key of a reporter").digest())
    signed = [sign_report(receipt, reporter, good=good) for good in (True, False)]
    items = [{"digest": each.digest.hex(), "canonical": each.encode().decode()} for each in signed]
    return {"reports": {"secret": reporter.secret.hex(), "items": items}}


def _sampler() -> dict[str, Any]:
    seed = hashlib.sha256(b"a seed").digest()
    ids = np.array([0, 1, 2, 7, 49_151, 151_935, 2**31 - 1])
    deficits = [0.0, 2.0**-40, 0.5, 0.6931471805599453, 1.0, 3.0, 10.0, 26.9, 27.0]
    rows = {"small": logits("draws", 24), "ties": np.array([1, 3, 3, 0, 3, -2], dtype=np.float32)}
    settings = [
        SamplerSettings(0),
        SamplerSettings(),
        SamplerSettings(3_000_000),
        SamplerSettings(5_000_000, top_k=3),
        SamplerSettings(5_000_000, top_p=700_000),
        SamplerSettings(5_000_000, min_p=200_000),
        SamplerSettings(7_000_000, 10, 900_000, 50_000),
    ]
    extremes = np.array([0, 1, 2**31, 4_086_000_000, 2**32 - 1], dtype=np.uint64)
    return {
        "noise": {
            "seed": seed.hex(),
            "positions": [
                {
                    "position": position,
                    "key": f"{sampler.position_key(seed, position):016x}",
                    "tokens": _noise(seed, position, ids),
                }
                for position in (0, 1, 2**32)
            ],
            "hashes": [[int(h), x.hex()] for h, x in zip(extremes, sampler._noise(extremes).tolist(), strict=True)],
        },
        "weights": [
            {"deficit": x.hex(), "weight": int(w)}
            for x, w in zip(deficits, sampler._weights(np.array(deficits)).tolist(), strict=True)
        ],
        "draws": {
            "seed": seed.hex(),
            "rows": {name: row.tolist() for name, row in rows.items()},
            "draws": [
                _draws(name, row, item, seed, allowed)
                for name, row in rows.items()
                for item in settings
                for allowed in (None, [0, 2, 3, 4])
            ],
        },
    }


def _noise(seed: bytes, position: int, ids: np.ndarray) -> list[dict[str, Any]]:
    hashes = sampler.hashes_at(seed, position, ids)
    noise = sampler._noise(hashes).tolist()
    return [{"token": int(i), "hash": int(h), "noise": x.hex()} for i, h, x in zip(ids, hashes, noise, strict=True)]


def _draws(
    name: str, row: np.ndarray, item: SamplerSettings, seed: bytes, allowed: Sequence[int] | None
) -> dict[str, Any]:
    mask = None if allowed is None else np.isin(np.arange(row.size), allowed)
    tokens = [sampler.draw(row, item, seed, position, mask) for position in range(16)]
    gaps = [sampler.redraw(row, item, seed, 0, token, mask).gap for token in range(6)]
    return {
        "row": name,
        "settings": item.to_json(),
        "allowed": allowed,
        "tokens": tokens,
        "gaps": [gap.hex() if math.isfinite(gap) else "inf" for gap in gaps],
    }


def _tree16() -> dict[str, Any]:
    leaves = [hashlib.sha256(b"leaf %d" % i).digest() for i in range(273)]
    proofs = [(1, 0), (2, 1), (16, 5), (17, 0), (17, 16), (273, 272)]
    return {
        "roots": {
            "leaf": hashlib.sha256(b"leaf 0").hexdigest(),
            "roots": {
                count: tree16.root(leaves[:count]).hex() for count in (0, 1, 2, 15, 16, 17, 32, 33, 255, 256, 257, 273)
            },
        },
        "proofs": [
            {
                "count": count,
                "index": index,
                "root": tree16.root(leaves[:count]).hex(),
                "leaf": leaves[index].hex(),
                "path": [item.hex() for item in tree16.prove(leaves[:count], index)],
            }
            for count, index in proofs
        ],
    }


def accumulators(label: str, count: int, bits: int) -> np.ndarray:
    """Made-up accumulators, int64 [count]: the upper `bits` bits of words out of SHAKE-256, with their sign."""
    return np.frombuffer(hashlib.shake_256(label.encode()).digest(8 * count), ">i8").astype(np.int64) >> (64 - bits)


def _trace() -> dict[str, Any]:
    edges = {31: 4, 32: 4, 33: 5, 40: 5, 41: 6, 48: 6, 49: 8, 64: 8}
    chunks = {bits: np.array([0, (1 << (bits - 1)) - 1, -(1 << (bits - 1)), *[-1] * 253], np.int64) for bits in edges}
    nonce, layout = bytes(range(32)), RecordLayout(layers=1, width=8, heads=2, kv_heads=1, head_width=4, feed=300)
    passes = [
        Computed(
            accumulators(f"record {i}", 256 * layout.chunks, 16).astype(np.int16),
            accumulators(f"body {i}", 768, 30),
            accumulators(f"head {i}", 16, 38) if i else None,
        )
        for i in range(3)
    ]
    roots = [record_root(layout, item.record) for item in passes]
    streams: dict[str, dict[str, Any]] = {}
    for public in (False, True):
        header = TraceHeader(evidence_root(evidence_leaves(roots, 2), nonce), 2, 2, layout, 768, 16, public)
        plan = header.plan([1, 2])
        whole = [
            accumulators_root(encode_vector(item.body), None if item.head is None else encode_vector(item.head))
            for item in passes[1:]
        ]
        stream = b"".join(write_trace(header, roots, plan, passes.__getitem__, accumulators=whole if public else ()))
        streams["public" if public else "secret"] = {
            "nonce": nonce.hex(),
            "header": header.encode().decode(),
            "roots": [root.hex() for root in roots],
            "accumulators": [root.hex() for root in whole] if public else [],
            "plan": [list(planned) for planned in plan],
            "bytes": len(stream),
            "sha256": hashlib.sha256(stream).hexdigest(),
            "stream": "" if public else stream.hex(),
        }
    return {
        "chunks": [
            {
                "first": chunk[:3].tolist(),
                "width": edges[bits],
                "sha256": hashlib.sha256(encode_vector(chunk).data.tobytes()).hexdigest(),
            }
            for bits, chunk in chunks.items()
        ],
        "streams": streams,
    }


def _integer_sampler() -> dict[str, Any]:
    seed = hashlib.sha256(b"a seed").digest()
    tables = {"exp2": exp2_table(), "log2": log2_table(), "tail": tail_table()}
    hashes = [0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**31 + 2**22, 4_086_000_000, 2**32 - 2**12, 2**32 - 2, 2**32 - 1]
    deficits = [0, 1, 2**14 - 1, 2**14, 2**23, 2**24, 39 * 2**24 + 2**24 - 1, 40 * 2**24, 40 * 2**24 + 1, 2**61]
    rows = {
        "small": (logits("draws", 24) * 65536).astype(np.int32),
        "ties": np.array([1, 3, 3, 0, 3, -2], dtype=np.int32) << 16,
        "widest": np.array([-(2**31) + 1, 0, 2**31 - 1, 2**31 - 2, 1, -1], dtype=np.int32),
    }
    settings = [
        SamplerSettings(0),
        SamplerSettings(1),
        SamplerSettings(),
        SamplerSettings(5_000_000, top_k=3),
        SamplerSettings(5_000_000, top_p=700_000),
        SamplerSettings(5_000_000, min_p=200_000),
        SamplerSettings(7_000_000, 10, 900_000, 50_000),
        SamplerSettings(2**53 - 1),
    ]
    return {
        "tables": {
            name: {
                "entries": table.size,
                "sha256": hashlib.sha256(table.astype("<i4").tobytes()).hexdigest(),
                "some": {str(i): int(table[i]) for i in (0, 1, 2, 300, table.size - 1)},
            }
            for name, table in tables.items()
        },
        "rates": [
            {
                "temperature": t,
                "multiplier": sampling.rate(t)[0],
                "shift": sampling.rate(t)[1],
                "deficits": [[x, int(sampling.deficits(np.array([x]), t)[0])] for x in (0, 1, 65_536, 2**32 - 2)],
            }
            for t in (1, 3, 700_000, 1_000_000, 1_000_001, 100_000_000, 2**53 - 1)
        ],
        "weights": [[d, w] for d, w in zip(deficits, sampling.weights(np.array(deficits)).tolist(), strict=True)],
        "noise": [[h, x] for h, x in zip(hashes, sampling.noise(np.array(hashes, np.uint64)).tolist(), strict=True)],
        "draws": {
            "seed": seed.hex(),
            "rows": {name: row.tolist() for name, row in rows.items()},
            "draws": [
                _integer_draws(name, row, item, seed, allowed)
                for name, row in rows.items()
                for item in settings
                for allowed in (None, [0, 2, 3, 4])
            ],
        },
    }


def _exact() -> dict[str, Any]:
    return exact_vectors.build()


def build_real(model: Path) -> str:
    """The file that needs SmolLM2-135M's GGUF, `exact_vectors.REAL`."""
    return _dump(exact_vectors.real(program_of(convert(model))))


def _integer_draws(
    name: str, row: np.ndarray, item: SamplerSettings, seed: bytes, allowed: Sequence[int] | None
) -> dict[str, Any]:
    mask = None if allowed is None else np.isin(np.arange(row.size), allowed)
    tokens = [sampling.draw(row, item, seed, position, mask) for position in range(16)]
    return {"row": name, "settings": item.to_json(), "allowed": allowed, "tokens": tokens}


if __name__ == "__main__":
    from assay.apps.config import home
    from assay.engines.models import pull

    for path, content in build().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(content, encoding="utf-8", newline="\n")
    real = build_real(pull("smollm2-135m", home()).path)
    (HERE / exact_vectors.REAL).write_text(real, encoding="utf-8", newline="\n")
