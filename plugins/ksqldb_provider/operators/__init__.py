"""Operators that ask or change something on a ksqlDB server."""

from __future__ import annotations

from ksqldb_provider.operators.deploy import KsqlDbDeployOperator
from ksqldb_provider.operators.execute import KsqlDbExecuteOperator
from ksqldb_provider.operators.query import KsqlDbQueryOperator
from ksqldb_provider.operators.remove import KsqlDbDropOperator, KsqlDbTerminateOperator

__all__ = [
    "KsqlDbDeployOperator",
    "KsqlDbDropOperator",
    "KsqlDbExecuteOperator",
    "KsqlDbQueryOperator",
    "KsqlDbTerminateOperator",
]
