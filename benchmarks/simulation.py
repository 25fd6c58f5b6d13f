"""Measure alerts/s generated and encoded by the simulator, beside Faker's way, row by row.

Faker's contestant does what the first version of this system did: one dictionary at a time, with
city, telephone number and street from Faker's usual es_ES proxy and random.choice for the words,
then json.dumps. All run on one core and take turns; the CPU time of the process says more than the
clock where the machine has other work.

Example:
    .venv/bin/python benchmarks/simulation.py --alerts 1000000 --runs 5
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
from faker import Faker

from emergencias.profiles import load_profile, profile_names
from emergencias.simulator import simulate_lines

RUN = "bench/emergencias_112/manual__2026-01-01"
START = datetime(2026, 1, 1, tzinfo=UTC)
FAKER_SHARE = 50
"""Faker gets so many times fewer alerts: it would take minutes, and its speed does not depend."""


def simulator(profile: str) -> Callable[[int], int]:
    """Return a contestant that writes T1's lines and returns how many."""

    def work(alerts: int) -> int:
        period = (START, START + timedelta(days=1))
        return sum(
            len(block.splitlines())
            for block in simulate_lines(112, alerts, *period, RUN, profile=profile)
        )

    return work


def faker_rows(alerts: int) -> int:
    """Write alerts as the first version did, with an address as its enrichment did."""
    fake = Faker("es_ES")
    types = load_profile("original").tipos
    degrees, weights = zip(*types[0].grados.items(), strict=True)
    lines = []
    for _ in range(alerts):
        kind = random.choice(types)
        alert = {
            "tipo_emergencia": kind.tipo,
            "cuerpo_necesario": random.choice(kind.equipos).cuerpos[0],
            "grado": random.choices(degrees, weights)[0],
            "localizacion": fake.city(),
            "fecha": (START + timedelta(seconds=random.randrange(86_400))).isoformat(),
            "requiere_medico": random.choice(("Si", "No")),
            "contacto": fake.phone_number(),
            "id_ejecucion": RUN,
            "direccion": fake.street_address(),
        }
        lines.append(json.dumps(alert).encode())
    return len(lines)


def measure(work: Callable[[int], int], alerts: int) -> tuple[float, float]:
    """Return alerts a second by the clock, and by the CPU time of this process."""
    clock, cpu = time.perf_counter(), time.process_time()
    if work(alerts) != alerts:
        raise SystemExit("the contestant did not do all of its work")
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    return alerts / clock, alerts / cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alerts", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5, help="of each contestant, taking turns")
    options = parser.parse_args()
    contestants = {name: (simulator(name), options.alerts) for name in profile_names()}
    contestants["Faker, row by row"] = (faker_rows, max(1, options.alerts // FAKER_SHARE))
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for work, _ in contestants.values():
        work(1000)  # reads files and imports what it needs
    for run in range(1, options.runs + 1):
        for name, (work, alerts) in contestants.items():
            results[name].append(measure(work, alerts))
            print(f"run {run} {name}: {results[name][-1][0]:,.0f} alerts/s", flush=True)
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    print(f"\n{options.alerts:,} alerts, {options.runs} runs, {versions}")
    medians = {}
    for name, speeds in results.items():
        clocks, cpus = zip(*speeds, strict=True)
        medians[name] = statistics.median(cpus)
        print(
            f"{name:20} median {statistics.median(clocks):9,.0f} alerts/s "
            f"({min(clocks):,.0f} to {max(clocks):,.0f}), "
            f"{medians[name]:9,.0f} per second of CPU time"
        )
    for name in profile_names():
        ratio = medians[name] / medians["Faker, row by row"]
        print(f"{name} / Faker, row by row: {ratio:.0f} (CPU time)")


if __name__ == "__main__":
    main()
