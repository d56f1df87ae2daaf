"""Every dishonesty that we know how to try, by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from typing_extensions import override

from assay.apps.cheats import impostors, variants
from assay.apps.cheats.forgeries import Attest, by_another_key, inflated, inflated_prompt, one_number
from assay.apps.config import EngineName
from assay.core.encoding import MICRO
from assay.core.errors import ConfigError
from assay.core.ports import Engine
from assay.core.receipt import attest
from assay.core.request import Request, SamplerSettings
from assay.engines.answering import Answering
from assay.engines.llama_context import KvType
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_regime import Regime, probe
from assay.engines.llama_replay import LlamaReplayer
from assay.engines.llamacpp import LlamaEngine

if TYPE_CHECKING:
    from assay.engines.exact.engine import ExactEngine


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a cheat works with: the honest model, and how engines are to be built."""

    path: Path
    """The honest GGUF."""
    name: str
    digest: bytes
    scratch: Path
    """Directory for manipulated models; they are made once and found again."""
    parallel: int = 4
    context: int = 2048
    threads: int = 1
    regime: Regime = "pinned"
    kind: EngineName = "llama.cpp"
    """Which engine is built."""

    def engine(self, path: Path | None = None) -> LlamaEngine | ExactEngine:
        """An engine of this or another model, under the honest model's name."""
        if self.kind == "exact":
            from assay.apps.cheats.exact import exact_engine

            return exact_engine(self, path)
        return self.llama(path)

    def llama(
        self,
        path: Path | None = None,
        *,
        regime: Regime | None = None,
        kv_type: KvType = "f16",
        answering: type[Answering] = Answering,
    ) -> LlamaEngine:
        """The same, by llama.cpp."""
        return LlamaEngine(
            LlamaModel(path or self.path),
            name=self.name,
            digest=self.digest,
            regime=regime or self.regime,
            parallel=self.parallel,
            context=self.context,
            threads=self.threads,
            kv_type=kv_type,
            answering=answering,
        )

    def variant(self, kind: str, make: Callable[[Path, Path], object]) -> Path:
        """The manipulated copy of the model called `kind`, made by `make(source, target)` if it is not there yet."""
        target = self.scratch / f"{hashlib.sha256(self.digest + kind.encode()).hexdigest()[:16]}-{kind}.gguf"
        if not target.exists():
            self.scratch.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(f".{os.getpid()}.part")
            make(self.path, unfinished)
            unfinished.replace(target)
        return target


@dataclass(frozen=True, slots=True)
class Dishonest:
    """A provider's engine and pen, at least one of them crooked."""

    engine: Engine
    attest: Attest = attest


CaughtBy: TypeAlias = Literal["check", "promise", "ranking"]
"""What stands against a cheat. `check`: its receipts fail, whoever checks them. `promise`: the receipt alone could be
honest, and the gateway refuses it because offer, request or stream say otherwise. `ranking`: it claims a machine that
the verifier cannot recompute, so nobody is blamed, and it is asked after providers that can be checked."""


@dataclass(frozen=True, slots=True)
class Cheat:
    """One way to cheat."""

    name: str
    does: str
    """What it does, as a sentence about the provider."""
    build: Callable[[Workshop], Dishonest]
    caught_by: CaughtBy = "check"
    engines: tuple[EngineName, ...] = get_args(EngineName)
    """On which engines it can be tried."""


def make_cheat(name: str, workshop: Workshop) -> Dishonest:
    """Build the dishonest provider called `name`, or `swap:FILE`.

    Raises:
        ConfigError: no such cheat, or not on this engine.
    """
    if name.startswith("swap:"):
        return _swap(workshop, Path(name.removeprefix("swap:")))
    if name not in CHEATS:
        raise ConfigError(f"no cheat is called {name}", f"choose one of {', '.join(CHEATS)}, or swap:FILE")
    if workshop.kind not in CHEATS[name].engines:
        known = [cheat.name for cheat in CHEATS.values() if workshop.kind in cheat.engines]
        raise ConfigError(f"{name} is no cheat of the engine {workshop.kind}", f"choose one of {', '.join(known)}")
    return CHEATS[name].build(workshop)


def _swap(workshop: Workshop, path: Path) -> Dishonest:
    front = workshop.engine()
    if workshop.kind == "exact":
        work = workshop.engine(path)
    else:
        with LlamaModel(path) as model:
            regime: Regime = "free" if probe(model).refusal else workshop.regime
        work = workshop.llama(path, regime=regime)
    same = front.reader.tokenizer.pieces() == work.reader.tokenizer.pieces()
    return Dishonest((impostors.Impostor if same else impostors.Translator)(front, work))


