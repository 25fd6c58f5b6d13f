"""What a statement says: its kind, what it makes, what it reads, and its definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ksqldb_provider.sql.errors import SqlError
from ksqldb_provider.sql.expression import Canonical, canonical
from ksqldb_provider.sql.tokens import Token, TokenKind, split

_CLAUSES = ("FROM", "WINDOW", "WHERE", "PARTITION", "GROUP", "HAVING", "EMIT", "LIMIT")
_CASE_FREE_PROPERTIES = ("VALUE_FORMAT", "KEY_FORMAT", "FORMAT", "CLEANUP_POLICY")
_TYPE_SYNONYMS = {"VARCHAR": "STRING", "INT": "INTEGER"}


class StatementKind(Enum):
    """The kinds that a deployment knows."""

    CREATE_SOURCE = "create source"
    CREATE_AS_SELECT = "create as select"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Column:
    """A declared column: name as ksqlDB keeps it, type, and KEY, PRIMARY KEY or HEADERS."""

    name: str
    type: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """A CREATE statement in a form in which two equal ones compare equal.

    The server's echo of a statement and the statement itself give the same definition, but for
    the properties: the server fills in those that were not given.
    """

    object_type: str
    name: str
    properties: Mapping[str, str]
    columns: tuple[Column, ...] = ()
    select: tuple[tuple[str, Canonical], ...] = ()
    sources: tuple[str, ...] = ()
    where: Canonical = ()
    clauses: Mapping[str, Canonical] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        """The Kafka topic; ksqlDB takes the object's name when none is given."""
        return self.properties.get("KAFKA_TOPIC", self.name)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file.

    `text` runs from its first token to its `;`. `name`, `topic` and `sources` are as ksqlDB keeps
    them (unquoted names in upper case) and empty where the kind has none.
    """

    text: str
    kind: StatementKind
    name: str = ""
    topic: str = ""
    sources: tuple[str, ...] = ()
    path: Path | None = None
    definition: Definition | None = None
    _head_end: int = 0

    @property
    def sink_topic(self) -> str:
        """The topic that its query writes; empty when it starts no query."""
        return self.topic if self.kind is StatementKind.CREATE_AS_SELECT else ""

    def create_text(self, *, or_replace: bool = False) -> str:
        """Return what to send: the statement as a plain CREATE or a CREATE OR REPLACE.

        IF NOT EXISTS is left out: the server would answer "fine" and change nothing.
        """
        if self.definition is None:
            return self.text
        head = "CREATE OR REPLACE" if or_replace else "CREATE"
        return f"{head} {self.definition.object_type} {self.text[self._head_end :]}"


def parse_statement(text: str, *, path: Path | None = None) -> Statement:
    """Read exactly one statement.

    Args:
        text: SQL with one statement and any number of comments.
        path: The file it comes from, for messages.

    Raises:
        SqlError: There is none or more than one, or it cannot be read.
    """
    try:
        statements = split(text)
        if not statements:
            raise SqlError("there is no statement in it")
        if len(statements) > 1:
            raise SqlError(
                "a second statement starts here: move it into a file of its own, so that each "
                "is planned, applied and reported by itself",
                text=text,
                position=statements[1][0].start,
            )
        return _parse(statements[0], text, path)
    except SqlError as error:
        if path is None:
            raise
        raise error.in_file(path) from error


def load_folder(path: str | Path) -> tuple[Statement, ...]:
    """Read the `*.sql` files of a folder in the order of their names.

    Raises:
        SqlError: No such folder, no files, a file without exactly one statement, or a name that
            two files create.
    """
    statements = tuple(
        parse_statement(file.read_text(encoding="utf-8"), path=file) for file in sql_files(path)
    )
    check_deployable(statements)
    return statements


def sql_files(path: str | Path) -> list[Path]:
    """Return the `*.sql` files of a folder in the order of their names.

    Raises:
        SqlError: No such folder, or no files.
    """
    folder = Path(path)
    files = sorted(folder.glob("*.sql"))
    if not files:
        raise SqlError("no such folder" if not folder.is_dir() else "no *.sql files", path=folder)
    return files


@dataclass(frozen=True, slots=True)
class TopicFlow:
    """What statements read and write, each topic once, in the order of the statements."""

    read: tuple[str, ...]
    written: tuple[str, ...]


def topic_flow(texts: Iterable[str]) -> TopicFlow:
    """Say which topics statements read from outside and which their queries write.

    Only names are read, no expressions, so it is quick enough for the parsing of a DAG file. A
    stream that none of the statements makes is left out: its topic is known to the server alone.

    Raises:
        SqlError: A text cannot be read.
    """
    topics: dict[str, str] = {}
    read: dict[str, None] = {}
    written: dict[str, None] = {}
    for text in texts:
        for tokens in split(text):
            reader = _Reader(tokens, text)
            head = _head(reader)
            if head is None:
                continue
            topic = topics[head.name] = head.properties.get("KAFKA_TOPIC", head.name)
            if reader.take_words("AS"):
                sources, _ = _sources(_select_clauses(reader)["FROM"])
                read |= {topics[source]: None for source in sources if source in topics}
                written[topic] = None
    return TopicFlow(tuple(topic for topic in read if topic not in written), tuple(written))


def check_deployable(statements: Sequence[Statement]) -> None:
    """Refuse what a deployment cannot plan.

    Raises:
        SqlError: A statement other than CREATE STREAM or TABLE, or two for one name.
    """
    seen: dict[str, Statement] = {}
    for statement in statements:
        if statement.definition is None:
            raise SqlError(
                "only CREATE STREAM and CREATE TABLE (also AS SELECT) can be deployed, not "
                f"{statement.text.split(None, 1)[0].upper()}; what has to happen once belongs "
                "into a task of its own",
                path=statement.path,
            )
        if other := seen.get(statement.name):
            raise SqlError(
                f"{statement.name} is created twice: {other.path or 'an earlier statement'} "
                "creates it too",
                path=statement.path,
            )
        seen[statement.name] = statement


class _Reader:
    """Reads tokens one after the other."""

    def __init__(self, tokens: Sequence[Token], text: str) -> None:
        self._tokens = tokens
        self._text = text
        self._index = 0

    @property
    def token(self) -> Token:
        return self._tokens[min(self._index, len(self._tokens) - 1)]

    def take(self) -> Token:
        token = self.token
        self._index += 1
        return token

    def take_words(self, *words: str) -> bool:
        following = self._tokens[self._index : self._index + len(words)]
        if len(following) < len(words) or not all(
            token.is_word(word) for token, word in zip(following, words, strict=True)
        ):
            return False
        self._index += len(words)
        return True

    def take_symbol(self, symbol: str) -> bool:
        if not self.token.is_symbol(symbol):
            return False
        self._index += 1
        return True

    def name(self, what: str) -> str:
        if self.token.kind not in (TokenKind.WORD, TokenKind.QUOTED):
            raise self.error(f"{what} is missing before {self.token.text!r}")
        return self.take().value

    def in_parentheses(self) -> list[Token]:
        """Take what stands up to the closing parenthesis of one that was just taken."""
        taken: list[Token] = []
        depth = 1
        while not self.token.is_symbol(";"):
            token = self.take()
            depth += token.is_symbol("(") - token.is_symbol(")")
            if depth == 0:
                return taken
            taken.append(token)
        raise self.error("a parenthesis is not closed")

    def rest(self) -> list[Token]:
        """Return what is left, without the closing `;`."""
        return list(self._tokens[self._index : -1])

    def error(self, problem: str) -> SqlError:
        return SqlError(problem, text=self._text, position=self.token.start)


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before AS, or all of a CREATE without one."""

    object_type: str
    name: str
    columns: tuple[Column, ...]
    properties: dict[str, str]
    start: int


