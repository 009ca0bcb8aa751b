"""With which credentials does a campaign speak to AWS? An Airflow connection, turned into a gateway.

Operators and triggers make one hook a task. Credentials are those of Airflow's own AWS hook (keys, profile, role, web
identity: whatever the connection says); a cell in another account is reached by assuming a role there.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from patchwave.aws.calls import UNREPEATED, Session
from patchwave.aws.gateway import Gateway
from patchwave.aws.identity import Caller, Identity, assumed
from patchwave.campaign.values import Cell

DEFAULT_ROLE = "PatchwaveRole"
ROLE_EXTRA = "patchwave_role_name"
"""Field of the connection's extra: name of the role in every other account, its path included."""
QUEUE_EXTRA = "patchwave_events_queue"
"""Field of the connection's extra: URL of the queue with command events, or one URL for each region."""
LISTS_EXTRA = "patchwave_lists_bucket"
"""Field of the connection's extra: name of the bucket with lists of patches, or one name for each region."""


class PatchwaveAwsHook(AwsBaseHook):
    """A gateway for every cell of a campaign, from one AWS connection.

    The connection's ``endpoint_url`` (or ``service_config.<service>.endpoint_url``) says where AWS is; without one botocore
    reads ``AWS_ENDPOINT_URL``, and without that it is AWS itself.

    Args:
        aws_conn_id: Airflow's connection; None, or one that does not exist, means boto3's own chain.
        region_name: where STS is asked for the role of another account; default: the region of the cell.
    """

    def __init__(self, aws_conn_id: str | None = AwsBaseHook.default_conn_name, *, region_name: str | None = None) -> None:
        super().__init__(aws_conn_id=aws_conn_id, region_name=region_name, client_type="sts")
        self._caller: Caller | None = None
        self._caller_lock = threading.Lock()

    async def prepared(self) -> PatchwaveAwsHook:
        """Read the connection now, in the event loop: a trigger's threads had better not ask the supervisor for it."""
        if self.aws_conn_id and "conn_config" not in self.__dict__:
            try:
                connection = await BaseHook.aget_connection(self.aws_conn_id)
            except AirflowNotFoundException:
                connection = None
            self.__dict__["conn_config"] = AwsConnectionWrapper(
                conn=connection, region_name=self._region_name, botocore_config=self._config, verify=self._verify
            )
        return self

    def gateway(self, *, repeats: bool = True) -> Gateway:
        """The gateway; its clients are made when they are first needed.

        Args:
            repeats: whether botocore repeats a read that AWS throttles; if not, whoever asks learns of it and slows down.
        """
        return Gateway(self.session_for, **self._addresses(), **({} if repeats else {"reads": UNREPEATED}))

    def events_queue(self, region: str) -> str:
        """URL of the SQS queue with the region's command events, from the connection's extra; empty if there is none."""
        return self._named(QUEUE_EXTRA, region)

    def lists_bucket(self, region: str) -> str:
        """Name of the S3 bucket in which hosts of the region read lists of patches, from the connection's extra; empty if
        there is none."""
        return self._named(LISTS_EXTRA, region)

    def _named(self, extra: str, region: str) -> str:
        """A field of the connection's extra: one text for all regions, or an object with one a region."""
        named = self.conn_config.extra_config.get(extra) or ""
        return str(named.get(region, "")) if isinstance(named, Mapping) else str(named)

    def session_for(self, cell: Cell) -> Session:
        """A boto3 session with credentials of the cell's account: the connection's own, or those of the role there.

        Raises:
            PatchwaveError: STS does not say who the connection is.
        """
        session = self.get_session(region_name=cell.region)
        caller = self._who(session, cell)
        if caller.account == cell.account:
            return session
        name = self.conn_config.extra_config.get(ROLE_EXTRA) or DEFAULT_ROLE
        return assumed(
            session,
            role_arn=f"arn:{caller.partition}:iam::{cell.account}:role/{name}",
            region=self._region_name or cell.region,
            endpoint_url=self._endpoint("sts"),
        )

    def _who(self, session: Any, cell: Cell) -> Caller:
        """Whose account the connection's credentials are of; asked once."""
        with self._caller_lock:
            if self._caller is None:
                self._caller = Identity(lambda _: session, **self._addresses()).caller(cell)
            return self._caller

    def _endpoint(self, service: str) -> str | None:
        url: str | None = self.conn_config.get_service_endpoint_url(service)
        return url

    def _addresses(self) -> dict[str, Any]:
        """What `Calls` is told of where AWS is."""
        services = self.conn_config.service_config or {}
        return {
            "endpoint_url": self.conn_config.endpoint_url,
            "endpoints": {name: one["endpoint_url"] for name, one in services.items() if one.get("endpoint_url")},
            "verify": self.verify,
        }
