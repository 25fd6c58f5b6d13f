"""Expressions to Python functions: types are checked, then source text is generated and compiled.

Two-valued logic as ksqlDB generates it: a comparison with NULL is false (so NOT of it is true), IN
never
matches NULL. A function that fails makes a filter drop the row and a column NULL, with a log entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlglot import exp

from ksqldb_local.errors import FunctionError, StatementError, UnsupportedError
from ksqldb_local.formatting import OPERATORS, column_name, expression_text, qualifier
from ksqldb_local.functions import FUNCTIONS, JsonCache, concat, like
from ksqldb_local.json_text import JsonPath
from ksqldb_local.types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INTEGER,
    PSEUDO_COLUMNS,
    STRING,
    Schema,
    SqlType,
    cast_type,
)

Row = tuple[Any, ...]
Evaluator = Callable[[Row, int, int, int], Any]
"""(column values in order, ROWTIME, ROWPARTITION, ROWOFFSET) to the expression's value."""

_DECIMAL = SqlType("DECIMAL")
_NUMBERS = {"INTEGER": 0, "BIGINT": 1, "DECIMAL": 2, "DOUBLE": 3}
_COMPARISON_NAMES = {
    "=": "EQUAL",
    "<>": "NOT_EQUAL",
    "<": "LESS_THAN",
    "<=": "LESS_THAN_OR_EQUAL",
    ">": "GREATER_THAN",
    ">=": "GREATER_THAN_OR_EQUAL",
    "IS DISTINCT FROM": "IS_DISTINCT_FROM",
}
_PSEUDO_CODE = {"ROWTIME": "t", "ROWPARTITION": "p", "ROWOFFSET": "o"}


@dataclass(frozen=True, slots=True)
class Typed:
    """Generated code, the type of its value (None: NULL) and whether it can be NULL."""

    code: str
    type: SqlType | None
    nullable: bool = True
    literal: bool = False


def java_double(value: float) -> str:
    """Return a DOUBLE as Java's Double.toString writes it."""
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    digits, exponent = f"{Decimal(repr(value)):E}".split("E")
    mantissa = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}E{int(exponent)}"


def to_text(value: Any) -> str | None:
    """Return ``value`` as CAST to VARCHAR gives it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return java_double(value) if isinstance(value, float) else str(value)


def _wrap(bits: int) -> Callable[[int], int]:
    half = 1 << (bits - 1)

    def wrapped(value: int) -> int:
        return (value + half) % (2 * half) - half

    return wrapped


_wrap_int, _wrap_long = _wrap(32), _wrap(64)
_WRAPS = {"INTEGER": "wrap_int", "BIGINT": "wrap_long", "DOUBLE": "float"}


def _cast_integer(value: Any, bits: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, float):
        if value != value:
            return 0
        # Java narrows a double by cutting at the ends of the type's range.
        limit = 1 << (bits - 1)
        return int(max(-limit, min(limit - 1, value)))
    try:
        number = int(value.strip()) if isinstance(value, str) else int(value)
    except ValueError as error:
        raise FunctionError(f"Cannot cast '{value}' to a number") from error
    limit = 1 << (bits - 1)
    if isinstance(value, str) and not -limit <= number < limit:
        raise FunctionError(f"'{value}' is out of range")
    return (number + limit) % (2 * limit) - limit


def _cast_double(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value.strip()) if isinstance(value, str) else float(value)
    except ValueError as error:
        raise FunctionError(f"Cannot cast '{value}' to DOUBLE") from error


def _cast_boolean(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    # As ksqlDB's SqlBooleans: any beginning of "true" or "yes" is true, everything else false.
    return bool(text) and ("true".startswith(text) or "yes".startswith(text))


def _must(value: bool | None) -> bool:
    if value is None:
        raise FunctionError("NULL where a condition must be true or false")
    return value


def _not_null(value: Any) -> Any:
    if value is None:
        raise FunctionError("NULL in an arithmetic expression")
    return value


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, float) or isinstance(right, float):
        if right == 0:
            return float("nan") if left == 0 or left != left else float(left) * float("inf")
        return left / right
    if right == 0:
        raise FunctionError("/ by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _modulus(left: Any, right: Any) -> Any:
    if isinstance(left, float) or isinstance(right, float):
        return math.fmod(left, right) if right else float("nan")
    if right == 0:
        raise FunctionError("/ by zero")
    remainder = abs(left) % abs(right)
    return -remainder if left < 0 else remainder


def _ordered(value: Any) -> Any:
    # Java compares text by UTF-16 unit; only beyond the basic plane is that another order.
    return value.encode("utf-16-be", "surrogatepass") if isinstance(value, str) else value


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compared(left: Any, right: Any) -> bool:
        return left is not None and right is not None and test(left, right)

    return compared


def _distinct(left: Any, right: Any) -> bool:
    return bool(left != right)


_RUNTIME: dict[str, Any] = {
    "eq": _compare(lambda a, b: a == b),
    "ne": _compare(lambda a, b: a != b),
    "lt": _compare(lambda a, b: _ordered(a) < _ordered(b)),
    "le": _compare(lambda a, b: _ordered(a) <= _ordered(b)),
    "gt": _compare(lambda a, b: _ordered(a) > _ordered(b)),
    "ge": _compare(lambda a, b: _ordered(a) >= _ordered(b)),
    "distinct": _distinct,
    "contained": lambda v, values: v is not None and any(x is not None and x == v for x in values),
    "first": lambda a, b: b if a is None else a,
    "like": like,
    "concat": concat,
    "must": _must,
    "nn": _not_null,
    "div": _divide,
    "mod": _modulus,
    "wrap_int": _wrap_int,
    "wrap_long": _wrap_long,
    "float": float,
    "to_text": to_text,
    "to_int": lambda v: _cast_integer(v, 32),
    "to_long": lambda v: _cast_integer(v, 64),
    "to_double": _cast_double,
    "to_boolean": _cast_boolean,
    "dec": lambda v: Decimal(repr(v)) if isinstance(v, float) else v,
    "D": Decimal,
}
_COMPARISONS = {
    "=": "eq",
    "<>": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
    "IS DISTINCT FROM": "distinct",
}
_CASTS = {
    "STRING": "to_text",
    "INTEGER": "to_int",
    "BIGINT": "to_long",
    "DOUBLE": "to_double",
    "BOOLEAN": "to_boolean",
}


def _widened(part: Typed, kind: SqlType) -> str:
    """Return the code of a part whose value has the type of the whole."""
    same = part.type in (None, kind) or kind != DOUBLE
    return part.code if same else f"{_CASTS[kind.base]}({part.code})"


def _literal_value(code: str) -> Any:
    """Return the value of a literal's generated code."""
    return eval(code, {"D": Decimal})  # noqa: S307 - generated here, from a parsed literal


