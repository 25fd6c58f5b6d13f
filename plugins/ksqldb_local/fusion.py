"""All queries over one stream as one generated function: the fast path for ordinary records.

What several queries ask for is computed once: the parse, each field, each row that two of them
write. The function only handles a record for which nothing can fail or differ; any other one (not
JSON, an array, a tombstone, a field of an odd type, an expression that fails) it hands over,
untouched, to the programs themselves, which are exact. So this changes speed, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaException, Message
from sqlglot import exp

from ksqldb_local.compiler import Compiler, Typed
from ksqldb_local.functions import JsonCache
from ksqldb_local.json_text import JsonPath
from ksqldb_local.metastore import Stream
from ksqldb_local.program import Program
from ksqldb_local.types import BOOLEAN, STRING

_COLUMN = re.compile(r"c\d+\Z")
_NATIVE = {"STRING": str, "BOOLEAN": bool, "INTEGER": int, "BIGINT": int}
_LIMITS = {"INTEGER": 2**31, "BIGINT": 2**63}

Produce = Callable[..., None]
Fused = Callable[
    [Sequence[Message], Produce, Produce, Callable[[Message], None]],
    tuple[list[int], int, int],
]
"""(records, fast send, careful send, exact handling) to (written by query, value bytes, last time).

The records that went to the exact handling are not in the counts of what was written."""


class _Unusual(Exception):
    """A record that the exact path has to handle."""


@dataclass(slots=True)
class _Shared:
    """What the expressions of all queries need of a record, each once."""

    constants: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, None] = field(default_factory=dict)  # text columns to parse
    fields: dict[tuple[str, str], tuple[str, JsonPath]] = field(default_factory=dict)

    def constant(self, value: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def extracted(self, column: str, path: JsonPath) -> str:
        self.documents[column] = None
        name = path.steps[0]
        return self.fields.setdefault((column, name), (f"x{len(self.fields)}", path))[0]


@dataclass(slots=True)
class _FusedCompiler(Compiler):
    """Columns and fields are local variables; a text that is looked into is known to be JSON."""

    shared: _Shared = field(default_factory=_Shared)

    def _column(self, node: exp.Column) -> Typed:
        typed = Compiler._column(self, node)
        code = re.sub(r"\Ar\[(\d+)\]\Z", r"c\1", typed.code)
        return Typed(code, typed.type, typed.nullable)

    def _call(self, node: exp.Anonymous) -> Typed:
        if str(node.this).upper() == "IS_JSON_STRING" and len(node.expressions) == 1:
            text = self._compile(node.expressions[0]).code
            if _COLUMN.match(text):
                self.shared.documents[text] = None
                return Typed("True", BOOLEAN, nullable=False)
        return Compiler._call(self, node)

    def _extract(self, node: exp.Anonymous, text: str) -> Typed:
        if _COLUMN.match(text):
            path = JsonPath(str(node.expressions[1].this))
            if len(path.steps) == 1:
                return Typed(self.shared.extracted(text, path), STRING)
        return Compiler._extract(self, node, text)


def fuse(source: Stream, programs: Sequence[Program], json: JsonCache) -> Fused | None:
    """Compile the programs over a stream into one function.

    Args:
        source: The stream that all of them read.
        programs: Their exact forms, in order.
        json: The JSON cache of the thread.

    Returns:
        None where the stream has columns that only the exact path reads.
    """
    schema = source.schema
    values = [(f"c{i}", c) for i, c in enumerate(schema.columns) if c.role == "VALUE"]
    keys = [(f"c{i}", c) for i, c in enumerate(schema.columns) if c.role == "KEY"]
    if len(values) + len(keys) < len(schema.columns) or any(c.type != STRING for _, c in keys):
        return None
    kinds = [c.type.base for _, c in values]
    if source.value_format == "KAFKA":
        if kinds != ["STRING"]:
            return None
    elif not values or not all(k in _NATIVE for k in kinds):
        return None

    shared = _Shared()
    key_column = keys[0][0] if keys else ""
    filters: list[str] = []
    sends: list[str] = []
    row_of: list[str] = []
    rows: dict[tuple[str, Any], tuple[str, str, list[str]]] = {}
    for index, program in enumerate(programs):
        compiler = _FusedCompiler(
            schema, program.select.alias, json, shared.constants, shared=shared
        )
        where = program.select.where
        filters.append("True" if where is None else compiler.predicate_code(where))
        columns = {n: compiler.value_code(e) for n, e in program.value_expressions.items()}
        identity = source.value_format == "JSON" and list(columns.items()) == [
            (c.name, code) for code, c in values
        ]
        row = "document" if identity else compiler.row_code(columns)
        writer = shared.constant(program.write_value)
        known = rows.setdefault((row, program.write_value), (f"v{len(rows)}", writer, []))
        known[2].append(f"w{index}")
        row_of.append(known[0])
        sends.append(_key_code(compiler, program, key_column, shared))

    body = _read_value(source, values, shared)
    for column in shared.documents:
        # The bytes parse faster than the text; they are the same, or decoding had failed.
        raw = "value" if source.value_format == "KAFKA" and column != key_column else column
        body += [f"d{column} = loads({raw})", f"if type(d{column}) is not dict: raise unusual"]
    for (column, name), (variable, path) in shared.fields.items():
        exact = shared.constant(path.extract)
        written = shared.constant(path.as_written)
        body += [
            f"{variable} = d{column}.get({name!r})",
            f"if type({variable}) is not str:",
            f"    if type({variable}) is float: {variable} = {written}({column}, repr({variable}))",
            f"    else: {variable} = None",
            f"    if {variable} is None: {variable} = {exact}({column}, d{column})",
        ]
    body += [f"w{i} = {code}" for i, code in enumerate(filters)]
    for (row, _), (variable, writer, users) in rows.items():
        body.append(f"if {' or '.join(users)}: {variable} = {writer}({row})")
    body += [f"if w{i}: y{i} = {code}" for i, code in enumerate(sends)]
    text = "\n".join(body)
    if key_column and re.search(rf"\b{key_column}\b", text):
        decode = f"{key_column} = None if key is None else key.decode('utf-8', 'replace')"
        body.insert(0, decode)
    text = _FUNCTION.format(
        zeros="; ".join(f"n{i} = 0" for i in range(len(programs))),
        key="key = m.key()" if keys else "pass",
        body="\n            ".join(body),
        any=" or ".join(f"w{i}" for i in range(len(programs))),
        sends="\n".join(
            _SEND.format(i=i, topic=program.sink_topic, value=row_of[i])
            for i, program in enumerate(programs)
        ),
        counts=", ".join(f"n{i}" for i in range(len(programs))),
    )
    namespace = {
        **Compiler.runtime(),
        **shared.constants,
        "unusual": _Unusual(),
        "loads": orjson.loads,
        "KafkaException": KafkaException,
        "UNKNOWN": TIMESTAMP_NOT_AVAILABLE,
    }
    # As in the compiler: the text is generated from parsed expressions, names and literals by repr.
    exec(compile(text, "<ksql>", "exec"), namespace)  # noqa: S102
    fused: Fused = namespace["route"]
    return fused


def _key_code(compiler: Compiler, program: Program, key_column: str, shared: _Shared) -> str:
    if program.key_expression is None:
        return "None"
    code = compiler.value_code(program.key_expression)
    if code == key_column and program.writes_text_key:
        return "(key if key is None or key.isascii() else key.decode('utf-8', 'replace').encode())"
    return f"{shared.constant(program.write_key)}({code})"


def _read_value(source: Stream, values: Sequence[tuple[str, Any]], shared: _Shared) -> list[str]:
    if source.value_format == "KAFKA":
        return [f"{values[0][0]} = value.decode()"]
    names = shared.constant(tuple(c.name for _, c in values))
    allowed = [(_NATIVE[c.type.base], type(None)) for _, c in values]
    seen: dict[tuple[type, ...], bool] = {}

    def readable(types: tuple[type, ...]) -> bool:
        known = all(t in wanted for t, wanted in zip(types, allowed, strict=True))
        if len(seen) < 10_000:
            seen[types] = known
        return known

    known, check = shared.constant(seen.get), shared.constant(readable)
    body = [
        "document = loads(value)",
        f"if type(document) is not dict or tuple(document) != {names}: raise unusual",
        "types = tuple(map(type, document.values()))",
        f"if not {known}(types) and not {check}(types): raise unusual",
        f"({', '.join(code for code, _ in values)},) = document.values()",
    ]
    for code, column in values:
        limit = _LIMITS.get(column.type.base)
        if limit is not None:
            body.append(
                f"if {code} is not None and not {-limit} <= {code} < {limit}: raise unusual"
            )
    return body


_FUNCTION = """
def route(messages, produce, send, exact):
    {zeros}
    size = t = 0
    for m in messages:
        try:
            value = m.value()
            kind, t = m.timestamp()
            if value is None or kind == UNKNOWN: raise unusual
            {key}
            size += len(value)
            p = m.partition()
            o = m.offset()
            {body}
        except Exception:
            exact(m)
            continue
        if {any}:
            headers = m.headers()
{sends}
    return [{counts}], size, t
"""
_SEND = """\
            if w{i}:
                n{i} += 1
                try:
                    produce({topic!r}, value={value}, key=y{i}, headers=headers, timestamp=t)
                except (BufferError, KafkaException):
                    send({topic!r}, value={value}, key=y{i}, headers=headers, timestamp=t)"""
