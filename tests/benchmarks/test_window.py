"""The benchmark of the window's tables measures what it says, on a small network."""

from __future__ import annotations

from benchmarks import window


def test_figures() -> None:
    """Every table, way to ask and side is measured, each with its bar."""
    found = {each.name: each for each in window.measure(lambda _: None, providers=60, receipts=200, rounds=2, loads=1)}
    served = {
        f"{table}.{what}.served_p95"
        for table in ("providers", "receipts")
        for what in ("page", "filter", "search", "sort")
    }
    assert served <= found.keys()
    assert all(found[name].limit == window.BAR_MS and found[name].value > 0 for name in served)
    painted = {name for name in found if name.endswith(".painted_p95")}
    assert painted in (set(), {name.replace("served", "painted") for name in served})
    pages = {f"{name}.{what}" for name in window._PAGES for what in ("loaded", "usable_p50", "usable_p95")}
    assert found.keys() & pages in (set(), pages)
    assert all(found[name].holds for name in pages & found.keys() if name.endswith("loaded"))