@dataclass(slots=True)
class Compiler:
    """Compiles expressions over the columns of one source stream.

    Args:
        schema: The source's columns, whose order is that of the rows' values.
        alias: The name by which the statement calls the source.
        json: The worker's JSON cache, shared by all queries of a topic.
    """

    schema: Schema
    alias: str
    json: JsonCache
    _constants: dict[str, Any] = field(default_factory=dict)

    def type_of(self, node: exp.Expression) -> SqlType | None:
        """Return the type of the expression's value; None for NULL.

        Raises:
            StatementError: The expression is wrong or not supported.
        """
        return self._compile(node).type

    def evaluator(self, node: exp.Expression) -> Evaluator:
        """Compile one expression.

        Raises:
            StatementError: The expression is wrong or not supported.
        """
        return self._function(self._compile(node).code)

    def predicate(self, node: exp.Expression) -> Evaluator:
        """Compile a filter.

        Raises:
            StatementError: The expression is wrong, not supported or not BOOLEAN.
        """
        return self._function(self.predicate_code(node))

    def predicate_code(self, node: exp.Expression) -> str:
        """Return a filter as code.

        Raises:
            StatementError: The expression is wrong, not supported or not BOOLEAN.
        """
        compiled = self._compile(node)
        if compiled.type != BOOLEAN:
            raise StatementError(
                f"Type error in WHERE expression: Should evaluate to boolean but is "
                f"{expression_text(node)} ({compiled.type}) instead."
            )
        return self._condition(compiled)

    def row(self, columns: Mapping[str, exp.Expression]) -> Evaluator:
        """Compile a projection to a dict of ``columns`` in order.

        Raises:
            StatementError: An expression is wrong or not supported.
        """
        codes = {name: self.value_code(node) for name, node in columns.items()}
        return self._function(self.row_code(codes))

    @staticmethod
    def row_code(codes: Mapping[str, str]) -> str:
        """Return the dict of the columns' values as code."""
        return "{" + ", ".join(f"{name!r}: {code}" for name, code in codes.items()) + "}"

    def value_code(self, node: exp.Expression) -> str:
        """Return one expression as code.

        Raises:
            StatementError: The expression is wrong or not supported.
        """
        return self._compile(node).code

    @staticmethod
    def runtime() -> dict[str, Any]:
        """Return what generated code calls."""
        return dict(_RUNTIME)

    def _function(self, code: str) -> Evaluator:
        namespace = {**_RUNTIME, **self._constants}
        # The text is generated here from a parsed expression: names and literals enter it by repr
        # only.
        exec(compile(f"def evaluate(r, t, p, o):\n    return {code}", "<ksql>", "exec"), namespace)  # noqa: S102
        evaluate: Evaluator = namespace["evaluate"]
        return evaluate

    def _constant(self, value: Any) -> str:
        name = f"k{len(self._constants)}"
        self._constants[name] = value
        return name

    def _condition(self, typed: Typed) -> str:
        return f"must({typed.code})" if typed.nullable else typed.code

    def _boolean(self, node: exp.Expression, what: str) -> str:
        typed = self._compile(node)
        if typed.type is not None and typed.type != BOOLEAN:
            raise StatementError(
                f"Unsupported type in {what}: {expression_text(node)} is {typed.type}, not BOOLEAN"
            )
        return self._condition(typed)

    def _compile(self, node: exp.Expression) -> Typed:
        if isinstance(node, exp.Paren):
            return self._compile(node.this)
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.Literal):
            return self._literal(node)
        if isinstance(node, exp.Null):
            return Typed("None", None, literal=True)
        if isinstance(node, exp.Boolean):
            return Typed("True" if node.this else "False", BOOLEAN, nullable=False, literal=True)
        if isinstance(node, exp.Neg):
            return self._negate(node)
        if isinstance(node, exp.Not):
            return Typed(f"(not {self._boolean(node.this, 'NOT')})", BOOLEAN, nullable=False)
        if isinstance(node, exp.And | exp.Or):
            word = "and" if isinstance(node, exp.And) else "or"
            left = self._boolean(node.this, word.upper())
            right = self._boolean(node.expression, word.upper())
            return Typed(f"({left} {word} {right})", BOOLEAN, nullable=False)
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return Typed(f"({self._compile(node.this).code} is None)", BOOLEAN, nullable=False)
        if isinstance(node, exp.In):
            return self._in(node)
        if isinstance(node, exp.Between):
            return self._between(node)
        if isinstance(node, exp.Escape) and isinstance(node.this, exp.Like):
            return self._like(node.this, str(node.expression.this))
        if isinstance(node, exp.Like):
            return self._like(node, None)
        if isinstance(node, exp.DPipe):
            sides = [self._compile(node.this), self._compile(node.expression)]
            for side in sides:
                if side.type not in (None, STRING):
                    raise StatementError(f"|| needs texts, not {side.type}")
            return Typed(f"concat({sides[0].code}, {sides[1].code})", STRING)
        if isinstance(node, exp.Case) and node.this is None:
            return self._case(node)
        if isinstance(node, exp.Cast):
            return self._cast(node)
        if isinstance(node, exp.Anonymous):
            return self._call(node)
        operator = OPERATORS.get(type(node))
        if operator in _COMPARISONS:
            return self._comparison(node, operator)
        if operator is not None:
            return self._arithmetic(node, operator)
        raise UnsupportedError(f"The expression {node.sql()}")

    def _column(self, node: exp.Column) -> Typed:
        name, table = column_name(node), qualifier(node)
        for index, column in enumerate(self.schema.columns):
            if column.name == name and table in (None, self.alias):
                return Typed(f"r[{index}]", column.type)
        if name in PSEUDO_COLUMNS and table in (None, self.alias):
            return Typed(_PSEUDO_CODE[name], PSEUDO_COLUMNS[name], nullable=False)
        raise StatementError(f"Column '{name}' cannot be resolved.")

    def _literal(self, node: exp.Literal) -> Typed:
        text = str(node.this)
        if node.is_string:
            return Typed(repr(text), STRING, nullable=False, literal=True)
        if text.isdigit():
            value = int(text)
            if value >= 2**63:
                raise StatementError(f"Invalid numeric literal: {text}")
            kind = INTEGER if value < 2**31 else BIGINT
            return Typed(str(value), kind, nullable=False, literal=True)
        if "e" in text.lower():
            return Typed(repr(float(text)), DOUBLE, nullable=False, literal=True)
        return Typed(f"D({text!r})", _DECIMAL, nullable=False, literal=True)

    def _negate(self, node: exp.Neg) -> Typed:
        inner = self._compile(node.this)
        if inner.type is None or inner.type.base not in _NUMBERS:
            raise StatementError(f"Cannot negate {expression_text(node.this)} ({inner.type})")
        if inner.literal:
            return Typed(f"(-{inner.code})", inner.type, nullable=False, literal=True)
        return Typed(f"(-nn({inner.code}))", inner.type)

    def _comparison(self, node: exp.Expression, operator: str) -> Typed:
        left, right = self._compile(node.this), self._compile(node.expression)
        self._check_comparable(node, operator, left, right)
        left_code, right_code = left.code, right.code
        if _DECIMAL in (left.type, right.type):
            left_code, right_code = f"dec({left_code})", f"dec({right_code})"
        elif operator == "=" and right.literal and not right.nullable:
            return Typed(f"({left_code} == {right_code})", BOOLEAN, nullable=False)
        return Typed(
            f"{_COMPARISONS[operator]}({left_code}, {right_code})", BOOLEAN, nullable=False
        )

    def _check_comparable(
        self, node: exp.Expression, operator: str, left: Typed, right: Typed
    ) -> None:
        if left.type is None or right.type is None:
            return
        a, b = left.type.base, right.type.base
        numbers = a in _NUMBERS and b in _NUMBERS
        ordered = operator not in ("=", "<>", "IS DISTINCT FROM")
        if numbers or (a == b and not (ordered and a in ("BOOLEAN", "ARRAY", "MAP", "STRUCT"))):
            return
        text = expression_text(node)
        raise StatementError(
            f"Cannot compare {expression_text(node.this)} ({left.type}) to "
            f"{expression_text(node.expression)} ({right.type}) with "
            f"{_COMPARISON_NAMES[operator]}.\nStatement: {text}"
        )

    def _in(self, node: exp.In) -> Typed:
        value = self._compile(node.this)
        if not node.expressions:
            raise UnsupportedError("IN without a list")
        items = []
        for item in map(self._compile, node.expressions):
            if item.type is None:
                continue  # NULL never matches
            differs = value.type is not None and item.type != value.type
            items.append(self._coerce(node, item, value.type) if differs and value.type else item)
        if all(item.literal for item in items):
            members = self._constant(frozenset(_literal_value(item.code) for item in items))
            return Typed(f"({value.code} in {members})", BOOLEAN, nullable=False)
        listing = ", ".join(item.code for item in items)
        return Typed(f"contained({value.code}, ({listing},))", BOOLEAN, nullable=False)

    def _coerce(self, node: exp.In, item: Typed, kind: SqlType) -> Typed:
        """Bring an item of a list to the type of the value that is looked for."""
        assert item.type is not None  # noqa: S101 - NULLs were taken out, for the type checker
        if kind.base in _NUMBERS and item.type.base in _NUMBERS:
            return item
        if kind == STRING and item.literal:
            text = to_text(_literal_value(item.code))
            return Typed(repr(text), STRING, nullable=False, literal=True)
        if item.type == STRING and item.literal and kind.base in _CASTS:
            value = _RUNTIME[_CASTS[kind.base]](_literal_value(item.code))
            return Typed(repr(value), kind, nullable=False, literal=True)
        raise StatementError(
            f"invalid input syntax for type {kind}: {expression_text(node)} compares {kind} "
            f"with {item.type}"
        )

    def _between(self, node: exp.Between) -> Typed:
        low = exp.GTE(this=node.this, expression=node.args["low"])
        high = exp.LTE(this=node.this, expression=node.args["high"])
        code = f"({self._compile(low).code} and {self._compile(high).code})"
        return Typed(code, BOOLEAN, nullable=False)

    def _like(self, node: exp.Like, escape: str | None) -> Typed:
        value, pattern = self._compile(node.this), self._compile(node.expression)
        for side, of in ((value, node.this), (pattern, node.expression)):
            if side.type not in (None, STRING):
                raise StatementError(f"LIKE needs texts: {expression_text(of)} is {side.type}")
        if escape is not None and len(escape) != 1:
            raise StatementError(f"Expected single character escape but got: {escape}")
        code = f"like({value.code}, {pattern.code}, {escape!r})"
        negate = "not " if node.args.get("negate") else ""
        return Typed(f"({negate}{code})", BOOLEAN, nullable=False)

    def _case(self, node: exp.Case) -> Typed:
        default = node.args.get("default")
        last = self._compile(default) if default is not None else Typed("None", None)
        branches = [
            (self._boolean(branch.this, "CASE"), self._compile(branch.args["true"]))
            for branch in reversed(node.args["ifs"])
        ]
        kinds = [last.type, *(result.type for _, result in branches)]
        common = self._common(kinds, expression_text(node))
        code = _widened(last, common)
        for condition, result in branches:
            code = f"({_widened(result, common)} if {condition} else {code})"
        nullable = last.nullable or any(result.nullable for _, result in branches)
        return Typed(code, common, nullable=nullable)

    def _common(self, kinds: list[SqlType | None], text: str) -> SqlType:
        known = [k for k in kinds if k is not None]
        if not known:
            raise StatementError(f"Invalid expression, the type is not known: {text}")
        first = known[0]
        if all(k == first for k in known):
            return first
        if all(k.base in _NUMBERS for k in known):
            return max(known, key=lambda k: _NUMBERS[k.base])
        names = ", ".join(str(k) for k in reversed(known))
        raise StatementError(f"The parts of {text} have different types: {names}")

    def _cast(self, node: exp.Cast) -> Typed:
        kind = cast_type(node.to)
        if kind is None or kind.base not in _CASTS:
            raise UnsupportedError(f"CAST to {node.to.sql().upper()}")
        inner = self._compile(node.this)
        if inner.type is not None and inner.type.base not in {*_CASTS, "DECIMAL"}:
            raise UnsupportedError(f"CAST of {inner.type}")
        if inner.type == BOOLEAN and kind.base in _NUMBERS:
            raise StatementError(f"Cast of BOOLEAN to {kind} is not supported")
        return Typed(f"{_CASTS[kind.base]}({inner.code})", kind)

    def _call(self, node: exp.Anonymous) -> Typed:
        name = str(node.this).upper()
        function = FUNCTIONS.get(name)
        if function is None:
            raise StatementError(
                f"Can't find any functions with the name '{name}' (ksqldb_local knows "
                f"{', '.join(sorted(FUNCTIONS))}; others need a ksqlDB server)"
            )
        arguments = [self._compile(a) for a in node.expressions]
        types = [a.type for a in arguments]
        if not function.accepts(types):
            given = ", ".join(str(t) if t else "null" for t in types)
            raise StatementError(
                f"Function '{name}' does not accept parameters ({given}). It takes "
                f"{', '.join(str(t) if t else 'any type' for t in function.arguments)}"
                f"{', ...' if function.variadic else ''}."
            )
        returns = function.returns or self._common(types, expression_text(node))
        codes = [a.code if function.returns else _widened(a, returns) for a in arguments]
        if name == "EXTRACTJSONFIELD" and arguments[1].literal and arguments[1].type == STRING:
            return self._extract(node, codes[0])
        if name in ("COALESCE", "IFNULL") and len(codes) == 2:
            # Both are evaluated, as by ksqlDB: an argument that fails, fails the row.
            if codes[0].isidentifier() and arguments[1].literal:
                code = f"({codes[1]} if {codes[0]} is None else {codes[0]})"
                return Typed(code, returns, nullable=arguments[1].nullable)
            return Typed(f"first({codes[0]}, {codes[1]})", returns, nullable=arguments[1].nullable)
        call = function.call
        target = getattr(self.json, call) if isinstance(call, str) else call
        return Typed(
            f"{self._constant(target)}({', '.join(codes)})", returns, nullable=function.nullable
        )

    def _extract(self, node: exp.Anonymous, text: str) -> Typed:
        written = str(node.expressions[1].this)
        try:
            path = JsonPath(written)
        except ValueError as error:
            raise StatementError(str(error)) from error
        if len(path.steps) == 1:
            call = self._constant(self.json.extract_name)
            return Typed(f"{call}({text}, {path.steps[0]!r}, {self._constant(path)})", STRING)
        return Typed(f"{self._constant(self.json.extract)}({text}, {self._constant(path)})", STRING)

    def _arithmetic(self, node: exp.Expression, operator: str) -> Typed:
        left, right = self._compile(node.this), self._compile(node.expression)
        if operator == "+" and left.type == STRING and right.type == STRING:
            # Java's + on two texts, where a NULL becomes the word.
            code = f"(str(first({left.code}, 'null')) + str(first({right.code}, 'null')))"
            return Typed(code, STRING, nullable=False)
        for side, of in ((left, node.this), (right, node.expression)):
            if side.type is None or side.type.base not in _NUMBERS:
                raise StatementError(
                    f"Unsupported arithmetic types: {expression_text(of)} is {side.type}"
                )
        kind = self._common([left.type, right.type], expression_text(node))
        if kind == _DECIMAL:
            raise UnsupportedError("Arithmetic with DECIMAL")
        a, b = f"nn({left.code})", f"nn({right.code})"
        if kind == DOUBLE:
            a, b = f"float({a})", f"float({b})"
        if operator == "/":
            code = f"div({a}, {b})"
        elif operator == "%":
            code = f"mod({a}, {b})"
        else:
            code = f"({a} {operator} {b})"
        return Typed(f"{_WRAPS[kind.base]}({code})", kind, nullable=False)
