"""Kernels hand out addresses of arrays, which do not keep them: each is used after that, or in a loop around it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.engines.exact import kernels

SOURCES = sorted(Path(kernels.__file__).parent.glob("*.py"))
MADE = ("np.empty", "np.zeros", "np.ones", "np.full")


def compiled(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Functions that numba compiles."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(each) for each in node.decorator_list):
            yield node


def loose(function: ast.FunctionDef) -> set[str]:
    """Arrays of which nothing but the address is used at last, outside any loop: numba lets go of them there."""
    arrays = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in MADE
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    loops = [node for node in ast.walk(function) if isinstance(node, ast.For | ast.While)]
    looped = {id(node) for loop in loops for node in ast.walk(loop)}
    found = set[str]()
    for name in arrays:
        uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
        last = max(uses, key=lambda node: (node.lineno, node.col_offset))
        addresses = {
            id(node.value) for node in ast.walk(function) if isinstance(node, ast.Attribute) and node.attr == "ctypes"
        }
        if id(last) in addresses and id(last) not in looped:
            found.add(name)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_array_is_let_go_while_its_address_is_used(path: Path) -> None:
    """Memory that is given back while a kernel writes to it becomes somebody else's."""
    for function in compiled(ast.parse(path.read_text(encoding="utf-8"))):
        assert not loose(function), f"{path.name}: {function.name}"


def test_what_is_looked_for_is_found() -> None:
    """An array whose address outlives it."""
    (function,) = compiled(
        ast.parse(
            "@njit\ndef run(n):\n    a = np.empty(9)\n    at = a.ctypes.data\n    for i in range(n):\n        go(at)\n"
        )
    )
    assert loose(function) == {"a"}