def _weights(kind: str, make: Callable[[Path, Path], object]) -> Callable[[Workshop], Dishonest]:
    def build(workshop: Workshop) -> Dishonest:
        return Dishonest(impostors.Impostor(workshop.engine(), workshop.engine(workshop.variant(kind, make))))

    return build


def _asked(change: Callable[[Request], Request]) -> Callable[[Workshop], Dishonest]:
    def build(workshop: Workshop) -> Dishonest:
        engine = workshop.engine()
        return Dishonest(impostors.Impostor(engine, engine, request=change))

    return build


def _sampled(change: Callable[[SamplerSettings], SamplerSettings]) -> Callable[[Workshop], Dishonest]:
    """Draw with other settings but the right seed, so that only the settings are wrong."""

    class Otherwise(Answering):
        @property
        @override
        def sampler(self) -> SamplerSettings:
            return change(super().sampler)

    def build(workshop: Workshop) -> Dishonest:
        if workshop.kind == "exact":
            from assay.apps.cheats.exact import drawn_otherwise, exact_engine

            return Dishonest(exact_engine(workshop, answering=drawn_otherwise(change)))
        return Dishonest(workshop.llama(answering=Otherwise))

    return build


def _steered(workshop: Workshop) -> Dishonest:
    if workshop.kind == "exact":
        from assay.apps.cheats.exact import ExactSteered, exact_engine

        return Dishonest(exact_engine(workshop, answering=ExactSteered))
    return Dishonest(workshop.llama(answering=impostors.SteeredAnswering))


def _accumulator(workshop: Workshop) -> Dishonest:
    from assay.apps.cheats.exact import ONE_ACCUMULATOR, exact_engine

    return Dishonest(exact_engine(workshop, alter=ONE_ACCUMULATOR))


def _retouched(edit: impostors.Edit) -> Callable[[Workshop], Dishonest]:
    def build(workshop: Workshop) -> Dishonest:
        engine = workshop.engine()
        replayer = LlamaReplayer(LlamaModel(workshop.path)) if workshop.kind == "llama.cpp" else None
        return Dishonest(impostors.Retoucher(engine, engine, edit, replayer=replayer))

    return build


def _edited(workshop: Workshop) -> Dishonest:
    engine = workshop.engine()
    return Dishonest(impostors.Retoucher(engine, engine, partial(impostors.with_other_token, engine.reader.tokenizer)))


def _cheap_prefill(workshop: Workshop) -> Dishonest:
    cheap = workshop.engine(workshop.variant("fewer-layers", _fewer_layers))
    replayer = LlamaReplayer(LlamaModel(workshop.path))
    return Dishonest(impostors.Retoucher(workshop.engine(), cheap, lambda steps: steps, replayer=replayer))


def _system_prompt(workshop: Workshop) -> Dishonest:
    engine = workshop.engine()
    planted = partial(impostors.with_system_prompt, engine)
    return Dishonest(impostors.Impostor(engine, engine, prompt=lambda request, _: planted(request)))


def _truncated_prompt(workshop: Workshop) -> Dishonest:
    engine = workshop.engine()
    return Dishonest(impostors.Impostor(engine, engine, prompt=lambda _, prompt: impostors.truncated(prompt)))


def _small_context(workshop: Workshop) -> Dishonest:
    engine = workshop.engine()
    return Dishonest(impostors.ShortOfRoom(engine, engine))


def _other_isa(workshop: Workshop) -> Dishonest:
    front = workshop.engine()
    claimed = replace(front.profile, isa="neon dotprod i8mm probe:0123456789abcdef")
    work = workshop.engine(workshop.variant("fewer-layers", _fewer_layers))
    return Dishonest(impostors.Impostor(front, work, profile=claimed))


def _other_template(workshop: Workshop) -> Dishonest:
    engine = workshop.engine()
    claimed = replace(engine.profile, template="jinja/0")
    reader = impostors.Misreader(engine.reader, partial(impostors.with_system_prompt, engine))
    return Dishonest(impostors.Impostor(engine, engine, profile=claimed, reader=reader))


def _replayed(workshop: Workshop) -> Dishonest:
    engine = workshop.engine()
    return Dishonest(impostors.Replaying(engine, engine))


