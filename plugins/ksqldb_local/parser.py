"""ksqlDB SQL to statements: sqlglot tokenizes and parses the expressions, the rest is read here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlglot import Token, TokenType, exp, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ErrorLevel, ParseError, TokenError

from ksqldb_local.errors import StatementError
from ksqldb_local.formatting import column_name
from ksqldb_local.statements import (
    CreateAsSelect,
    CreateSource,
    Define,
    Describe,
    DropSource,
    Explain,
    InsertInto,
    InsertValues,
    Print,
    Query,
    QueryCommand,
    Select,
    SelectItem,
    SetProperty,
    Show,
    Statement,
    Unsupported,
)
from ksqldb_local.types import PRIMITIVES, Column, Schema, SqlType


class KsqlDialect(Dialect):
    """Quoting, comments and function calls as ksqlDB has them."""

    class Tokenizer(tokens.Tokenizer):
        """No command swallows the rest of its line, double quotes are names."""

        IDENTIFIERS = ["`", '"']  # noqa: RUF012 - sqlglot's interface
        QUOTES = ["'"]  # noqa: RUF012
        COMMANDS = set()  # noqa: RUF012

    class Parser(parser.Parser):
        """Every function is just a name with arguments, but CAST."""

        FUNCTIONS = {}  # noqa: RUF012
        NO_PAREN_FUNCTIONS = {}  # noqa: RUF012
        FUNCTION_PARSERS = {  # noqa: RUF012
            name: parse for name, parse in parser.Parser.FUNCTION_PARSERS.items() if name == "CAST"
        }


_DIALECT = KsqlDialect()
_NAMES = {TokenType.VAR, TokenType.IDENTIFIER}
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.CASE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.END}
_OPERANDS = {TokenType.STRING, TokenType.NUMBER, TokenType.NULL, TokenType.TRUE, TokenType.FALSE}
_CLAUSES = {"FROM", "WHERE", "WINDOW", "PARTITION", "GROUP", "HAVING", "EMIT", "LIMIT", "AS"}
_JOINS = {"JOIN", "INNER", "LEFT", "RIGHT", "FULL", "OUTER"}


def parse(sql: str) -> list[Statement]:
    """Parse a request's text.

    Args:
        sql: Any number of statements, each ended by a semicolon.

    Returns:
        The statements in order; empty for blank text and for comments only.

    Raises:
        StatementError: With line and column of the first thing that cannot be read.
    """
    try:
        stream = _DIALECT.tokenize(sql)
    except TokenError as error:
        raise StatementError(f"Syntax Error\n{error}", statement=sql) from error
    statements: list[Statement] = []
    start = 0
    for index, token in enumerate(stream):
        if token.token_type is TokenType.SEMICOLON:
            if index > start:
                statements.append(_Reader(sql, stream[start : index + 1]).statement())
            start = index + 1
    if start < len(stream):
        # What cannot be a statement is the better message than the semicolon it lacks as well.
        _Reader(sql, stream[start:]).statement()
        line, column = _end_position(sql)
        raise StatementError(
            f"line {line}:{column}: Syntax Error\nmissing ';' at '<EOF>'", statement=sql
        )
    return statements


def split(sql: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of a request's statements, each with all the text before it.

    Raises:
        StatementError: A quote or comment has no end.
    """
    try:
        stream = _DIALECT.tokenize(sql)
    except TokenError as error:
        raise StatementError(f"Syntax Error\n{error}", statement=sql) from error
    start = 0
    for token in stream:
        if token.token_type is TokenType.SEMICOLON:
            yield sql[:start], sql[start : token.end + 1]
            start = token.end + 1
    yield sql[:start], sql[start:]


def _with_aliases(items: list[SelectItem]) -> list[SelectItem]:
    """Name the items that the statement leaves without a name, as ksqlDB does."""
    named = []
    count = 0
    for item in items:
        if item.expression is not None and item.alias is None:
            if isinstance(item.expression, exp.Column):
                alias = column_name(item.expression)
            else:
                alias = f"KSQL_COL_{count}"
                count += 1
            item = replace(item, alias=alias)
        named.append(item)
    return named


def _end_position(sql: str) -> tuple[int, int]:
    lines = sql.split("\n")
    return len(lines), len(lines[-1]) + 1


