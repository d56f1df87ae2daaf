"""How a chat template becomes code: loops, containers, literals and printed values go through the sandbox.

The generated code calls `literal`, `text` and `tilde` of its environment, and the filters `_counted` and `_built`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NoReturn

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateRuntimeError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer
from typing_extensions import override

COUNTED: Final = "_counted"
"""The filter around everything that a loop goes through."""
BUILT: Final = "_built"
"""The filter around every list, tuple, dict and slice that the template makes."""


class MarkingGenerator(CodeGenerator):
    """Code in which literals and printed values go through the environment."""

    @override
    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        """A literal."""
        if isinstance(node.value, str):
            self.write(f"environment.literal({node.value!r})")
        else:
            super().visit_Const(node, frame)

    @override
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """The `~` operator."""
        self.write("environment.tilde((")
        for child in node.nodes:
            self.visit(child, frame)
            self.write(", ")
        self.write("))")

    @override
    def _output_const_repr(self, group: Iterable[object]) -> str:
        return f"environment.literal({''.join(map(str, group))!r})"

    @override
    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        self.write("environment.text(")


class Generation(Extension):
    """`{% generation %}`, which marks the assistant's words for training and changes nothing here."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    @override
    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Bounds(NodeTransformer):
    """Puts the filters around loops and containers, and refuses statements that chat templates have no use for."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Count the iterations.

        Raises:
            TemplateRuntimeError: the loop is recursive.
        """
        if node.recursive:
            raise TemplateRuntimeError("recursive loops are not supported")
        self.generic_visit(node)
        node.iter = _filtered(node.iter, COUNTED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """A slice is a container that the template makes."""
        self.generic_visit(node)
        return _filtered(node, BUILT) if isinstance(node.arg, nodes.Slice) else node

    def _container(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        stored = isinstance(node, nodes.Tuple) and node.ctx != "load"
        literal = all(isinstance(child, nodes.Const) for child in node.find_all(nodes.Expr))
        return node if stored or literal else _filtered(node, BUILT)

    def _refused(self, node: nodes.Node) -> NoReturn:
        raise TemplateRuntimeError(f"{type(node).__name__} is not supported in chat templates")

    visit_List = visit_Tuple = visit_Dict = _container  # noqa: N815 - named so by Jinja
    visit_ScopedEvalContextModifier = visit_EvalContextModifier = _refused  # noqa: N815
    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refused  # noqa: N815


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
