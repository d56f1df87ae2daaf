"""The proofs that pages recompute, in a real browser: the protocol's vectors, and files that were changed."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from tests.apps.window.browser import opened, staged
from tests.core.test_mutations import BUNDLES, BYTES, alternatives, leaves, replaced
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core.bundle import Bundle
from assay.core.chain import check_chain
from assay.core.encoding import canonical
from assay.core.errors import AssayError, BindingMismatch, EncodingError, InvalidSignature
from assay.core.receipt import sign
from assay.core.request import LEVELS
from assay.verify.binding import check_offline

VECTORS = Path(__file__).parents[2] / "vectors"
MODULES = [path.name.removesuffix(".js") for path in (files("assay.apps.window") / "static" / "proof").iterdir()]
LOAD = """async (names) => {
  const base = document.querySelector("script[src$='/receipt.js']").src.replace("receipt.js", "proof/");
  const modules = await Promise.all(names.map((name) => import(`${base}${name}.js`)));
  window.proof = Object.assign({}, ...modules);
  window.raw = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  const fields = { regime: "level", limit: "count", context: "count" };
  window.outcome = (data) => {
    try {
      const failing = window.proof.checkBundle(window.proof.decodeBundle(data)).find((check) => !check.holds);
      if (!failing) return "holds";
      if (failing.name === "signature") return "InvalidSignature";
      return `BindingMismatch ${fields[failing.name] ?? failing.name}`;
    } catch (error) {
      if (error instanceof window.proof.Refused) return "EncodingError";
      throw error;
    }
  };
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page that has loaded the modules as `proof`."""
    with staged(tmp_path_factory.mktemp("stage")) as stage, opened(browser, stage.url) as found:
        found.goto("/receipt")
        found.evaluate(LOAD, MODULES)
        yield found


def load(path: str) -> Any:
    """A vector file's content."""
    return json.loads((VECTORS / path).read_text(encoding="utf-8"))


def outcome(data: bytes) -> str:
    """What the Python code makes of a file, in the words of `refused.json`."""
    try:
        check_offline(Bundle.decode(data))
    except EncodingError:
        return "EncodingError"
    except InvalidSignature:
        return "InvalidSignature"
    except BindingMismatch as error:
        return f"BindingMismatch {error.field}"
    return "holds"


def outcomes(page: Page, tried: list[bytes]) -> list[str]:
    """What the page makes of files."""
    spelled = [base64.b64encode(data).decode() for data in tried]
    return page.evaluate("(files) => files.map((file) => window.outcome(window.raw(file)))", spelled)


def test_encoding(page: Page) -> None:
    """One spelling of each value is read, and every other one is refused; the same of base64url and token ids."""
    good, bad = load("encoding/canonical.json"), load("encoding/refused.json")
    spelled = page.evaluate(
        "(cases) => cases.map((each) => proof.canonical(proof.parseCanonical(proof.unhex(each.hex))))", good
    )
    assert spelled == [case["canonical"] for case in good]
    refused = """(cases) => cases.map(({ hex }) => {
      try { proof.parseCanonical(proof.unhex(hex)); } catch (error) { return error instanceof proof.Refused; }
      return false;
    })"""
    assert page.evaluate(refused, bad) == [True] * len(bad)
    texts = load("encoding/base64url.json")
    assert page.evaluate("(pairs) => pairs.map(([hex]) => proof.b64(proof.unhex(hex)))", texts["pairs"]) == [
        text for _, text in texts["pairs"]
    ]
    assert page.evaluate(
        "(pairs) => pairs.map(([, text]) => proof.hex(proof.unb64(text, null, '')))", texts["pairs"]
    ) == [digits for digits, _ in texts["pairs"]]
    lenient = """(texts) => texts.map((text) => {
      try { proof.unb64(text, null, ""); } catch (error) { return error instanceof proof.Refused; }
      return false;
    })"""
    assert page.evaluate(lenient, texts["refused"]) == [True] * len(texts["refused"])
    ids = load("encoding/ids.json")
    read = page.evaluate("(cases) => cases.map(({ hex }) => proof.unpackIds(proof.unhex(hex), ''))", ids)
    assert read == [case["ids"] for case in ids]


def test_bounds(page: Page) -> None:
    """Values, nesting and sizes beyond what is read are refused with a reason, before they are parsed."""
    tried = """(text) => {
      try { proof.parseCanonical(proof.utf8(text)); } catch (error) { return error.code; }
      return "read";
    }"""
    assert page.evaluate(tried, f"[{','.join(['0'] * 2**18)}]") == "read"
    assert page.evaluate(tried, f"[{','.join(['0'] * (2**18 + 1))}]") == "many"
    assert page.evaluate(tried, "[" * 65 + "]" * 65) == "read"
    assert page.evaluate(tried, "[" * 66 + "]" * 66) == "deep"
    assert page.evaluate(tried, "[" * 1_000_000) == "deep"
    assert page.evaluate(tried, '"' + "[" * 100_000 + '"') == "read"
    large = "(size) => { try { proof.decodeFile(new Uint8Array(size)); } catch (error) { return error.code; } }"
    assert page.evaluate(large, 32 * 2**20 + 1) == "large"


def test_hashes(page: Page) -> None:
    """Tagged digests and both kinds of trees."""
    tagged = load("hashing/tagged.json")
    found = page.evaluate(
        "(all) => all.map((each) => proof.hex(proof.digest(each.tag, proof.unhex(each.data))))", tagged
    )
    assert found == [case["digest"] for case in tagged]
    merkle = load("merkle/roots.json")
    root = """({ contents, count }) => proof.hex(proof.merkleRoot(
      contents.slice(0, count).map((each) => proof.digest("assay/merkle-leaf/1", proof.unhex(each)))))"""
    for count, expected in merkle["roots"].items():
        assert page.evaluate(root, {"contents": merkle["contents"], "count": int(count)}) == expected
    fan = load("tree16/roots.json")
    counts = [int(count) for count in fan["roots"]]
    items = [hashlib.sha256(b"leaf %d" % i).hexdigest() for i in range(max(counts))]
    made = "([all, counts]) => counts.map((n) => proof.hex(proof.fanRoot(all.slice(0, n).map(proof.unhex))))"
    roots = page.evaluate(made, [items, counts])
    assert roots == [fan["roots"][str(count)] for count in counts]


def test_completions_and_evidence(page: Page) -> None:
    """Digests of tokens, leaves of evidence and roots over them."""
    for case in load("completion/digests.json"):
        made = page.evaluate(
            """({ nonce, tokens }) => ["assay/prompt-tokens/2", "assay/output/2"].map((tag) =>
              proof.hex(proof.tokensRoot(tag, proof.unhex(nonce), tokens)))""",
            case,
        )
        assert made == [case["prompt_tokens"], case["output"]]
    for case in load("completion/tokens.json"):
        tag = "assay/prompt-tokens/2" if case["of"] == "prompt" else "assay/output/2"
        made = page.evaluate(
            "([tag, each]) => proof.hex(proof.tokensRoot(tag, proof.unhex(each.nonce), each.tokens))", [tag, case]
        )
        assert made == case["root"]
    for case in load("evidence/roots.json"):
        made = page.evaluate(
            """({ nonce, leaves }) => [proof.evidenceSalt(proof.unhex(nonce)),
              proof.evidenceRoot(leaves.map(proof.unhex), proof.unhex(nonce))].map(proof.hex)""",
            case,
        )
        assert made == [case["salt"], case["evidence"]]


def test_requests_and_profiles(page: Page) -> None:
    """Canonical texts, digests, and the names under which receipts are kept."""
    for case in load("request/requests.json"):
        made = page.evaluate(
            """({ request }) => {
              const { body, seed, rules } = proof.requestOpening(proof.readRequest(request, "request"));
              const named = [proof.requestDigest, proof.requestName, proof.callName].map((each) => each(request));
              return [proof.canonical(request), ...[...named, body, seed, rules].map(proof.hex)];
            }""",
            case,
        )
        assert made == [case[name] for name in ("canonical", "digest", "name", "call", "body", "seed", "rules")]
    for case in load("profile/profiles.json"):
        made = page.evaluate(
            """({ profile }) => [proof.canonical(proof.readProfile(profile, "profile")),
              proof.hex(proof.profileDigest(profile))]""",
            case,
        )
        assert made == [case["canonical"], case["digest"]]


def test_receipts_and_keys(page: Page) -> None:
    """The struct that is signed, digests of receipts, and who signed; malformed signatures are nobody's."""
    struct = load("receipt/struct.json")
    assert page.evaluate("() => [proof.TYPE, proof.hex(proof.TYPE_HASH), proof.hex(proof.DOMAIN)]") == [
        struct["type"],
        struct["type_hash"],
        struct["domain_separator"],
    ]
    for case in load("receipt/receipts.json"):
        made = page.evaluate(
            """({ canonical }) => {
              const receipt = proof.readReceipt(proof.parseCanonical(proof.utf8(canonical)), "receipt");
              return [proof.hex(proof.receiptDigest(receipt)), proof.signerOf(receipt)];
            }""",
            case,
        )
        assert made == [case["digest"], json.loads(case["canonical"])["provider"]]
    recovered = "({ digest, signature }) => proof.recover(proof.unhex(digest), proof.unhex(signature))"
    for case in load("keys/signatures.json"):
        assert page.evaluate(recovered, case) == case["address"]
    for case in load("keys/refused.json"):
        assert page.evaluate(recovered, case) is None, case["why"]


def test_bundles(page: Page) -> None:
    """Whole files hold, and every edit is refused for the reason that the vectors name."""
    whole = [(VECTORS / "bundle" / f"{level}.json").read_bytes() for level in LEVELS]
    assert outcomes(page, whole) == ["holds"] * len(whole)
    edits = load("bundle/refused.json")
    edited = [
        (VECTORS / "bundle" / edit["file"]).read_text(encoding="utf-8").replace(edit["replace"], edit["with"]).encode()
        for edit in edits
    ]
    assert outcomes(page, edited) == [edit["by"] for edit in edits]


@pytest.mark.parametrize("level", LEVELS)
def test_the_page_and_python_agree_on_changed_files(page: Page, level: Any) -> None:
    """Of a receipt at each level, 200 changed bytes at random places and many stranger changes: none holds, and what is
    refused is refused for the same reason."""
    rng, bundle = random.Random(f"browser {level}"), BUNDLES[level]
    data = bundle.encode()
    tried = [data]
    while len(tried) <= 200:
        at = rng.randrange(len(data))
        other = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        tried += [other] * (other != data)
    for mutate in BYTES.values():
        tried += [other for other in (mutate(rng, data) for _ in range(12)) if other != data]
    good = json.loads(data)
    for path, value in leaves(good):
        for item in rng.sample(alternatives(value, rng), 4):
            try:
                other = canonical(replaced(good, path, item)) + b"\n"
            except EncodingError:  # a dictionary whose keys are no strings any more
                continue
            tried += [other] * (other != data)
    expected = [outcome(file) for file in tried]
    found = outcomes(page, tried)
    assert found[0] == "holds"
    assert "holds" not in found[1:]
    wrong = [(mine, theirs, file) for mine, theirs, file in zip(expected, found, tried, strict=True) if mine != theirs]
    assert not wrong, wrong[:3]
    assert len(Counter(found)) > 4


def one_off(value: str) -> str:
    """Another character in the middle."""
    at = len(value) // 2
    return value[:at] + ("b" if value[at] == "a" else "a") + value[at + 1 :]


@pytest.mark.parametrize("name", ["model", "prompt_count", "sequence", "issued", "provider", "signature", "channel"])
def test_one_changed_character_is_found_where_nobody_keeps_the_file(page: Page, name: str) -> None:
    """Without anything but the file: the field is named, and its value found."""
    good = json.loads((VECTORS / "bundle" / "pinned.json").read_bytes())
    was = good["receipt"][name]
    good["receipt"][name] = was + 1 if isinstance(was, int) else one_off(was)
    found = page.evaluate("(value) => proof.diagnose(proof.bundleOf(value))", good)
    assert found["how"] in ("character", "follows")
    assert [(each["field"], each["was"]) for each in found["fields"]] == [(f"receipt.{name}", was)]


def test_what_nobody_can_tell_is_not_told(page: Page) -> None:
    """Several characters of one member changed, or two members: no field is blamed, and those that fit the rest are
    said to."""
    value = json.loads((VECTORS / "bundle" / "signed.json").read_bytes())
    search = "(value) => proof.diagnose(proof.bundleOf(value), { signal: AbortSignal.timeout(300) })"
    for changes in ({"amount": "7"}, {"amount": "7", "model": value["receipt"]["output"]}):
        found = page.evaluate(search, value | {"receipt": value["receipt"] | changes})
        assert (found["how"], found["fields"]) == ("unknown", [])
        assert {"request", "profile", "output", "output_count", "level", "evidence"} == set(found["confirmed"])


def test_who_signs_a_contradiction_is_named(page: Page) -> None:
    """A provider that signs another level than the one asked for: nothing was changed since."""
    bundle = BUNDLES["pinned"]
    signed = replace(bundle, receipt=sign(replace(bundle.receipt, level="exact"), tiny_key()))
    assert outcome(signed.encode()) == "BindingMismatch level"
    found = page.evaluate("(value) => proof.diagnose(proof.bundleOf(value))", json.loads(signed.encode()))
    assert found["how"] == "contradiction"
    assert "level" in [each["field"] for each in found["fields"]]


def test_parts_of_an_answer(page: Page) -> None:
    """A part goes on where the one before broke off, or does not, as Python says."""
    whole = tiny_request(max_tokens=12)
    first = tiny_bundle(whole, tiny_key(1), 1)
    cut = first.tokens[:5]
    second = tiny_bundle(whole.after(cut), tiny_key(2), 2)
    stranger = tiny_bundle(whole.after((1, 2, 3)), tiny_key(2), 3)
    linked = """(files) => {
      const bundles = files.map((file) => proof.decodeBundle(proof.utf8(file)));
      return bundles.map((bundle) => proof.goesOn(bundle, bundles));
    }"""
    for other in (second, stranger):
        parts = [sign_as(first, "failed"), other]
        try:
            check_chain(parts)
            expected = True
        except AssayError:
            expected = False
        assert page.evaluate(linked, [part.encode().decode() for part in parts]) == [None, expected]
    assert page.evaluate(linked, [second.encode().decode()]) == [None]


def sign_as(bundle: Bundle, stop: Any) -> Bundle:
    """The bundle with another stop reason, signed by its provider."""
    return replace(bundle, receipt=sign(replace(bundle.receipt, stop=stop), tiny_key(1)))


_OWN = """async ([trace, digest, provider]) => {
  const path = document.querySelector("script[src$='/receipt.js']").src.replace("receipt.js", "receipt-trace.js");
  const { marksOf, ownMarks } = await import(path);
  return ownMarks(marksOf([trace], digest), digest, provider).map(({ stage, at }) => `${stage} ${at}`);
}"""


def test_times_are_those_of_the_receipts_own_part(page: Page) -> None:
    """Where one provider was asked beside another one, or went on after it, each has its own moments."""

    def mark(stage: str, at: int, provider: str = "", note: str = "") -> dict[str, Any]:
        return {"stage": stage, "at_us": at, "note": note, "facts": {"provider": provider} if provider else {}}

    trace = [
        mark("match", 1), mark("send", 2, "a"), mark("send", 3, "b"), mark("first_token", 4, "a"),
        mark("failed", 5, "b"), mark("match", 6), mark("send", 7, "c"), mark("first_token", 8, "c"),
        mark("last_token", 9), mark("attest", 10, note="one"), mark("check", 11),
        mark("attest", 12, note="two"), mark("check", 13),
    ]  # fmt: skip
    first = page.evaluate(_OWN, [trace, "one", "a"])
    assert first == ["match 1", "send 2", "first_token 4", "failed 5", "attest 10", "check 11", "check 13"]
    second = page.evaluate(_OWN, [trace, "two", "c"])
    assert second == ["failed 5", "match 6", "send 7", "first_token 8", "attest 12", "check 13"]
