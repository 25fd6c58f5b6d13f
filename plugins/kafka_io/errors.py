"""What can go wrong with Kafka, named after what it means to the caller."""

from __future__ import annotations


class KafkaIoError(Exception):
    """Report a failure of Kafka that no more specific error describes; base of all the others.

    Attributes:
        retryable: Whether the same call can succeed later without anybody changing anything.
    """

    retryable = True


class BrokerUnavailableError(KafkaIoError):
    """Report that the broker did not answer in time; the message names the address. Retry later."""


class TopicMismatchError(KafkaIoError):
    """Report topics that exist with other settings than asked for; nothing was created."""

    retryable = False


class TopicMissingError(KafkaIoError):
    """Report a topic that the broker does not have. A retry alone cannot mend it."""

    retryable = False


class DeliveryError(KafkaIoError):
    """Report the first record that the broker did not take.

    Attributes:
        topic: Where the record was to go.
        reason: What the client or the broker said.
        about_record: True when the record itself is at fault (too large, for instance), so that
            sending the same one again can never succeed; False when a retry can help.
    """

    def __init__(self, topic: str, reason: str, *, about_record: bool) -> None:
        self.topic = topic
        self.reason = reason
        self.about_record = about_record
        self.retryable = not about_record
        hint = (
            "the record itself is refused, sending it again cannot help"
            if about_record
            else "send it again once the cause is mended"
        )
        super().__init__(f"A record for topic {topic!r} was not delivered: {reason} ({hint}).")


class FlushTimeoutError(KafkaIoError):
    """Report records that the broker had not confirmed when the time was up.

    Attributes:
        remaining: How many records are unconfirmed.
    """

    def __init__(self, remaining: int, timeout_s: float, brokers: str) -> None:
        self.remaining = remaining
        super().__init__(
            f"{remaining} records were not confirmed by {brokers} within {timeout_s:g} s. "
            "Check that the broker is up and not overloaded, then send them again."
        )


class ProducerFencedError(KafkaIoError):
    """Report that a newer producer took over this transactional id, or its transaction expired.

    Nothing of the open transaction will be seen by a read_committed reader. This producer cannot
    be used any more; its work belongs to whoever took over, or to a fresh attempt.
    """


class TransactionAbortedError(KafkaIoError):
    """Report a transaction that was rolled back; doing the same work again can succeed."""


class ReadTimeoutError(KafkaIoError):
    """Report a bounded read that stopped advancing before its end.

    Attributes:
        topic: Topic that is behind.
        partition: Partition that is behind.
        position: Next offset that would have been read.
        target: Offset up to which it had to read (exclusive).
    """

    def __init__(
        self, topic: str, partition: int, position: int, target: int, timeout_s: float
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.position = position
        self.target = target
        super().__init__(
            f"Nothing more could be read of {topic}-{partition} for {timeout_s:g} s: "
            f"at offset {position} of {target}. Another producer's open transaction hides what "
            "follows until it ends or expires; if none is open, check that the partition has a "
            "leader, then try again."
        )


class OffsetsLostError(KafkaIoError):
    """Report offsets that vanished, so that going on would lose or repeat records."""

    retryable = False
