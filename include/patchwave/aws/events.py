"""What does EventBridge tell of commands? Read from an SQS queue that a rule of the account feeds, where there is one.

Optional: triggers poll in any case and are only woken earlier by it. The rule matches source ``aws.ssm`` and the detail type
"EC2 Command Status-change Notification" (Systems Manager user guide, "Reference: Amazon EventBridge event patterns and types
for Systems Manager"); docs/operating.md shows how it is made.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from patchwave.aws.calls import Calls
from patchwave.campaign.values import Cell

COMMAND_CHANGED = "EC2 Command Status-change Notification"
FINAL = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})
LARGEST_RECEIVE = 10
"""botocore model of sqs, ReceiveMessage.MaxNumberOfMessages and DeleteMessageBatch."""
LONGEST_WAIT = timedelta(seconds=10)
"""SQS waits up to 20 s; our clients give an answer 15 s."""
FORGOTTEN_AFTER = timedelta(minutes=5)
"""A message that concerns nobody here may concern another process that reads the same queue; after that, nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandEvent:
    """A command changed its status."""

    command: str
    status: str

    @property
    def final(self) -> bool:
        """AWS will not change it any more."""
        return self.status.replace(" ", "") in FINAL


class Events(Calls):
    """EventBridge events of Run Command, from an SQS queue."""

    def command_events(
        self, cell: Cell, queue_url: str, *, awaited: Collection[str], now: float, wait: timedelta = LONGEST_WAIT
    ) -> tuple[CommandEvent, ...]:
        """The next events about commands that are awaited; they are taken from the queue, and so is what concerns nobody.

        Args:
            cell: whose credentials and region the queue is read with.
            awaited: command ids; an event about another command stays for other readers until it is `FORGOTTEN_AFTER` old.
            now: seconds since the epoch by a real clock, as SQS stamps its messages.
            wait: how long SQS waits for a message, at most `LONGEST_WAIT`.
        """
        answer = self.call(
            cell,
            "sqs:ReceiveMessage",
            QueueUrl=queue_url,
            MaxNumberOfMessages=LARGEST_RECEIVE,
            WaitTimeSeconds=int(min(wait, LONGEST_WAIT).total_seconds()),
            AttributeNames=["SentTimestamp"],
        )
        found: list[CommandEvent] = []
        done: list[dict[str, str]] = []
        for message in answer.get("Messages", ()):
            event = _event(message.get("Body", ""))
            age = now - float(message.get("Attributes", {}).get("SentTimestamp", "0")) / 1000
            if event is not None and event.command in awaited:
                found.append(event)
            elif event is not None and event.final and age < FORGOTTEN_AFTER.total_seconds():
                continue
            done.append({"Id": str(len(done)), "ReceiptHandle": message["ReceiptHandle"]})
        if done:
            self.call(cell, "sqs:DeleteMessageBatch", QueueUrl=queue_url, Entries=done)
        return tuple(found)


def _event(body: str) -> CommandEvent | None:
    """The event in a message; None for anything else that somebody put into the queue."""
    try:
        told: Any = json.loads(body)
        if told["source"] != "aws.ssm" or told["detail-type"] != COMMAND_CHANGED:
            return None
        return CommandEvent(command=str(told["detail"]["command-id"]), status=str(told["detail"]["status"]))
    except (ValueError, KeyError, TypeError):
        return None
