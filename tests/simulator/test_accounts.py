"""Accounts and roles: who is there, who may be assumed, and for how long."""

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import ACCOUNT, FEW, Aws

OTHER = "222222222222"
TWO = FEW.replace(
    'accounts: [{id: "111111111111"}]',
    'accounts: [{id: "111111111111", name: hub}, {id: "222222222222", name: shop}, {id: "333333333333", roles: [auditor]}]',
)


@pytest.fixture
def aws(start) -> Aws:
    return start(TWO)


def assume(aws: Aws, role: str, account: str = OTHER, *, session: dict[str, str] | None = None, **more: Any) -> dict[str, str]:
    arn = f"arn:aws:iam::{account}:role/{role}"
    found = aws.client("sts", **(session or {})).assume_role(RoleArn=arn, RoleSessionName="test", **more)["Credentials"]
    return {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["SessionToken"],
    }


def refused(call: Any, *args: Any, **request: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(*args, **request)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_a_usual_role_leads_into_the_other_account(aws):
    """PatchwaveRole is there unless the world says otherwise."""
    session = assume(aws, "PatchwaveRole")
    assert aws.client("sts", **session).get_caller_identity()["Account"] == OTHER


def test_a_missing_role_or_account_is_refused_alike(aws):
    """AccessDenied, 403: the caller does not learn which of the two it was."""
    assert refused(assume, aws, "Unknown") == ("AccessDenied", 403)
    assert refused(assume, aws, "PatchwaveRole", "999999999999") == ("AccessDenied", 403)
    assert refused(assume, aws, "PatchwaveRole", "333333333333") == ("AccessDenied", 403)
    assert assume(aws, "auditor", "333333333333")


def test_a_role_that_somebody_created_can_be_assumed(aws):
    """In the account where it was created."""
    session = assume(aws, "PatchwaveRole")
    assert refused(assume, aws, "late")[0] == "AccessDenied"
    aws.client("iam", **session).create_role(RoleName="late", AssumeRolePolicyDocument="{}", Path="/service/")
    assert assume(aws, "service/late")


def test_chained_sessions_last_an_hour_at_most(aws):
    """The first session may be longer, one made by it may not."""
    first = assume(aws, "PatchwaveRole", DurationSeconds=7200)
    assert assume(aws, "auditor", "333333333333", session=first, DurationSeconds=3600)
    assert refused(assume, aws, "auditor", "333333333333", session=first, DurationSeconds=3601) == ("ValidationError", 400)
    assert refused(assume, aws, "PatchwaveRole", DurationSeconds=43_201) == ("ValidationError", 400)


def test_expirations_are_in_the_clients_own_time(aws):
    """A client refreshes by its own clock, whatever the virtual time is."""
    aws.advance(10 * 86_400)
    arn = f"arn:aws:iam::{OTHER}:role/PatchwaveRole"
    answer = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")
    left = answer["Credentials"]["Expiration"] - datetime.now(tz=UTC)
    assert 3500 < left.total_seconds() <= 3600


def test_the_accounts_of_the_world_are_an_organization(aws):
    """The first account manages it."""
    client = aws.client("organizations", region="us-east-1")
    rows = client.list_accounts()["Accounts"]
    assert [(one["Id"], one["Status"]) for one in rows] == [
        (ACCOUNT, "ACTIVE"),
        (OTHER, "ACTIVE"),
        ("333333333333", "ACTIVE"),
    ]
    assert [one["Name"] for one in rows[:2]] == ["hub", "shop"]
    assert all(one["Paths"][0].endswith(f"/{one['Id']}/") for one in rows)
    assert client.describe_organization()["Organization"]["MasterAccountId"] == ACCOUNT
    pages = client.get_paginator("list_accounts").paginate(PaginationConfig={"PageSize": 2})
    assert [len(page["Accounts"]) for page in pages] == [2, 1]


def test_only_the_management_account_may_list(aws):
    """A member is refused; it may ask which organization it is in."""
    session = assume(aws, "PatchwaveRole")
    member = aws.client("organizations", region="us-east-1", **session)
    assert refused(member.list_accounts)[0] == "AccessDeniedException"
    assert member.describe_organization()["Organization"]["MasterAccountId"] == ACCOUNT


def test_a_world_of_one_account_has_no_organization(start):
    """As an account of its own."""
    client = start().client("organizations", region="us-east-1")
    assert refused(client.list_accounts)[0] == "AWSOrganizationsNotInUseException"


def test_without_a_world_every_role_can_be_assumed(start):
    """moto's behaviour stays."""
    aws = start(None)
    assert aws.client("sts", **assume(aws, "any", "444444444444")).get_caller_identity()["Account"] == "444444444444"
