"""The alert: its fields, its identity and its bytes on the intake topic."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

ORIGINAL_FIELDS = (
    "tipo_emergencia",
    "cuerpo_necesario",
    "grado",
    "localizacion",
    "fecha",
    "requiere_medico",
    "contacto",
)
"""The seven fields of the first version of this system, same order and meaning."""

EXTRA_FIELDS = (
    "id_ejecucion",
    "codigo_provincia",
    "latitud",
    "longitud",
    "precision_m",
    "id_incidente",
)
"""What this version adds to an alert, in order, after the original fields.

precision_m is the radius in metres within which the position is right (as AML gives it);
id_incidente is the same for all alerts, calls and bodies, of one incident of a run.
"""

ALERT_FIELDS = ORIGINAL_FIELDS + EXTRA_FIELDS

ID_RECIPE = "uuid5(uuid5(NAMESPACE_URL, 'emergencias-112'), '<id_ejecucion>#<n>'), n from 0"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "emergencias-112")

T1 = "T1_Recepcion_avisos"
T2 = "T2_Centro_112"
T2_1 = "T2.1_Sanitarios_112"
T2_2 = "T2.2_Centro_de_mando"
T2_3 = "T2.3_Cuerpos_112"
T3 = "T3_No_Urgencias"
T4 = "T4_Revision_manual"
"""The topics that Python reads or writes by name; a test holds them to the catalogue."""

MEDICAL_BODIES = frozenset({"Ambulancia", "Medicos"})


def alert_id(id_ejecucion: str, sequence: int) -> str:
    """Return the id of the `sequence`-th alert (from 0) of a run.

    The id depends on nothing else, so a retried or repeated run plans the same ids and a resend
    can be told from a new alert.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{id_ejecucion}#{sequence}"))


def encode_alert(payload: dict[str, Any], id_ejecucion: str) -> bytes:
    """Return the intake topic's value: one JSON object, UTF-8, fields in the contract's order.

    `id_ejecucion` replaces whatever the payload says, so that a replayed export belongs to the run
    that replays it. A field without a value is left out: both mean that nothing is known, and
    ksqlDB's EXTRACTJSONFIELD would pass an explicit null on as the text 'null'.
    """
    known = payload | {"id_ejecucion": id_ejecucion}
    return orjson.dumps({name: known[name] for name in ALERT_FIELDS if known.get(name) is not None})


def needs_ambulance(requiere_medico: str | None, cuerpo_necesario: str | None) -> bool:
    """Say whether an urgent alert gets an ambulance.

    Routing of everything else is written in SQL; T2.2's filter is this function's complement, and
    reconciliation proves on every run that together they take each alert of T2 exactly once.
    """
    return requiere_medico == "Si" or cuerpo_necesario in MEDICAL_BODIES