def _head(reader: _Reader) -> _Head | None:
    """Take the head of a CREATE STREAM or TABLE; None if the statement is something else."""
    if not reader.take_words("CREATE"):
        return None
    reader.take_words("OR", "REPLACE")
    prefix = "SOURCE " if reader.take_words("SOURCE") else ""
    if reader.take_words("STREAM"):
        object_type = prefix + "STREAM"
    elif reader.take_words("TABLE"):
        object_type = prefix + "TABLE"
    else:
        return None
    reader.take_words("IF", "NOT", "EXISTS")
    start = reader.token.start
    name = reader.name("the name of the stream")
    columns: tuple[Column, ...] = ()
    properties: dict[str, str] = {}
    if reader.take_symbol("("):
        parts = _split_at_commas(reader.in_parentheses(), types=True)
        columns = tuple(_column(part, reader) for part in parts)
    if reader.take_words("WITH"):
        if not reader.take_symbol("("):
            raise reader.error("'(' is missing after WITH")
        properties = dict(
            _property(part, reader) for part in _split_at_commas(reader.in_parentheses())
        )
    return _Head(object_type, name, columns, properties, start)


def _parse(tokens: Sequence[Token], text: str, path: Path | None) -> Statement:
    whole = text[tokens[0].start : tokens[-1].end]
    reader = _Reader(tokens, text)
    head = _head(reader)
    if head is None:
        return Statement(text=whole, kind=StatementKind.OTHER, path=path)
    if reader.take_words("AS"):
        kind = StatementKind.CREATE_AS_SELECT
        definition = _query(reader, text, head)
    else:
        kind = StatementKind.CREATE_SOURCE
        definition = Definition(head.object_type, head.name, head.properties, columns=head.columns)
        if reader.rest():
            raise reader.error(f"{reader.token.text!r} is not expected here")
    return Statement(
        text=whole,
        kind=kind,
        name=head.name,
        topic=definition.topic,
        sources=definition.sources,
        path=path,
        definition=definition,
        _head_end=head.start - tokens[0].start,
    )


