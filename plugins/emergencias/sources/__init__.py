"""Alerts from a file: JSON list, JSON Lines, CSV or Parquet, gzipped or not, of any size.

A file is read wholly before anything is produced (`inspect`), so that half a replay of a broken
file cannot happen; reading holds one batch in memory, however large the file is.

Data flows one way: a stored file → its encoding and format → rows → a mapping's fields → the
contract's words → alerts. What a value says is not judged here: a null, unknown or odd value passes
unchanged, and routing sends it to manual review, where a person sees it. A row that is no alert is
refused alone; a file whose rows cannot be told apart is refused as a whole.
"""

from __future__ import annotations

from emergencias.sources.alerts import MAX_ALERT_BYTES, inspect, read
from emergencias.sources.binding import Payload
from emergencias.sources.errors import SourceError
from emergencias.sources.formats import FORMATS
from emergencias.sources.mapping import Mapping, MappingError, load_mapping
from emergencias.sources.refused import REFUSED_FILE, refused_rows
from emergencias.sources.report import SourceReport, render_report, report_table
from emergencias.sources.rows import Refused
from emergencias.sources.stored import sha256

__all__ = [
    "FORMATS",
    "MAX_ALERT_BYTES",
    "REFUSED_FILE",
    "Mapping",
    "MappingError",
    "Payload",
    "Refused",
    "SourceError",
    "SourceReport",
    "inspect",
    "load_mapping",
    "read",
    "refused_rows",
    "render_report",
    "report_table",
    "sha256",
]
