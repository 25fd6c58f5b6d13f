"""ksqlDB SQL text: split into statements, read, and compared by meaning."""

from __future__ import annotations

from ksqldb_provider.sql.errors import SqlError
from ksqldb_provider.sql.query import SelectQuery, parse_query
from ksqldb_provider.sql.statement import (
    Column,
    Definition,
    Statement,
    StatementKind,
    TopicFlow,
    check_deployable,
    load_folder,
    parse_statement,
    sql_files,
    topic_flow,
)
from ksqldb_provider.sql.tokens import Token, TokenKind, split, tokenize
from ksqldb_provider.sql.values import bind, identifier, literal, name_of, without_values

__all__ = [
    "Column",
    "Definition",
    "SelectQuery",
    "SqlError",
    "Statement",
    "StatementKind",
    "Token",
    "TokenKind",
    "TopicFlow",
    "bind",
    "check_deployable",
    "identifier",
    "literal",
    "load_folder",
    "name_of",
    "parse_query",
    "parse_statement",
    "split",
    "sql_files",
    "tokenize",
    "topic_flow",
    "without_values",
]