def _split_at_commas(tokens: Sequence[Token], *, types: bool = False) -> list[list[Token]]:
    """Cut at the commas that stand outside brackets; only in types `<` and `>` are such."""
    opening, closing = ("([<", ")]>") if types else ("([", ")]")
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.kind is TokenKind.SYMBOL:
            depth += (token.text in opening) - (token.text in closing)
        if token.is_symbol(",") and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _column(tokens: Sequence[Token], reader: _Reader) -> Column:
    if len(tokens) < 2:
        raise reader.error("a column needs a name and a type")
    words = list(tokens[1:])
    role = ""
    for roles in (("PRIMARY", "KEY"), ("KEY",), ("HEADERS",)):
        if len(words) > len(roles) and all(
            token.is_word(word) for token, word in zip(words[-len(roles) :], roles, strict=True)
        ):
            role = " ".join(roles)
            words = words[: -len(roles)]
            break
    column_type = " ".join(
        _TYPE_SYNONYMS.get(token.value, token.value) if token.kind is TokenKind.WORD else token.text
        for token in words
    )
    return Column(tokens[0].value, column_type, role)


def _property(tokens: Sequence[Token], reader: _Reader) -> tuple[str, str]:
    if len(tokens) < 3 or not tokens[1].is_symbol("="):
        raise reader.error("a property in WITH is written NAME = value")
    name = tokens[0].value.upper()
    value = "".join(token.value for token in tokens[2:])
    return name, value.upper() if name in _CASE_FREE_PROPERTIES else value


