"""A profile: the engine and everything that changes the numbers it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, TypeAlias, get_args

from assay.core.encoding import Json, canonical
from assay.core.errors import EncodingError
from assay.core.hashing import Digest, digest
from assay.core.request import natural, text

SamplerKind: TypeAlias = Literal["gumbel/1", "gumbel/2", "foreign"]
"""`gumbel/1`: the seeded sampler of `core/sampler.py`. `gumbel/2`: the same in whole numbers, of whole-number logits
(`engines/exact/sampling.py`). `foreign`: a server's own, which only its statistics check."""
SAMPLERS: Final[tuple[SamplerKind, ...]] = get_args(SamplerKind)
MOST_BYTES: Final = 1800
"""Of a profile's canonical form: what a contract can be shown in a dispute (`chain/game.exhibit`)."""
EXACT_REGIME: Final = "exact/1"
"""The regime of profiles at level `exact`: the version of the integer semantics (docs/exact.md)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Published with every receipt; two runs under one pinned profile give equal logits, bit for bit."""

    engine: str
    """`llama.cpp`, `assay` (the exact engine), or the kind of foreign server."""
    build: str
    """The engine's build, or what stands for it (see `regime`)."""
    regime: str
    """`pinned/1`: llama.cpp's bit-exact regime. `exact/1`: whole numbers, equal on every machine; `build` is then the
    root over the integer model, in hexadecimal. `free`: any other configuration."""
    isa: str
    """Instruction-set features that the kernels use, and where bits must agree a digest of a probe's numbers."""
    kv_type: str
    """Element type of the KV cache."""
    flash_attention: bool
    micro_batch: int
    """Most positions in one pass."""
    threads: int
    """Threads that compute one pass; 0 where the numbers do not depend on it."""
    context: int
    """Positions that one sequence may have."""
    sampler: SamplerKind
    template: str
    """Version of the chat-template renderer."""
    grammar: str
    """Library and version behind JSON and tool masks."""

    @property
    def digest(self) -> Digest:
        """The digest that the receipt carries."""
        return digest("assay/profile/1", canonical(self.to_json()))

    def to_json(self) -> dict[str, Json]:
        """Canonical form."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, value: Json) -> Profile:
        """Inverse of `to_json`.

        Raises:
            EncodingError: a member is missing, unknown or of another type, or all are too long.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(value, Mapping) or set(value) != names:
            raise EncodingError(f"a profile has exactly the members {', '.join(sorted(names))}")
        sampler, flash_attention = value["sampler"], value["flash_attention"]
        if sampler not in SAMPLERS:
            raise EncodingError("the profile's sampler is unknown")
        if not isinstance(flash_attention, bool):
            raise EncodingError("the profile's flash_attention is neither true nor false")
        if len(canonical(value)) > MOST_BYTES:
            raise EncodingError(f"a profile has at most {MOST_BYTES} bytes")
        return cls(
            engine=text(value["engine"], "engine"),
            build=text(value["build"], "build"),
            regime=text(value["regime"], "regime"),
            isa=text(value["isa"], "isa"),
            kv_type=text(value["kv_type"], "kv_type"),
            flash_attention=flash_attention,
            micro_batch=natural(value["micro_batch"], "micro_batch"),
            threads=natural(value["threads"], "threads"),
            context=natural(value["context"], "context"),
            sampler=sampler,
            template=text(value["template"], "template"),
            grammar=text(value["grammar"], "grammar"),
        )
