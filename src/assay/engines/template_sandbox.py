"""A Jinja environment for chat templates, which are programs from strangers: bounded, and it marks what they write.

It gives what Hugging Face's `apply_chat_template` gives (trim_blocks, lstrip_blocks, loop controls, `tojson`,
`raise_exception`, `strftime_now`, the `generation` tag), with these differences:

- Every loop iteration, call, literal, concatenation and container spends fuel in proportion to its size, so that time,
  memory and output are bounded by the same count on every machine.
- Functions, filters and methods are those listed here (`str.format` is not); nothing else of Python can be reached.
- Literals of the template are `MarkedText`, and the operations that templates use on text keep the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial, wraps
from types import CodeType
from typing import Final, Literal, NoReturn

from jinja2 import Template, Undefined, nodes
from jinja2.exceptions import TemplateRuntimeError
from jinja2.ext import LoopControlExtension
from jinja2.filters import FILTERS, do_indent, do_int, do_round, make_attrgetter
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from typing_extensions import override

from assay.engines.marked_text import joined, marked, repeated, replaced, stripped
from assay.engines.template_code import BUILT, COUNTED, Bounds, Generation, MarkingGenerator
from assay.engines.template_fuel import Fuel, OutOfFuel, Refusal
from assay.engines.template_time import strftime

MAX_CALL_DEPTH: Final = 32
"""Deepest nesting of calls of macros."""
MAX_RANGE: Final = 100_000
"""Longest `range`."""
MAX_INTEGER: Final = 2**63
"""Largest magnitude of a factor."""

_CALL_UNITS: Final = 16
# fmt: off
_STRING_METHODS: Final = frozenset({
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal", "isdigit", "islower",
    "isnumeric", "isspace", "istitle", "isupper", "lower", "partition", "removeprefix", "removesuffix", "rfind",
    "rindex", "rpartition", "rsplit", "split", "splitlines", "startswith", "swapcase", "title", "upper",
})
_FILTERS: Final = (
    "abs", "count", "d", "default", "dictsort", "first", "float", "items", "last", "length", "list",
    "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "unique",
)
# fmt: on
_METHODS: Final[Mapping[type, frozenset[str]]] = {
    dict: frozenset({"keys", "values", "items", "get"}),
    list: frozenset({"index", "count"}),
    tuple: frozenset({"index", "count"}),
}
_TEXT_FILTERS: Final = ("capitalize", "lower", "title", "upper")
_WIDE_FORMAT: Final = re.compile(r"[0-9]{4}|\*|%\(")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one rendering at `now_s` (Unix seconds), which spends `fuel`."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, fuel: Fuel, now_s: int) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # literals must be marked before anything is computed from them
            cache_size=0,
            extensions=[LoopControlExtension, Generation],
        )
        self.code_generator_class = MarkingGenerator
        self.fuel = fuel
        self._depth = 0
        self.concat = joined  # pyrefly: ignore[bad-assignment] - declared as `"".join`, which it extends
        self.filters = {name: self._charged(FILTERS[name]) for name in _FILTERS}
        self.filters |= {name: self._of_text(FILTERS[name]) for name in _TEXT_FILTERS}  # pyrefly: ignore[bad-assignment] - wrapped
        self.filters |= {  # pyrefly: ignore[bad-assignment] - Jinja declares the functions that it ships
            "format": self._format,
            "indent": self._indent,
            "join": self._join,
            "int": self._int,
            "replace": self._replace,
            "round": self._round,
            "safe": self.text,
            "string": self.text,
            "tojson": self._tojson,
            "trim": self._trim,
            COUNTED: self._counted,
            BUILT: self._built,
        }
        tests: dict[str, Callable[..., object]] = {name: self._of_text(self.tests[name]) for name in ("lower", "upper")}
        self.tests = {**self.tests, **tests}
        functions: dict[str, Callable[..., object]] = {
            "range": self._range,
            "dict": self._dict,
            "namespace": Namespace,
            "joiner": Joiner,
            "cycler": Cycler,
            "raise_exception": self._raise_exception,
            "strftime_now": partial(strftime, now_s=now_s),
        }
        self.globals = functions  # pyrefly: ignore[bad-assignment] - Jinja declares its own functions only

    # What the generated code calls, besides filters.

    def literal(self, text: str) -> str:
        """A string of the template's source, marked."""
        self.fuel.spend(len(text) + 1)
        return marked(text)

    def text(self, value: object) -> str:
        """`value` as it is printed; things whose text would be an address or without bound are refused."""
        if isinstance(value, str):
            self.fuel.spend(len(value) + 1)
            return value
        if value is None or isinstance(value, bool | int | float | Undefined):
            return str(value)
        if isinstance(value, (list, tuple, dict)):
            self.fuel.spend_on(value)
            return str(value)
        raise TemplateRuntimeError(f"a {type(value).__name__} cannot be printed")

    def tilde(self, values: Iterable[object]) -> str:
        """What the `~` operator gives."""
        return joined([self.text(value) for value in values])

    @override
    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Arithmetic and joining, within bounds."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.fuel.spend(len(left) + len(right) + 1)
            return joined((left, right))
        if operator == "%" and isinstance(left, str):
            return self._format(left, *(right if isinstance(right, tuple) else (right,)))
        if operator == "*":
            many, times = (left, right) if isinstance(right, int) else (right, left)
            if isinstance(many, str) and isinstance(times, int):
                self.fuel.spend(max(0, len(many) * times))
                return repeated(many, times)
            if isinstance(many, (list, tuple)):
                raise TemplateRuntimeError("lists cannot be multiplied")
        for number in (left, right):
            if isinstance(number, int) and abs(number) > MAX_INTEGER:
                raise OutOfFuel("integers take more than 64 bits")
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > 64:
            raise OutOfFuel("integers take more than 64 bits")
        result: object = super().call_binop(context, operator, left, right)
        return self._built(result) if isinstance(result, (list, tuple)) else result

    @override
    def call(self, context: Context, obj: object, /, *args: object, **kwargs: object) -> object:
        """Call a function, macro or method."""
        self.fuel.spend(_CALL_UNITS)
        if self._depth >= MAX_CALL_DEPTH:
            raise OutOfFuel(f"calls are nested more than {MAX_CALL_DEPTH} deep")
        self._depth += 1
        try:
            return super().call(context, obj, *args, **kwargs)
        finally:
            self._depth -= 1

    # What can be reached by attributes.

    @override
    def getattr(self, obj: object, attribute: str) -> object:
        """`obj.attribute`; text has its own methods, which keep marks and spend fuel."""
        return self._string_method(obj, attribute) if isinstance(obj, str) else super().getattr(obj, attribute)

    @override
    def getitem(self, obj: object, argument: object) -> object:
        """`obj[argument]`."""
        if isinstance(obj, str) and isinstance(argument, str):
            return self._string_method(obj, argument)
        return super().getitem(obj, argument)

    @override
    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        """Only listed methods of plain data, and the public names of Jinja's own objects."""
        if isinstance(obj, LoopContext | Macro | Namespace | Joiner | Cycler | BlockReference):
            return super().is_safe_attribute(obj, attr, value)
        return attr in _METHODS.get(type(obj), ())

    def _string_method(self, text: str, name: str) -> object:
        methods: dict[str, Callable[..., object]] = {
            "join": partial(self._join_method, text),
            "replace": partial(self._replace, text),
            "strip": partial(stripped, text),
            "lstrip": partial(stripped, text, right=False),
            "rstrip": partial(stripped, text, left=False),
        }
        if name in methods or name in _STRING_METHODS:
            self.fuel.spend(8 * len(text) if "split" in name else len(text))
            return methods.get(name) or getattr(str(text), name)
        if hasattr(text, name):
            return self.unsafe_undefined(text, name)
        return self.undefined(obj=text, name=name)

    # Filters and functions.

    def _charged(self, function: Callable[..., object]) -> Callable[..., object]:
        """A filter of Jinja whose results spend fuel."""

        @wraps(function)  # also says which filters want the environment or the context
        def charged(*args: object, **kwargs: object) -> object:
            result = function(*args, **kwargs)
            if isinstance(result, (str, list, tuple)):
                self.fuel.spend(8 * len(result))
            return result

        return charged

    def _of_text(self, function: Callable[..., object]) -> Callable[[object], object]:
        return lambda value: function(self.text(value))

    def _built(self, value: object) -> object:
        self.fuel.spend_on(value)
        return value

    def _dict(self, *args: Iterable[tuple[object, object]], **kwargs: object) -> object:
        return self._built(dict(*args, **kwargs))

    def _counted(self, values: Iterable[object]) -> Iterator[object]:
        for value in values:
            self.fuel.spend(1)
            yield value

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        if max(map(abs, bounds), default=0) > MAX_INTEGER or len(numbers) > MAX_RANGE:
            raise OutOfFuel(f"it takes a range of more than {MAX_RANGE} numbers")
        self.fuel.spend(len(numbers))
        return numbers

    def _raise_exception(self, message: object) -> NoReturn:
        raise Refusal(self.text(message)[:500])

    def _join(self, values: Iterable[object], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            values = map(make_attrgetter(self, attribute), values)
        return self._join_method(d, (self.text(value) for value in values))

    def _join_method(self, separator: str, parts: Iterable[str]) -> str:
        parts = list(parts)
        self.fuel.spend(sum(map(len, parts)) + len(separator) * len(parts))
        return joined(parts, separator)

    def _replace(self, value: object, old: object, new: object, count: int | None = -1) -> str:
        text, before, after = self.text(value), self.text(old), self.text(new)
        self.fuel.spend(text.count(before) * len(after))
        return replaced(text, before, after, -1 if count is None else count)

    def _trim(self, value: object, chars: str | None = None) -> str:
        return stripped(self.text(value), chars)

    def _int(self, value: object, default: int = 0, base: int = 10) -> int:
        if isinstance(value, str) and len(value) > 64:
            raise OutOfFuel("integers take more than 64 bits")
        return do_int(value, default, base)

    def _format(self, form: object, *values: object) -> str:
        pattern = self.text(form)
        if _WIDE_FORMAT.search(pattern):
            raise OutOfFuel("a format has names, or widths of four digits")
        self.fuel.spend(1000 * pattern.count("%"))
        return pattern % tuple(value if isinstance(value, int | float) else self.text(value) for value in values)

    def _indent(self, value: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = self.text(value)
        self.fuel.spend((text.count("\n") + 2) * (width if isinstance(width, int) else len(width)))
        return do_indent(text, width, first, blank)

    def _round(self, value: float, precision: int = 0, method: Literal["common", "ceil", "floor"] = "common") -> float:
        if abs(precision) > 15:
            raise OutOfFuel("it rounds to more than 15 digits")
        return do_round(value, precision, method)

    def _tojson(
        self,
        value: object,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        if not 0 <= (indent or 0) <= 16 or any(len(separator) > 16 for separator in separators or ()):
            raise OutOfFuel("JSON is indented or separated by more than 16 characters")
        self.fuel.spend_on(value, indent=indent or 0)
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )  # fmt: skip


@lru_cache(maxsize=16)
def compiled(source: str) -> CodeType:
    """The template's code, to be run by `render`; whatever Jinja or Python raise for a broken template."""
    sandbox = Sandbox(Fuel(100_000 + 16 * len(source)), now_s=0)
    tree: nodes.Template = Bounds().visit(sandbox.parse(source))
    tree.set_environment(sandbox)
    return sandbox.compile(tree)


def render(source: str, variables: Mapping[str, object], *, fuel: Fuel, now_s: int) -> str:
    """What the template writes, with marks.

    Raises:
        Refusal: the template refused the variables.
        OutOfFuel: it spends more than it may.
        Exception: whatever Jinja and Python raise for a broken template.
    """
    sandbox = Sandbox(fuel, now_s)
    template = Template.from_code(sandbox, compiled(source), sandbox.make_globals(None))
    return joined(template.root_render_func(template.new_context(dict(variables))))
