"""Which number of a model, and which operation, a case on a chain is about: a chain knows places only.

That takes the sizes of the model, which this machine has if it has converted it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.core.request import read_rules

if TYPE_CHECKING:
    from assay.engines.exact.dispute.shape import MatrixShape, Shape
    from assay.engines.exact.packed import Packed
    from assay.engines.exact.program import Program

_MOST: Final = 16
"""Models of which something is kept."""
_AGAIN: Final = 60.0
"""Seconds after which a model that was not there is looked for again."""
Programs = Callable[[Digest], "Program | None"]
"""The converted form of a model file by its digest; None: this machine does not have it."""


class Number(NamedTuple):
    """One number of the record of a pass."""

    layer: int
    """Or -1: behind all layers."""
    vector: str
    """See `shape.Vector`."""
    at: int
    """In the vector."""
    size: int
    """Of the vector: the last number is of fraction bits."""


class Operation(NamedTuple):
    """What makes a cell."""

    kind: str
    """See `plan.Kind`."""
    layer: int
    """Or -1: before or behind all layers."""
    use: str
    """See `plan.Use`."""
    place: int
    """Among the cells of this kind, layer and use."""
    count: int
    """Of those."""


class Places:
    """Sizes are learnt, which takes a moment, and kept, of a few models. For use from several threads, of which one
    learns."""

    def __init__(self, programs: Programs, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._programs: Final = programs
        self._clock: Final = clock
        self._shapes: Final[dict[Digest, Shape]] = {}
        self._missing: Final[dict[Digest, float]] = {}
        """When a model was looked for that was not there."""

    def knows(self, model: Digest) -> bool:
        """Whether there is nothing to learn of a model now: its sizes are known, or it was not there just now."""
        return model in self._shapes or self._clock() - self._missing.get(model, float("-inf")) < _AGAIN

    def learn(self, model: Digest) -> None:
        """Find out a model's sizes, if it is there."""
        if len(self._shapes) + len(self._missing) >= _MOST:
            self._shapes.clear()
            self._missing.clear()
        program = self._programs(model)
        if program is None:
            self._missing[model] = self._clock()
        else:
            self._shapes[model] = shape_of(program)

    def number(self, model: Digest, entry: int) -> Number | None:
        """What stands in a place of the record. None: that is not known here, or nothing stands there."""
        shape = self._shapes.get(model)
        found = None if shape is None else shape.place(entry)
        if shape is None or found is None:
            return None
        layer, vector, at = found
        return Number(layer, vector, at, shape.vector(layer, vector)[1])

    def operation(
        self, model: Digest, position: int, entry: int | None, rules: bytes, cells: int, index: int
    ) -> Operation | None:
        """What makes cell `index` of the `cells` that lead to a number, or to the token behind a pass. `rules`: by
        which tokens are drawn. None: that is not known here, or there are not so many cells: the prover lied."""
        from assay.engines.exact.dispute.plan import NumberTarget, Plan, Rules, TokenTarget

        shape = self._shapes.get(model)
        if shape is None:
            return None
        target = TokenTarget(position) if entry is None else NumberTarget(position, entry)
        try:
            plan = Plan(shape, target, Rules(read_rules(rules)[0], bytes(32), 1))
        except EncodingError:
            return None
        if plan.count != cells or not 0 <= index < cells:
            return None
        section, place = plan.at(index)
        return Operation(section.kind, section.layer, section.use, place, section.stop - section.start)


def shape_of(program: Program) -> Shape:
    """A model without its weights, as `Shape.of` has it of the model itself."""
    from assay.engines.exact.dispute.shape import LayerShape, MatrixShape, Shape
    from assay.engines.exact.kernels.state import PRODUCTS

    def matrix(packed: Packed) -> MatrixShape:
        return MatrixShape(packed.rows, packed.columns, packed.block, packed.fraction, packed.bits == _WIDE)

    own, numbers = program.shape, program.parameters
    gains = [[None if start == stop else int(bits) for start, stop, bits in row] for row in numbers["gain_at"].tolist()]
    biases = [[start != stop for start, stop in row] for row in numbers["bias_at"].tolist()]
    layers = tuple(
        LayerShape(
            tuple(map(matrix, program.products[PRODUCTS * n : PRODUCTS * (n + 1)])),
            tuple(gains[n]),
            (biases[n][0], biases[n][1], biases[n][2]),
            int(numbers["windows"][n]),
        )
        for n in range(own.layers)
    )
    norm = gains[own.layers][0]
    assert norm is not None  # every model has that one
    return Shape(
        matrix(program.embedding), layers, norm, matrix(program.products[-1]), own.heads, own.kv_heads, own.head_width,
        own.epsilon, own.score_scale, bool(own.halves), "gelu" if own.gelu else "silu", program.embedding_scale,
        program.embedding is program.products[-1],
    )  # fmt: skip


_WIDE: Final = 16
"""Bits of the small numbers of matrices that are wide."""
