"""How is a call to AWS made? Clients, retries, pages, chunks and the count of calls.

The service modules derive from `Calls` and contain nothing but the meaning of requests and answers. A client belongs to one
cell and one service and is shared by the threads of a pool (boto3's clients are thread-safe, its sessions are not: making a
client is serialised).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from patchwave.aws import errors
from patchwave.aws.operations import OPERATIONS, Effect, Operation
from patchwave.campaign.errors import AwsUnavailable
from patchwave.campaign.values import Cell

T = TypeVar("T")

BUCKETS = {"addressing_style": "path"}
"""Of S3: a bucket's name in front of somebody's own host (``AWS_ENDPOINT_URL``) would be a host that nobody knows."""

READS = Config(
    # Adaptive: a throttled client slows down as a whole, and there is one client per cell and service.
    retries={"mode": "adaptive", "total_max_attempts": 6},
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=20,
    s3=BUCKETS,
)
UNREPEATED = Config(
    retries={"mode": "standard", "total_max_attempts": 1},
    connect_timeout=5,
    read_timeout=15,
    max_pool_connections=20,
    s3=BUCKETS,
)
"""For calls with an effect and no token: what botocore repeats is done twice."""

_METHOD = {operation.name: xform_name(operation.name) for operation in OPERATIONS.values()}


class Session(Protocol):
    """As much of a `boto3.Session` as is needed."""

    def client(self, service_name: str, **options: Any) -> Any:
        """A client of that service."""
        ...


class Calls:
    """Calls to AWS, one cell at a time.

    Args:
        session_for: credentials of a cell; asked once per cell, and again when they have run out.
        endpoint_url: where AWS is; None for AWS's own endpoints (or ``AWS_ENDPOINT_URL``, which botocore reads).
        endpoints: by service, where one of them is elsewhere.
        verify: CA bundle, or False for none; None as botocore decides.
        reads: botocore settings of calls that may be repeated.
        unrepeated: of those that must not be.
    """

    def __init__(
        self,
        session_for: Callable[[Cell], Session],
        *,
        endpoint_url: str | None = None,
        endpoints: Mapping[str, str] | None = None,
        verify: bool | str | None = None,
        reads: Config = READS,
        unrepeated: Config = UNREPEATED,
    ) -> None:
        self._session_for = session_for
        self._endpoint_url = endpoint_url
        self._endpoints = dict(endpoints or {})
        self._verify = verify
        self._configs = {True: reads, False: unrepeated}
        self._sessions: dict[Cell, Session] = {}
        self._clients: dict[tuple[Cell, str, bool], Any] = {}
        self._making = threading.Lock()  # may be held while STS is asked
        self._calls: Counter[str] = Counter()
        self._counting = threading.Lock()

    @property
    def calls(self) -> Mapping[str, int]:
        """Calls made since the last `take_calls`, by operation (``ssm:SendCommand``), botocore's retries included."""
        with self._counting:
            return dict(self._calls)

    def take_calls(self) -> Mapping[str, int]:
        """`calls`, and begin to count anew: for the ledger."""
        with self._counting:
            taken, self._calls = dict(self._calls), Counter()
        return taken

    def client(self, cell: Cell, service: str, *, repeats: bool = True) -> Any:
        """The boto3 client of a service in a cell.

        Args:
            repeats: whether botocore may repeat a call that failed.
        """
        key = (cell, service, repeats)
        with self._making:
            if cell not in self._sessions:
                self._sessions[cell] = self._session_for(cell)
            if key not in self._clients:
                self._clients[key] = self._sessions[cell].client(
                    service,
                    region_name=cell.region,
                    endpoint_url=self._endpoints.get(service, self._endpoint_url),
                    verify=self._verify,
                    config=self._configs[repeats],
                )
            return self._clients[key]

    def call(self, cell: Cell, operation_id: str, **parameters: Any) -> Mapping[str, Any]:
        """Make one call.

        Raises:
            PatchwaveError: as `errors.translated` says; `errors.code_of` tells AWS's code of it.
        """
        operation = OPERATIONS[operation_id]
        attempts = 1
        try:
            # The client is made inside: a session that assumes a role calls STS for it.
            client = self.client(cell, operation.service, repeats=operation.effect is not Effect.UNGUARDED)
            answer: Mapping[str, Any] = getattr(client, _METHOD[operation.name])(**parameters)
            attempts += answer.get("ResponseMetadata", {}).get("RetryAttempts", 0)
            return answer
        except ClientError as error:
            attempts += error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
            if errors.code_of(error) in errors.EXPIRED:
                self._forget(cell)
            raise errors.translated(error, operation) from error
        except (BotoCoreError, HTTPClientError) as error:
            raise errors.translated(error, operation) from error
        finally:
            self._count(operation, attempts)

    def pages(
        self, cell: Cell, operation_id: str, *, cursor: str = "NextToken", following: str = "", **parameters: Any
    ) -> Iterator[Mapping[str, Any]]:
        """All pages of a listing. A page may be empty and still not be the last one: only a missing token ends it.

        Args:
            cursor: name of the page token in request and answer.
            following: its name in the answer, where that is another one.
        """
        given = ""
        while True:
            page = self.call(cell, operation_id, **parameters, **({cursor: given} if given else {}))
            yield page
            coming = page.get(following or cursor) or ""
            if coming and coming == given:
                raise AwsUnavailable(f"{operation_id} gave the same page token twice: the listing would never end")
            if not coming:
                return
            given = coming

    def _count(self, operation: Operation, attempts: int) -> None:
        with self._counting:
            self._calls[operation.id] += attempts

    def _forget(self, cell: Cell) -> None:
        """Drop the cell's session and clients: their credentials have run out."""
        with self._making:
            self._sessions.pop(cell, None)
            for key in [key for key in self._clients if key[0] == cell]:
                del self._clients[key]


def chunks(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    """`items` without repetitions, in order, at most `size` at a time."""
    unique = list(dict.fromkeys(items))
    for start in range(0, len(unique), size):
        yield unique[start : start + size]
