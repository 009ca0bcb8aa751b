"""In whose name are AWS's calls made? The caller, and sessions of a role in another account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.session
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

from patchwave.aws.calls import Calls, Session
from patchwave.campaign.values import Cell

SESSION_NAME = "patchwave"
"""What AWS's own log (CloudTrail) says of who it was, behind the role's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who AWS takes us for.

    Attributes:
        arn: of the user or the assumed role.
    """

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """``aws``, ``aws-cn`` or ``aws-us-gov``."""
        return self.arn.split(":")[1] if self.arn.count(":") else "aws"


class Identity(Calls):
    """STS."""

    def caller(self, cell: Cell) -> Caller:
        """Who we are in that cell."""
        answer = self.call(cell, "sts:GetCallerIdentity")
        return Caller(account=answer["Account"], arn=answer["Arn"])


def assumed(session: Any, *, role_arn: str, region: str, endpoint_url: str | None = None) -> Session:
    """A session of a role; its credentials are fetched at the first call and renewed before they run out.

    Args:
        session: the boto3 session whose credentials may assume the role.
        endpoint_url: of STS; None for AWS's own.
    """
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=_sts(session, region, endpoint_url),
        source_credentials=session.get_credentials(),
        role_arn=role_arn,
        extra_args={"RoleSessionName": SESSION_NAME},
    )
    of_role = botocore.session.get_session()
    of_role._credentials = DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
    made: Session = boto3.Session(botocore_session=of_role, region_name=region)
    return made


def _sts(session: Any, region: str, endpoint_url: str | None) -> Callable[..., Any]:
    """As botocore's fetcher wants it: a function that makes an STS client of given credentials."""

    def create(service: str, **options: Any) -> Any:
        return session.client(service, region_name=region, endpoint_url=endpoint_url, **options)

    return create