def _query(reader: _Reader, text: str, head: _Head) -> Definition:
    parts = _select_clauses(reader)
    sources, hidden = _sources(parts["FROM"])
    others: dict[str, Canonical] = {
        clause: tuple(token.value for token in tokens)
        for clause, tokens in parts.items()
        if clause not in ("SELECT", "FROM", "WHERE", "PARTITION", "EMIT")
    }
    if len(sources) > 1:
        others["FROM"] = tuple(token.value for token in parts["FROM"])
    if partition := parts.get("PARTITION"):
        others["PARTITION"] = canonical(_text(partition[1:], text), sources=hidden)
    where = parts.get("WHERE")
    return Definition(
        head.object_type,
        head.name,
        head.properties,
        select=_select(parts["SELECT"], text, hidden),
        sources=sources,
        where=canonical(_text(where, text), sources=hidden) if where else (),
        clauses=others,
    )


def _select_clauses(reader: _Reader) -> dict[str, list[Token]]:
    if not reader.take_words("SELECT"):
        raise reader.error("SELECT is missing after AS")
    parts = _clauses(reader.rest())
    if not parts.get("FROM"):
        raise reader.error("FROM is missing")
    return parts


def _clauses(tokens: Sequence[Token]) -> dict[str, list[Token]]:
    """Cut a query at the keywords that stand outside parentheses and CASE."""
    parts: dict[str, list[Token]] = {"SELECT": []}
    clause = "SELECT"
    depth = 0
    before: Token | None = None
    for token in tokens:
        depth += token.is_symbol("(") - token.is_symbol(")")
        compares = before is not None and before.is_word("DISTINCT")  # IS DISTINCT FROM
        before = token
        if depth == 0 and token.is_word(*_CLAUSES) and not compares:
            clause = token.value
            parts[clause] = []
        else:
            parts[clause].append(token)
    return parts


def _sources(tokens: Sequence[Token]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the streams read, and the qualifiers that say nothing (none with a join)."""
    sources: list[str] = []
    expected = True
    for token in tokens:
        if expected and token.kind in (TokenKind.WORD, TokenKind.QUOTED):
            sources.append(token.value)
            expected = False
        elif token.is_word("JOIN"):
            expected = True
    if len(sources) > 1:
        return tuple(sources), frozenset()
    names = (token.value for token in tokens if not token.is_word("AS"))
    return tuple(sources), frozenset(names)


def _select(
    tokens: Sequence[Token], text: str, hidden: frozenset[str]
) -> tuple[tuple[str, Canonical], ...]:
    """Return (output name, expression) of each item; `*` stands for itself."""
    items: list[tuple[str, Canonical]] = []
    unnamed = 0
    for part in _split_at_commas(tokens):
        if part[-1].is_symbol("*") and len(part) in (1, 3):
            items.append(("*", "*"))
            continue
        expression, name = _alias(part)
        tree = canonical(_text(expression, text), sources=hidden)
        if not name:
            if isinstance(tree, tuple) and tree[0] == "Column":
                name = str(tree[-1])
            else:
                name = f"KSQL_COL_{unnamed}"
                unnamed += 1
        items.append((name, tree))
    return tuple(items)


def _alias(tokens: Sequence[Token]) -> tuple[Sequence[Token], str]:
    """Split `expression [AS] name`; a name after an operator or a dot is no alias."""
    if len(tokens) < 2 or tokens[-1].kind not in (TokenKind.WORD, TokenKind.QUOTED):
        return tokens, ""
    before = tokens[-2]
    if before.is_word("AS"):
        return tokens[:-2], tokens[-1].value
    ends_expression = (
        before.kind is not TokenKind.SYMBOL or before.text in (")", "]")
    ) and not before.is_word("AND", "OR", "NOT", "IS", "IN", "LIKE", "BETWEEN", "CASE", "ELSE")
    if ends_expression and not tokens[-1].is_word("END", "NULL", "TRUE", "FALSE"):
        return tokens[:-1], tokens[-1].value
    return tokens, ""


def _text(tokens: Sequence[Token], text: str) -> str:
    """Return the tokens' text without the comments between them."""
    return " ".join(text[token.start : token.end] for token in tokens)
