"""A member of an exactly-once loop in a process of its own, so that a test can kill or pause it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from confluent_kafka import Message

from kafka_io import OutRecord, run_exactly_once


def main() -> None:
    """Run the loop that the JSON argument describes; print a line after each transaction."""
    args = json.loads(sys.argv[1])

    def transform(record: Message) -> Iterator[OutRecord]:
        value = record.value()
        if value is None or value.startswith(b"poison"):
            raise ValueError("poison")
        yield OutRecord(args["sink"], value, record.key())

    def dead_letter(record: Message, reason: Exception) -> OutRecord:
        return OutRecord(args["dead"], record.value(), headers=[("reason", str(reason).encode())])

    result = run_exactly_once(
        {"bootstrap.servers": args["bootstrap"]},
        group_id=args["group"],
        source_topic=args["source"],
        transactional_id=args["id"],
        sink_topics=[args["sink"]],
        transform=transform,
        dead_letter=dead_letter,
        until={(args["source"], int(p)): o for p, o in args["until"].items()},
        timeout_s=60,
        batch_size=args["batch"],
        on_progress=lambda done: print(done.consumed, flush=True),
    )
    print("done", result.consumed, flush=True)


if __name__ == "__main__":
    main()
