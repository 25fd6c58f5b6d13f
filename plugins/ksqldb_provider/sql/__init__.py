"""ksqlDB SQL text: split into statements, read, and compared by meaning."""

from __future__ import annotations

from ksqldb_provider.sql.errors import SqlError
from ksqldb_provider.sql.statement import (
    Column,
    Definition,
    Statement,
    StatementKind,
    check_deployable,
    load_folder,
    parse_statement,
)
from ksqldb_provider.sql.tokens import Token, TokenKind, split, tokenize

__all__ = [
    "Column",
    "Definition",
    "SqlError",
    "Statement",
    "StatementKind",
    "Token",
    "TokenKind",
    "check_deployable",
    "load_folder",
    "parse_statement",
    "split",
    "tokenize",
]