def _engine(*, kv_type: KvType = "f16", regime: Regime = "pinned") -> Callable[[Workshop], Dishonest]:
    def build(workshop: Workshop) -> Dishonest:
        return Dishonest(impostors.Impostor(workshop.engine(), workshop.llama(kv_type=kv_type, regime=regime)))

    return build


def _signed(pen: Attest) -> Callable[[Workshop], Dishonest]:
    return lambda workshop: Dishonest(workshop.engine(), pen)


def _fewer_layers(source: Path, target: Path) -> None:
    variants.drop_layers(source, target, (9, 13, 17, 21))


def _hotter(settings: SamplerSettings) -> SamplerSettings:
    return replace(settings, temperature=MICRO if settings.temperature < 850_000 else 300_000)


_ALL: Final = (
    Cheat("other-model", "serves a smaller model under this one's name", _weights("fewer-layers", _fewer_layers)),
    Cheat("q4_0", "serves a Q4_0 copy", _weights("q4_0", partial(variants.requantise, qtype="Q4_0"))),
    Cheat("q5_0", "serves a Q5_0 copy", _weights("q5_0", partial(variants.requantise, qtype="Q5_0"))),
    Cheat("q8_0", "serves a Q8_0 copy", _weights("q8_0", partial(variants.requantise, qtype="Q8_0"))),
    Cheat(
        "one-layer",
        "serves a copy with one layer requantised",
        _weights("one-layer", partial(variants.requantise, qtype="Q4_0", only=variants.layer(5))),
    ),
    Cheat(
        "head-only",
        "serves a copy with only the head requantised",
        _weights("head-only", partial(variants.requantise, qtype="Q4_0", only=variants.head)),
    ),
    Cheat("system-prompt", "slips a system prompt in", _system_prompt),
    Cheat("truncated-prompt", "drops the middle of the prompt", _truncated_prompt),
    Cheat("edited-token", "replaces one token of the finished answer", _edited),
    Cheat(
        "steered-token",
        "replaces one token and goes on honestly from there",
        _steered,
    ),
    Cheat("temperature", "ignores the temperature", _sampled(_hotter)),
    Cheat("top-p", "ignores top-p", _sampled(lambda settings: replace(settings, top_p=MICRO))),
    Cheat("seed", "ignores the seed", _asked(lambda request: replace(request, nonce=os.urandom(32)))),
    Cheat("early-stop", "stops early and calls it `stop`", _retouched(partial(impostors.cut, stop="stop"))),
    Cheat("early-length", "stops early and calls it `length`", _retouched(partial(impostors.cut, stop="length"))),
    Cheat(
        "cancelled-early",
        "stops early and signs that the consumer hung up",
        _retouched(partial(impostors.cut, stop="cancelled")),
        "promise",
    ),
    Cheat(
        "small-context",
        "stops early as `length` and signs a tiny context",
        _small_context,
        "promise",
    ),
    Cheat("padded", "pads the answer", _retouched(impostors.padded)),
    Cheat("inflated-counts", "bills more tokens than it delivered", _signed(inflated)),
    Cheat("inflated-prompt", "bills a longer prompt than it was sent", _signed(inflated_prompt)),
    Cheat("replayed", "sells an old answer again", _replayed),
    Cheat("cheap-prefill", "lets a cheap model write and the real one sign", _cheap_prefill, engines=("llama.cpp",)),
    Cheat("kv-q8_0", "keeps its KV cache in eight bits", _engine(kv_type="q8_0"), engines=("llama.cpp",)),
    Cheat("wrong-profile", "claims the pinned regime and runs another", _engine(regime="free"), engines=("llama.cpp",)),
    Cheat("accumulator", "alters one sum in one layer, for one token", _accumulator, engines=("exact",)),
    # Once the calibration has an entry for the pinned regime of other machines, its checks fail by themselves.
    Cheat(
        "other-isa",
        "serves a smaller model, claims another instruction set",
        _other_isa,
        "ranking",
        engines=("llama.cpp",),
    ),
    Cheat(
        "other-template",
        "slips a system prompt in, claims another template version",
        _other_template,
        "ranking",
    ),
    Cheat("equivocation", "signs two receipts under one number", _signed(one_number)),
    Cheat("other-key", "has another key sign", _signed(by_another_key)),
)

CHEATS: Final = {cheat.name: cheat for cheat in _ALL}
"""Every cheat by name; `swap:FILE` serves the GGUF in FILE under the claimed model's name and digest."""