class _Reader:
    """Reads one statement from its tokens."""

    def __init__(self, sql: str, stream: Sequence[Token]) -> None:
        self._sql = sql
        self._tokens = stream
        self._at = 0
        self._star_of: list[str] = []  # the x of each x.*
        end = stream[-1].end + 1
        self._text = sql[stream[0].start : end]

    # --- tokens -----------------------------------------------------------------------------

    def _peek(self, ahead: int = 0) -> Token | None:
        index = self._at + ahead
        return self._tokens[index] if index < len(self._tokens) else None

    def _position(self, token: Token) -> tuple[int, int]:
        before = self._sql[: token.start]
        return before.count("\n") + 1, token.start - (before.rfind("\n") + 1) + 1

    def _fail(self, message: str | None = None) -> StatementError:
        token = self._peek()
        if token is None or token.token_type is TokenType.SEMICOLON:
            if token is None:
                line, column = _end_position(self._sql)
            else:
                line, column = self._position(token)
            near = "<EOF>" if token is None else ";"
        else:
            line, column = self._position(token)
            near = self._sql[token.start : token.end + 1]
        detail = message or f"Syntax error at or near '{near}' at line {line}:{column}"
        return StatementError(f"line {line}:{column}: Syntax Error\n{detail}", statement=self._sql)

    def _match(self, words: tuple[str, ...]) -> int:
        """Return how many tokens the words are; 0 when they do not come next."""
        wanted = list(words)
        count = 0
        while wanted:
            token = self._peek(count)
            if token is None or token.token_type in (TokenType.IDENTIFIER, TokenType.STRING):
                return 0
            given = token.text.upper().split()  # some tokens are several words: PARTITION BY
            if not given or wanted[: len(given)] != given:
                return 0
            del wanted[: len(given)]
            count += 1
        return count

    def _is(self, *words: str) -> bool:
        return self._match(words) > 0

    def _accept(self, *words: str) -> bool:
        count = self._match(words)
        self._at += count
        return count > 0

    def _expect(self, *words: str) -> None:
        for word in words:
            if not self._accept(word):
                raise self._fail()

    def _name(self) -> str:
        token = self._peek()
        if token is None:
            raise self._fail()
        if token.token_type is TokenType.IDENTIFIER:
            self._at += 1
            return token.text
        if token.text and (token.text[0].isalpha() or token.text[0] in "_@"):
            self._at += 1
            return token.text.upper()
        raise self._fail()

    def _string(self) -> str:
        token = self._peek()
        if token is None or token.token_type is not TokenType.STRING:
            raise self._fail()
        self._at += 1
        return token.text

    def _integer(self) -> int:
        token = self._peek()
        if token is None or token.token_type is not TokenType.NUMBER or not token.text.isdigit():
            raise self._fail()
        self._at += 1
        return int(token.text)

    def _end(self) -> None:
        token = self._peek()
        if token is not None and token.token_type is not TokenType.SEMICOLON:
            raise self._fail()

    # --- statements -------------------------------------------------------------------------

    def statement(self) -> Statement:
        """Read the whole statement; everything up to its semicolon must belong to it."""
        first = self._tokens[0]
        reader = {
            "CREATE": self._create,
            "DROP": self._drop,
            "TERMINATE": self._query_command,
            "PAUSE": self._query_command,
            "RESUME": self._query_command,
            "SHOW": self._show,
            "LIST": self._show,
            "DESCRIBE": self._describe,
            "EXPLAIN": self._explain,
            "SELECT": self._query,
            "SET": self._set,
            "UNSET": self._set,
            "DEFINE": self._define,
            "UNDEFINE": self._define,
            "PRINT": self._print,
            "INSERT": self._insert,
            "ALTER": self._unsupported,
            "ASSERT": self._unsupported,
        }.get(first.text.upper() if first.token_type is not TokenType.STRING else "")
        if reader is None:
            word = self._sql[first.start : first.end + 1]
            line, column = self._position(first)
            raise StatementError(
                f"line {line}:{column}: Syntax Error\nUnknown statement '{word}'",
                statement=self._sql,
            )
        result = reader()
        self._end()
        return result

    def _create(self) -> Statement:
        self._expect("CREATE")
        or_replace = self._accept("OR", "REPLACE")
        if self._is("TYPE") or self._is("SOURCE", "CONNECTOR") or self._is("SINK", "CONNECTOR"):
            return self._unsupported()
        if self._is("SOURCE"):
            return self._unsupported()
        if self._accept("STREAM"):
            kind = "STREAM"
        elif self._accept("TABLE"):
            kind = "TABLE"
        else:
            raise self._fail()
        if_not_exists = self._accept("IF", "NOT", "EXISTS")
        name = self._name()
        schema = self._columns() if self._is("(") else None
        properties = self._with() if self._accept("WITH") else {}
        if schema is None and self._accept("AS"):
            if kind == "TABLE":
                return self._unsupported()
            return CreateAsSelect(
                text=self._text,
                name=name,
                properties=properties,
                select=self._select(),
                or_replace=or_replace,
                if_not_exists=if_not_exists,
            )
        return CreateSource(
            text=self._text,
            kind=kind,
            name=name,
            schema=schema or Schema(()),
            properties=properties,
            or_replace=or_replace,
            if_not_exists=if_not_exists,
        )

    def _insert(self) -> Statement:
        self._expect("INSERT", "INTO")
        name = self._name()
        columns: tuple[str, ...] = ()
        if self._accept("("):
            columns = (self._name(),)
            while self._accept(","):
                columns += (self._name(),)
            self._expect(")")
        elif self._is("WITH") or self._is("SELECT"):
            properties = self._with() if self._accept("WITH") else {}
            return InsertInto(self._text, name, properties, self._select())
        self._expect("VALUES", "(")
        values = [self._expression()]
        while self._accept(","):
            values.append(self._expression())
        self._expect(")")
        return InsertValues(self._text, name, columns, tuple(values))

    def _columns(self) -> Schema:
        self._expect("(")
        columns = []
        while True:
            name = self._name()
            kind = self._type()
            role = "VALUE"
            if self._accept("PRIMARY", "KEY"):
                role = "PRIMARY KEY"
            elif self._accept("KEY"):
                role = "KEY"
            elif self._accept("HEADERS"):
                role = "HEADERS"
            columns.append(Column(name, kind, role))
            if self._accept(")"):
                return Schema(tuple(columns))
            self._expect(",")

    def _type(self) -> SqlType:
        token = self._peek()
        if token is None:
            raise self._fail()
        word = token.text.upper()
        if word in PRIMITIVES:
            self._at += 1
            if self._accept("("):  # VARCHAR(STRING) and VARCHAR(n) are accepted and mean VARCHAR
                self._at += 1
                self._expect(")")
            return PRIMITIVES[word]
        if word in ("TIMESTAMP", "DATE", "TIME"):
            self._at += 1
            return SqlType(word)
        if word == "DECIMAL":
            self._at += 1
            self._expect("(")
            precision = self._integer()
            self._expect(",")
            scale = self._integer()
            self._expect(")")
            return SqlType("DECIMAL", precision=precision, scale=scale)
        if word == "ARRAY":
            self._at += 1
            self._expect("<")
            element = self._type()
            self._close_angle()
            return SqlType("ARRAY", element=element)
        if word == "MAP":
            self._at += 1
            self._expect("<")
            self._type()
            self._expect(",")
            element = self._type()
            self._close_angle()
            return SqlType("MAP", element=element)
        if word == "STRUCT":
            self._at += 1
            self._expect("<")
            fields = []
            while True:
                name = self._name()
                fields.append((name, self._type()))
                if not self._accept(","):
                    break
            self._close_angle()
            return SqlType("STRUCT", fields=tuple(fields))
        raise self._fail(f"Unknown type '{token.text}'")

    def _close_angle(self) -> None:
        self._expect(">")

    def _with(self) -> dict[str, str | int | bool]:
        self._expect("(")
        properties: dict[str, str | int | bool] = {}
        while not self._accept(")"):
            name = self._name() if not self._is_string() else self._string().upper()
            self._expect("=")
            token = self._peek()
            if token is None:
                raise self._fail()
            if token.token_type is TokenType.STRING:
                properties[name] = self._string()
            elif token.token_type is TokenType.NUMBER:
                properties[name] = self._integer()
            elif self._accept("TRUE"):
                properties[name] = True
            elif self._accept("FALSE"):
                properties[name] = False
            elif self._accept("-"):
                properties[name] = -self._integer()
            else:
                raise self._fail()
            if not self._accept(",") and not self._is(")"):
                raise self._fail()
        return properties

    def _is_string(self) -> bool:
        token = self._peek()
        return token is not None and token.token_type is TokenType.STRING

    def _query(self) -> Statement:
        return Query(text=self._text, select=self._select())

    def _select(self) -> Select:
        self._expect("SELECT")
        if self._is("DISTINCT"):
            raise self._fail()
        items = [self._select_item()]
        while self._accept(","):
            items.append(self._select_item())
        items = _with_aliases(items)
        self._expect("FROM")
        source = self._name()
        alias = source
        token = self._peek()
        if self._accept("AS") or (
            token is not None
            and token.token_type in _NAMES
            and token.text.upper() not in _CLAUSES | _JOINS
        ):
            alias = self._name()
        if strange := set(self._star_of) - {alias, source}:
            raise StatementError(
                f"'{min(strange)}' is not a valid stream/table name or alias.",
                statement=self._text,
            )
        for clause in (*sorted(_JOINS), "WINDOW", ","):
            if self._is(clause):
                raise self._unsupported_clause("a join or window")
        where = self._expression() if self._accept("WHERE") else None
        partition_by: list[exp.Expression] = []
        if self._accept("PARTITION", "BY"):
            partition_by.append(self._expression())
            while self._accept(","):
                partition_by.append(self._expression())
        if self._is("GROUP", "BY") or self._is("HAVING"):
            raise self._unsupported_clause("an aggregation")
        emit_changes = self._accept("EMIT", "CHANGES")
        if not emit_changes and self._is("EMIT"):
            raise self._unsupported_clause("EMIT FINAL")
        limit = self._integer() if self._accept("LIMIT") else None
        return Select(
            items=tuple(items),
            source=source,
            alias=alias,
            where=where,
            partition_by=tuple(partition_by),
            emit_changes=emit_changes,
            limit=limit,
        )

    def _unsupported_clause(self, what: str) -> StatementError:
        return StatementError(
            f"{what} is not supported by ksqldb_local, which only routes streams: "
            "send this statement to a ksqlDB server.",
            statement=self._text,
        )

    def _select_item(self) -> SelectItem:
        token = self._peek()
        if token is None:
            raise self._fail()
        line, column = self._position(token)
        if token.token_type is TokenType.STAR:
            self._at += 1
            return SelectItem(None, None, line, column)
        dot, star = self._peek(1), self._peek(2)
        if dot is not None and star is not None and (dot.text, star.text) == (".", "*"):
            self._star_of.append(self._name())
            self._at += 2
            return SelectItem(None, None, line, column)
        start, end = self._at, self._expression_end()
        alias: str | None = None
        after = self._tokens[end] if end < len(self._tokens) else None
        if after is not None and after.text.upper() == "AS":
            expression = self._parse_expression(start, end)
            self._at = end + 1
            alias = self._name()
        else:
            last, before = self._tokens[end - 1], self._tokens[end - 2]
            if (
                end - start > 1
                and last.token_type in _NAMES
                and (before.token_type in _NAMES | _OPERANDS | _CLOSING)
            ):
                expression = self._parse_expression(start, end - 1)
                self._at = end - 1
                alias = self._name()
            else:
                expression = self._parse_expression(start, end)
                self._at = end
        return SelectItem(expression, alias, line, column)

    def _expression(self) -> exp.Expression:
        start, end = self._at, self._expression_end()
        expression = self._parse_expression(start, end)
        self._at = end
        return expression

    def _expression_end(self) -> int:
        """Return the index of the first token after the expression that starts here."""
        depth = 0
        for index in range(self._at, len(self._tokens)):
            token = self._tokens[index]
            if token.token_type in _OPENING:
                depth += 1
            elif token.token_type in _CLOSING:
                if depth == 0:
                    return index
                depth -= 1
            elif depth == 0 and (
                token.token_type in (TokenType.COMMA, TokenType.SEMICOLON)
                or (
                    token.token_type is not TokenType.STRING
                    and token.token_type is not TokenType.IDENTIFIER
                    and token.text.upper().split(" ")[0] in _CLAUSES
                    and not self._ends_distinct_from(index)
                )
            ):
                return index
        return len(self._tokens)

    def _ends_distinct_from(self, index: int) -> bool:
        words = [t.text.upper() for t in self._tokens[max(index - 1, 0) : index + 1]]
        return words == ["DISTINCT", "FROM"]

    def _parse_expression(self, start: int, end: int) -> exp.Expression:
        if end <= start:
            raise self._fail()
        try:
            parsed = _DIALECT.parser(error_level=ErrorLevel.IMMEDIATE).parse_into(
                exp.Condition, list(self._tokens[start:end]), self._sql
            )[0]
        except ParseError as error:
            detail = error.errors[0] if error.errors else {}
            nested = detail.get("into_expression")
            cause = error.__cause__
            if nested and isinstance(cause, ParseError) and cause.errors:
                detail = cause.errors[0]
            near = str(detail.get("highlight") or self._tokens[start].text)
            line, column = self._position(self._tokens[start])
            raise StatementError(
                f"line {line}:{column}: Syntax Error\nSyntax error at or near '{near}': "
                f"{detail.get('description') or error}",
                statement=self._sql,
            ) from error
        if not isinstance(parsed, exp.Expression):
            raise self._fail()
        return parsed

    def _drop(self) -> Statement:
        self._expect("DROP")
        if self._accept("STREAM"):
            kind = "STREAM"
        elif self._accept("TABLE"):
            kind = "TABLE"
        elif self._is("CONNECTOR") or self._is("TYPE"):
            return self._unsupported()
        else:
            raise self._fail()
        if_exists = self._accept("IF", "EXISTS")
        name = self._name()
        delete_topic = self._accept("DELETE", "TOPIC")
        return DropSource(self._text, kind, name, if_exists, delete_topic)

    def _query_command(self) -> Statement:
        action = self._tokens[0].text.upper()
        self._at += 1
        query_id = None if self._accept("ALL") else self._name().upper()
        return QueryCommand(self._text, action, query_id)

    def _show(self) -> Statement:
        self._at += 1
        what = self._name()
        every = what == "ALL" and self._is("TOPICS")
        if every:
            what = self._name()
        if what not in (
            "STREAMS",
            "TABLES",
            "QUERIES",
            "TOPICS",
            "VARIABLES",
            "PROPERTIES",
            "FUNCTIONS",
            "TYPES",
            "CONNECTORS",
        ):
            self._at -= 1
            raise self._fail()
        return Show(self._text, what, self._accept("EXTENDED"), every)

    def _describe(self) -> Statement:
        self._expect("DESCRIBE")
        if self._is("FUNCTION") or self._is("CONNECTOR") or self._is("STREAMS"):
            return self._unsupported()
        extended = self._accept("EXTENDED")  # the older order of the words
        name = self._name()
        return Describe(self._text, name, self._accept("EXTENDED") or extended)

    def _explain(self) -> Statement:
        self._expect("EXPLAIN")
        if self._is("SELECT") or self._is("CREATE"):
            return self._unsupported()
        return Explain(self._text, self._name().upper())

    def _set(self) -> Statement:
        unset = self._accept("UNSET")
        if unset:
            return SetProperty(self._text, self._string(), None)
        self._expect("SET")
        name = self._string()
        self._expect("=")
        return SetProperty(self._text, name, self._string())

    def _define(self) -> Statement:
        token = self._peek(1)
        if token is None:
            raise self._fail()
        undefine = self._accept("UNDEFINE")
        if not undefine:
            self._expect("DEFINE")
        self._at += 1
        if undefine:
            return Define(self._text, token.text, None)
        self._expect("=")
        return Define(self._text, token.text, self._string())

    def _print(self) -> Statement:
        self._at = len(self._tokens) - 1
        return Print(self._text)

    def _unsupported(self) -> Statement:
        words = " ".join(t.text for t in self._tokens[:3])
        self._at = len(self._tokens) - 1
        return Unsupported(self._text, words)
