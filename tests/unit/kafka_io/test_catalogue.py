from __future__ import annotations

from pathlib import Path

import pytest

from kafka_io import CatalogueError, load_catalogue

PROJECT = Path(__file__).parents[3] / "include" / "kafka" / "topics.yaml"
DAY_MS = 86_400_000

GOOD = """\
defaults:
  partitions: 3
  retention_days: 30
  cleanup_policy: delete
  replication_factor: -1
topics:
  one:
    description: The first.
  two:
    partitions: 6
    retention_days: 0.5
    cleanup_policy: compact,delete
    config: {max.message.bytes: "10000"}
  three:
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "topics.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_topic_takes_from_the_defaults_what_it_does_not_say(tmp_path: Path) -> None:
    one, two, three = load_catalogue(write(tmp_path, GOOD))
    assert (one.name, one.partitions, one.retention_ms) == ("one", 3, 30 * DAY_MS)
    assert (one.cleanup_policy, one.replication_factor) == ("delete", -1)
    assert one.description == "The first."
    assert (two.partitions, two.retention_ms) == (6, DAY_MS // 2)
    assert two.settings()["max.message.bytes"] == "10000"
    assert three.settings() == one.settings()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("partitions: 6", "partitions: 0", "line 10, topics.two.partitions: .*greater than"),
        ("partitions: 6", "partitions: many", "line 10, topics.two.partitions: .*found 'many'"),
        ("partitions: 6", "partitons: 6", "line 10, topics.two.partitons: Extra inputs"),
        ("partitions: 3", "partitions: '3'", "line 2, topics.one.partitions: .*valid integer"),
        ("retention_days: 30", "retention_days: -2", r"line 3, topics.one.retention_days: .*-2"),
        ("compact,delete", "discard", "line 12, topics.two.cleanup_policy: .*discard"),
        ("  partitions: 3\n", "", "topics.one.partitions: Field required"),
        ("topics:", "topic:", "topics: Field required"),
        (GOOD, "", "the whole file"),
        (GOOD, "- a\n- b\n", "the whole file"),
        (GOOD, "topics: {a: [", "cannot be read"),
        (GOOD, "topics: {}", "line 1, topics: .*at least 1"),
        ("  three:\n", "  three: 5\n", "line 14, topics.three: .*found 5"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_field(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(CatalogueError, match=told) as caught:
        load_catalogue(path)
    assert str(path) in str(caught.value)


def test_a_topic_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "  two:\n    partitions: 1\n")
    with pytest.raises(CatalogueError, match=r"line 15.*'two'"):
        load_catalogue(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"nowhere\.yaml"):
        load_catalogue(tmp_path / "nowhere.yaml")


def test_the_projects_topics_share_partitions_retention_and_clean_up() -> None:
    specs = load_catalogue(PROJECT)
    assert {(s.partitions, s.retention_ms, s.cleanup_policy) for s in specs} == {
        (3, 30 * DAY_MS, "delete")
    }
    assert all(spec.description for spec in specs)


def test_the_project_has_every_topic_of_the_routing() -> None:
    assert [spec.name for spec in load_catalogue(PROJECT)] == [
        "T1_Recepcion_avisos",
        "T2_Centro_112",
        "T2.1_Sanitarios_112",
        "T2.2_Centro_de_mando",
        "T2.3_Cuerpos_112",
        "T3_No_Urgencias",
        "T3.1_Medicos",
        "T3.2_Bomberos",
        "T3.3_Forestales",
        "T3.4_Guardia_Costera",
        "T3.5_Policia",
        "T3.6_Servicios_de_emergencia",
        "T4_Revision_manual",
    ]
