"""The emergency-alert (112) pipeline: only the order of its steps, their retries and time-outs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.kafka.assets.kafka import create_asset
from airflow.sdk import DAG, Asset, Param, task

from emergencias import model
from emergencias.params import MAX_ALERTS, MAX_SEED, Format, Profile, Source
from emergencias.settings import Settings
from emergencias.tasks import steps
from emergencias.tasks.retries import FailFast
from emergencias.tasks.sensors import KafkaReadySensor
from ksqldb_provider.operators import KsqlDbDeployOperator
from ksqldb_provider.sensors import KsqlDbReadySensor, KsqlQueriesCaughtUpSensor

settings = Settings()


def topic_asset(topic: str) -> Asset:
    """Name a topic by the connection that leads to it, not by an address that changes."""
    return create_asset(server=settings.kafka_conn_id, topic=topic)


with DAG(
    dag_id="emergencias_112",
    dag_display_name="Emergencias 112",
    description="Alerts in, routed by SQL, medical ones with an address out, nothing lost: proven.",
    doc_md=Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
    schedule=settings.airflow_schedule,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=True,
    max_active_runs=4,
    dagrun_timeout=timedelta(hours=6),
    tags=["112", "kafka", "ksqldb", "streaming"],
    default_args={
        "owner": "emergencias-112",
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=1),
        "retry_policy": FailFast(),
        "execution_timeout": timedelta(hours=2),
    },
    params={
        "alerts": Param(
            250,
            type="integer",
            minimum=1,
            maximum=MAX_ALERTS,
            title="Alerts",
            description="How many alerts the simulator sends. Not used when a file is replayed.",
        ),
        "rate_per_second": Param(
            0,
            type="number",
            minimum=0,
            title="Alerts per second",
            description="0 sends without pause; 1 is the pace of the original.",
        ),
        "seed": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            maximum=MAX_SEED,
            title="Seed",
            description="The same seed gives the same alerts. Empty: made from the run id.",
        ),
        "source": Param(
            Source.SIMULATOR.value,
            type="string",
            enum=[source.value for source in Source],
            title="Source",
            description="Simulated alerts, or those of a file.",
        ),
        "input_path": Param(
            None,
            type=["null", "string"],
            title="Input file",
            description="With source 'file': a JSON list, JSON Lines, CSV or Parquet file, also "
            "gzipped, with the seven fields "
            + ", ".join(model.ORIGINAL_FIELDS)
            + "; or with others and a mapping.",
        ),
        "mapping": Param(
            None,
            type=["null", "string"],
            examples=settings.mapping_names,
            title="Mapping",
            description="With source 'file': how its columns become the fields of an alert. The "
            "name of a ready mapping or the path of a YAML file; empty if they have their names.",
        ),
        "formats": Param(
            [file_format.value for file_format in Format],
            type="array",
            items={"type": "string", "enum": [file_format.value for file_format in Format]},
            minItems=1,
            uniqueItems=True,
            title="Export formats",
            description="What the run's files are written as.",
        ),
        "profile": Param(
            Profile.ORIGINAL.value,
            type="string",
            enum=[profile.value for profile in Profile],
            title="Profile",
            description="How the simulator draws alerts. original: everything alike, as the first "
            "version did. realistic: an ordinary day of Spain's 112 centres, with repeated, hollow "
            "and malicious calls. surge: the floods of 29 October 2024 in Valencia.",
        ),
    },
) as dag:
    wait_for_kafka = KafkaReadySensor(
        task_id="wait_for_kafka",
        kafka_conn_id=settings.kafka_conn_id,
        poke_interval=1,
        timeout=settings.wait_timeout_s,
    )
    wait_for_ksqldb = KsqlDbReadySensor(
        task_id="wait_for_ksqldb",
        ksqldb_conn_id=settings.ksqldb_conn_id,
        poke_interval=1,
        timeout=settings.wait_timeout_s,
    )
    deploy_streams = KsqlDbDeployOperator(
        task_id="deploy_streams",
        sql_folder=str(settings.sql_dir),
        ksqldb_conn_id=settings.ksqldb_conn_id,
        kafka_conn_id=settings.kafka_conn_id,
    )
    await_routing = KsqlQueriesCaughtUpSensor(
        task_id="await_routing",
        query_ids=deploy_streams.output["query_ids"],
        ksqldb_conn_id=settings.ksqldb_conn_id,
        kafka_conn_id=settings.kafka_conn_id,
        poke_interval=0.2,
        timeout=settings.wait_timeout_s,
    )

    @task
    def create_topics() -> dict[str, list[str]]:
        """Create the topics that are missing; refuse ones that differ from the catalogue."""
        return steps.create_topics(settings)

    @task
    def plan_run(
        params: dict[str, Any], dag_run: Any, data_interval_end: datetime | None = None
    ) -> dict[str, Any]:
        """Write down what will be sent, once, before anything is sent."""
        return steps.plan_run(
            settings, params=params, dag_run=dag_run, data_interval_end=data_interval_end
        )

    @task(outlets=[topic_asset(model.T1)])
    def produce_alerts(dag_run: Any, ti: Any, outlet_events: Any) -> dict[str, int]:
        """Send the planned alerts that T1 lacks, each exactly once."""
        result = steps.produce_alerts(settings, dag_run=dag_run, ti=ti)
        outlet_events[topic_asset(model.T1)].extra = result
        return result

    @task(outlets=[topic_asset(model.T2_1)])
    def enrich_medical_alerts(dag_run: Any, ti: Any, outlet_events: Any) -> dict[str, int]:
        """Give every urgent medical alert an address, exactly once."""
        result = steps.enrich_medical_alerts(settings, dag_run=dag_run, ti=ti)
        outlet_events[topic_asset(model.T2_1)].extra = result
        return result

    @task
    def export_results(dag_run: Any) -> dict[str, Any]:
        """Write the run's files."""
        return steps.export_results(settings, dag_run=dag_run)

    @task
    def reconcile(dag_run: Any, ti: Any) -> None:
        """Prove that nothing was lost or doubled."""
        steps.reconcile(settings, dag_run=dag_run, ti=ti)

    (
        [wait_for_kafka, wait_for_ksqldb]
        >> create_topics()
        >> deploy_streams
        >> plan_run()
        >> produce_alerts()
        >> await_routing
        >> enrich_medical_alerts()
        >> export_results()
        >> reconcile()
    )
