"""What holds for every source file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent / "src" / "assay"
MOST_LINES = 400


def undocumented(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """Yield the public functions and classes under `node` that have no docstring; overloads are documented once."""
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        if any(ast.unparse(decorator).endswith(("overload", ".setter")) for decorator in child.decorator_list):
            continue
        if not ast.get_docstring(child):
            yield f"{prefix}{child.name}, line {child.lineno}"
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, f"{prefix}{child.name}.")


def test_sources_are_found() -> None:
    """The checks below look at the real package."""
    assert (SOURCES / "core" / "errors.py").is_file()


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_source_file(path: Path) -> None:
    """A source file is short enough to read, and documents its public names."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES, "look for a missing noun"
    module = ast.parse(text)
    assert ast.get_docstring(module), "the module has no docstring"
    assert list(undocumented(module)) == []


def test_missing_docstrings_are_seen() -> None:
    """A public method without a docstring is named; private names, overloads and nested functions are not."""
    source = '''
class Shop:
    """Sells."""
    def open(self):
        def inner(): ...
    def _close(self): ...
    @overload
    def price(self): ...
'''
    assert list(undocumented(ast.parse(source))) == ["Shop.open, line 4"]
