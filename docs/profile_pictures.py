"""Draw what each profile of the simulator is like: docs/profiles/<name>.svg.

The pictures are drawn from simulated alerts, not from the profiles' files, and the same alerts give
the same bytes.

Example:
    .venv/bin/python docs/profile_pictures.py
    .venv/bin/python docs/profile_pictures.py --check    # are they up to date?
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from emergencias.places import load_gazetteer
from emergencias.profiles import load_profile, profile_names
from emergencias.simulator import simulate
from emergencias.vocabulary import load_vocabulary

FOLDER = Path(__file__).parent / "profiles"
ALERTS, SEED = 30_000, 112
# A Monday and a Tuesday, Madrid's midnights: a week, and the day of the floods.
PERIODS = {"surge": (datetime(2024, 10, 28, 23, tzinfo=UTC), timedelta(days=1))}
WEEK = (datetime(2025, 10, 5, 22, tzinfo=UTC), timedelta(days=7))

COLOURS = {
    "Leve": "#b5bcc4",
    "Moderado": "#f2b134",
    "Urgente": "#d9534f",
    "Urgencia extrema": "#8e1528",
}
INK, FAINT = "#2b2f36", "#d5d9de"
WIDTH, HEIGHT = 1140, 380
TOP, BOTTOM = 70, 330


def text(x: float, y: float, words: str, size: int = 11, anchor: str = "start") -> str:
    """Return a line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Return a filled rectangle."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def hours(alerts: list[dict[str, Any]], left: float, width: float) -> Iterator[str]:
    """Draw the share of each hour of the place's own clock."""
    yield text(left, 52, "Alerts by hour, local time", 13)
    counts = Counter(int(alert["fecha"][11:13]) for alert in alerts)
    shares = [counts[hour] / len(alerts) for hour in range(24)]
    top = max(max(shares), 0.08)
    step, scale = width / 24, (BOTTOM - TOP - 10) / top
    for percent in range(0, int(top * 100) + 1, 2 if top < 0.12 else 4):
        y = BOTTOM - percent / 100 * scale
        yield f'<path d="M{left:.1f} {y:.1f}h{width:.1f}" stroke="{FAINT}"/>'
        yield text(left - 5, y + 4, f"{percent} %", 10, "end")
    for hour, share in enumerate(shares):
        height = share * scale
        yield box(left + hour * step + 1, BOTTOM - height, step - 2, height, "#3b6ea5")
        if hour % 3 == 0:
            yield text(left + (hour + 0.5) * step, BOTTOM + 15, str(hour), 10, "middle")


def spain(alerts: list[dict[str, Any]], left: float, width: float) -> Iterator[str]:
    """Draw where the alerts are; the Canary Islands are moved to the lower left corner."""
    yield text(left, 52, "Alerts by place; the area is their number", 13)
    west, east, south, north = -9.6, 4.5, 34.8, 44.0
    scale = min(width / (east - west) / 0.77, (BOTTOM - TOP) / (north - south))

    def at(latitude: float, longitude: float) -> tuple[float, float]:
        if longitude < -12:
            latitude, longitude = latitude + 7.6, longitude + 8.7
        # 0.77 is the cosine of 40 degrees, the middle of Spain.
        return left + (longitude - west) * 0.77 * scale, TOP + (north - latitude) * scale

    for province in load_gazetteer().provinces:
        for town in province.municipalities:
            x, y = at(town.latitude, town.longitude)
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1" fill="{FAINT}"/>'
    # Squares of a quarter of a degree, whose whole numbers are the same on every machine.
    squares = Counter((a["latitud"] // 0.25, a["longitud"] // 0.25) for a in alerts)
    for (row, column), count in sorted(squares.items()):
        x, y = at((row + 0.5) / 4, (column + 0.5) / 4)
        radius = (count / len(alerts) * 3000) ** 0.5
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="#d9534f" opacity="0.6"/>'


def types(alerts: list[dict[str, Any]], left: float, width: float) -> Iterator[str]:
    """Draw the share of each type, by degree."""
    yield text(left, 52, "Alerts by type and degree", 13)
    names = [kind.name for kind in load_vocabulary().types]
    counts = Counter((alert["tipo_emergencia"], alert["grado"]) for alert in alerts)
    totals = {name: sum(counts[name, degree] for degree in COLOURS) for name in names}
    listed = sorted((name for name in names if totals[name]), key=lambda name: -totals[name])
    step = (BOTTOM - TOP) / len(listed)
    labels, scale = 215, (width - 255) / max(totals.values())
    for row, name in enumerate(listed):
        y, x = TOP + row * step, left + labels
        short = name if len(name) < 36 else f"{name[:34]}…"
        yield text(x - 6, y + step / 2 + 4, short, 11, "end")
        for degree, colour in COLOURS.items():
            length = counts[name, degree] * scale
            yield box(x, y + 2, length, step - 4, colour)
            x += length
        yield text(x + 4, y + step / 2 + 4, f"{totals[name] / len(alerts):.1%}", 10)
    x = left + 60.0
    for degree, colour in COLOURS.items():
        yield box(x, BOTTOM + 8, 10, 10, colour)
        yield text(x + 14, BOTTOM + 17, degree, 11)
        x += 32 + 6.5 * len(degree)


def picture(name: str) -> str:
    """Return the SVG of a profile."""
    start, length = PERIODS.get(name, WEEK)
    alerts = list(simulate(SEED, ALERTS, start, start + length, profile=name))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" fill="{INK}">',
        box(0, 0, WIDTH, HEIGHT, "#ffffff"),
        text(20, 28, f"{name}: {load_profile(name).descripcion}", 16),
        *hours(alerts, 60, 270),
        *spain(alerts, 370, 330),
        *types(alerts, 700, 420),
        text(20, HEIGHT - 10, f"{ALERTS:,} simulated alerts, seed {SEED}", 10),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    old = []
    for name in profile_names():
        path, wanted = FOLDER / f"{name}.svg", picture(name)
        if check and (not path.exists() or path.read_text(encoding="utf-8") != wanted):
            old.append(str(path))
        elif not check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(wanted, encoding="utf-8")
    if old:
        sys.exit(f"Not what the simulator draws now: {', '.join(old)}. Run {sys.argv[0]}.")


if __name__ == "__main__":
    main()
