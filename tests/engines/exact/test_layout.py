"""Where each product's accumulators stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.exact.models import write_model

from assay.engines.exact.convert import convert
from assay.engines.exact.layout import Layout, Rows

ROWS = st.builds(Rows, *[st.integers(1, 700)] * 7)


@given(st.lists(ROWS, min_size=1, max_size=6))
def test_kept_chunks_hold_all_keys_and_values_and_no_other_chunk_does(layers: list[Rows]) -> None:
    """Marked one by one, the accumulators of keys and values are in these chunks."""
    layout = Layout(tuple(layers), 10)
    marked = np.concatenate(
        [
            np.repeat(
                [0, 1, 0], [rows.query, 1 + rows.key + rows.value, rows.total - rows.query - 1 - rows.key - rows.value]
            )
            for rows in layers
        ]
    )
    assert len(marked) == layout.body
    assert layout.kept_chunks().tolist() == np.unique(np.flatnonzero(marked) // 256).tolist()
    spans = list(layout.kept_spans())
    assert [span.stop - span.start for span in spans] == [1 + rows.key + rows.value for rows in layers]
    assert all(marked[span].all() for span in spans)


def test_of_a_model(tmp_path: Path) -> None:
    """A converted model's matrices have these rows."""
    model = convert(write_model(tmp_path / "m.gguf", "llama"))
    layout = Layout.of(model)
    assert layout.head == model.head.shape[0]
    assert [rows.down for rows in layout.layers] == [model.width] * len(model.layers)
    assert layout.layers[0].key == model.kv_heads * model.head_width
    assert layout.layers[-1].up == model.layers[-1].up.shape[0]
