"""Lambda: runtime versions and who moves them, and what Inspector finds in functions."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import FEW, Aws

WORLD = (
    FEW
    + """
functions:
  - {name: resize, account: "111111111111", region: eu-central-1, behind: 1, tags: {Environment: dev}, owner: media}
  - {name: bill, account: "111111111111", region: eu-central-1, behind: 2, mode: Manual, owner: money, code: [pip-jinja2]}
  - name: mail
    account: "111111111111"
    region: eu-central-1
    behind: 1
    mode: FunctionUpdate
    weaknesses: [{cwe: CWE-89, title: SQL injection, score: 8.1, file: db.py, line: 12}]
  - {name: old, account: "111111111111", region: eu-central-1, runtime: python3.8, mode: FunctionUpdate, behind: 1}
runtime_releases: [{runtime: python3.12, after: 864000}]
functions_timings: {update: [10, 10], auto_update: [86400, 86400]}
"""
)
DAY = 86_400


@pytest.fixture
def aws(start):
    return start(WORLD)


@pytest.fixture
def functions(aws):
    return aws.client("lambda")


def version(functions: Any, name: str) -> str:
    told = functions.get_function_configuration(FunctionName=name)
    return str(told["RuntimeVersionConfig"]["RuntimeVersionArn"])


def status(functions: Any, name: str) -> str:
    return str(functions.get_function_configuration(FunctionName=name)["LastUpdateStatus"])


def managed(functions: Any, name: str) -> dict[str, Any]:
    told = functions.get_runtime_management_config(FunctionName=name)
    return {key: told[key] for key in ("UpdateRuntimeOn", "RuntimeVersionArn") if key in told}


def code(call: Any, **request: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as refused:
        call(**request)
    return refused.value.response["ResponseMetadata"]["HTTPStatusCode"], refused.value.response["Error"]["Code"]


def findings(aws: Aws, name: str, state: str = "ACTIVE", **criteria: Any) -> list[dict[str, Any]]:
    wanted = {
        "lambdaFunctionName": [{"comparison": "EQUALS", "value": name}],
        "findingStatus": [{"comparison": "EQUALS", "value": state}],
        **criteria,
    }
    return list(aws.client("inspector2").list_findings(filterCriteria=wanted)["findings"])


def cves(rows: list[dict[str, Any]]) -> set[str]:
    return {row["packageVulnerabilityDetails"]["vulnerabilityId"] for row in rows if "packageVulnerabilityDetails" in row}


def updates(aws: Aws) -> list[tuple[str, str, str]]:
    lines = [line for line in aws.journal() if line["operation"] == "runtime-update"]
    return [(line["function"], line["before"], line["version"]) for line in lines]


def test_functions_run_on_what_the_world_file_says(functions):
    """The same version has the same ARN; one that is pinned says to what."""
    assert version(functions, "resize") == version(functions, "mail") != version(functions, "bill")
    assert version(functions, "resize").startswith("arn:aws:lambda:eu-central-1::runtime:")
    assert managed(functions, "resize") == {"UpdateRuntimeOn": "Auto"}
    assert managed(functions, "bill") == {"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": version(functions, "bill")}


def test_aws_updates_automatic_functions_by_and_by(aws, functions):
    """Days after a version has appeared; nobody else's."""
    pinned, waiting, first = version(functions, "bill"), version(functions, "mail"), version(functions, "resize")
    aws.advance(DAY - 60)
    assert version(functions, "resize") == first
    aws.advance(120)
    second = version(functions, "resize")
    assert second != first
    aws.advance(10 * DAY - 120)
    assert version(functions, "resize") == second  # a newer one appeared a day ago, but for a minute
    aws.advance(DAY)
    assert version(functions, "resize") not in (first, second)
    assert (version(functions, "bill"), version(functions, "mail")) == (pinned, waiting)
    assert updates(aws) == [
        ("resize", "python3.12.v3", "python3.12.v4"),
        ("resize", "python3.12.v4", "python3.12.v5"),
    ]


def test_an_update_of_the_function_brings_the_newest_runtime(aws, functions):
    """In the mode FunctionUpdate; while it lasts, nothing else is taken."""
    before = version(functions, "mail")
    functions.update_function_configuration(FunctionName="mail", Description="touched")
    assert status(functions, "mail") == "InProgress"
    busy = {"FunctionName": "mail", "Description": "again"}
    assert code(functions.update_function_configuration, **busy) == (409, "ResourceConflictException")
    busy = {"FunctionName": "mail", "UpdateRuntimeOn": "Auto"}
    assert code(functions.put_runtime_management_config, **busy) == (409, "ResourceConflictException")
    aws.advance(15)
    assert status(functions, "mail") == "Successful"
    assert version(functions, "mail") != before


def test_an_update_leaves_a_pinned_function_where_it_is(aws, functions):
    """Manual is manual."""
    pinned = version(functions, "bill")
    functions.update_function_configuration(FunctionName="bill", Description="touched")
    aws.advance(15)
    assert version(functions, "bill") == pinned


def test_a_function_is_pinned_and_goes_back(aws, functions):
    """To any version of its runtime that has appeared; the way back from an update."""
    old, new = version(functions, "bill"), version(functions, "resize")
    functions.put_runtime_management_config(FunctionName="bill", UpdateRuntimeOn="Manual", RuntimeVersionArn=new)
    assert version(functions, "bill") == old
    aws.advance(15)
    assert version(functions, "bill") == new
    functions.put_runtime_management_config(FunctionName="bill", UpdateRuntimeOn="Manual", RuntimeVersionArn=old)
    aws.advance(15)
    assert version(functions, "bill") == old
    functions.put_runtime_management_config(FunctionName="bill", UpdateRuntimeOn="FunctionUpdate")
    aws.advance(15)
    assert (version(functions, "bill"), managed(functions, "bill")) == (old, {"UpdateRuntimeOn": "FunctionUpdate"})


def test_back_to_automatic_means_the_newest(aws, functions):
    """And nothing says what it was pinned to."""
    functions.put_runtime_management_config(FunctionName="bill", UpdateRuntimeOn="Auto")
    aws.advance(15)
    assert managed(functions, "bill") == {"UpdateRuntimeOn": "Auto"}
    assert updates(aws) == [("bill", "python3.12.v2", "python3.12.v4")]


def test_a_version_is_named_with_manual_and_only_then(functions):
    """Always with it; one of the function's own runtime."""
    invalid, put = (400, "InvalidParameterValueException"), functions.put_runtime_management_config
    arn = version(functions, "resize")
    assert code(put, FunctionName="resize", UpdateRuntimeOn="Manual") == invalid
    assert code(put, FunctionName="resize", UpdateRuntimeOn="Auto", RuntimeVersionArn=arn) == invalid
    assert code(put, FunctionName="old", UpdateRuntimeOn="Manual", RuntimeVersionArn=arn) == invalid
    assert code(put, FunctionName="nobody", UpdateRuntimeOn="Auto") == (404, "ResourceNotFoundException")
    assert code(functions.get_runtime_management_config, FunctionName="nobody") == (404, "ResourceNotFoundException")


def test_a_list_does_not_tell_what_one_function_tells(functions):
    """The runtime version is not in it, as AWS says of ListFunctions; pages hold what was asked for."""
    rows = functions.list_functions()["Functions"]
    assert {row["FunctionName"]: row["Runtime"] for row in rows}["old"] == "python3.8"
    assert not [row for row in rows if "RuntimeVersionConfig" in row or "LastUpdateStatus" in row]
    pages = list(functions.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 3}))
    assert [len(page["Functions"]) for page in pages] == [3, 1]
    assert functions.list_tags(Resource=rows[0]["FunctionArn"])["Tags"]["Owner"] == "media"


def test_a_deprecated_runtime_gets_no_updates_and_takes_none(aws, functions):
    """Python 3.8 ended in October 2024."""
    invalid = (400, "InvalidParameterValueException")
    assert code(functions.update_function_configuration, FunctionName="old", Description="x") == invalid
    functions.update_function_configuration(FunctionName="mail", Runtime="python3.13")
    aws.advance(15)
    assert code(functions.update_function_configuration, FunctionName="mail", Runtime="python3.8") == invalid
    criteria = {"resourceType": [{"comparison": "EQUALS", "value": "AWS_LAMBDA_FUNCTION"}]}
    rows = aws.client("inspector2").list_coverage(filterCriteria=criteria)["coveredResources"]
    reasons = {row["resourceMetadata"]["lambdaFunction"]["functionName"]: row["scanStatus"]["reason"] for row in rows}
    assert reasons == {"bill": "SUCCESSFUL", "mail": "SUCCESSFUL", "old": "UNSUPPORTED_RUNTIME", "resize": "SUCCESSFUL"}
    assert findings(aws, "old") == []


def test_a_runtime_update_closes_what_the_runtime_brought_along(aws, functions):
    """The same CVE as on hosts, without a path in the function's code."""
    rows = findings(aws, "mail", findingType=[{"comparison": "EQUALS", "value": "PACKAGE_VULNERABILITY"}])
    assert cves(rows) == {"CVE-2024-9681", "CVE-2024-11053"}
    package = rows[0]["packageVulnerabilityDetails"]["vulnerablePackages"][0]
    assert (package["packageManager"], package.get("filePath")) == ("OS", None)
    assert rows[0]["resources"][0]["type"] == "AWS_LAMBDA_FUNCTION"
    assert rows[0]["resources"][0]["details"]["awsLambdaFunction"]["runtime"] == "PYTHON_3_12"
    functions.update_function_configuration(FunctionName="mail", Description="touched")
    aws.advance(60)
    assert cves(findings(aws, "mail")) == cves(rows)  # Inspector has not looked again
    aws.advance(180)
    assert cves(findings(aws, "mail")) == set()
    assert cves(findings(aws, "mail", "CLOSED")) == cves(rows)


def test_what_is_in_the_code_stays_until_the_code_is_new(aws, functions):
    """A package that it brings along, and a weakness of what somebody wrote."""
    newest = version(functions, "bill")
    for name in ("bill", "mail"):
        functions.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Auto")
    aws.advance(300)
    assert version(functions, "bill") != newest
    (row,) = findings(aws, "bill")
    package = row["packageVulnerabilityDetails"]["vulnerablePackages"][0]
    assert (package["packageManager"], package["filePath"][:9]) == ("PYTHONPKG", "/var/task")
    (row,) = findings(aws, "mail")
    assert (row["type"], row["codeVulnerabilityDetails"]["cwes"]) == ("CODE_VULNERABILITY", ["CWE-89"])
    assert row["codeVulnerabilityDetails"]["filePath"]["startLine"] == 12
    archive = functions.get_function(FunctionName="bill")["Configuration"]["CodeSha256"]
    assert archive == row["resources"][0]["details"]["awsLambdaFunction"]["codeSha256"]
    for name in ("bill", "mail"):
        functions.update_function_code(FunctionName=name, ZipFile=b"new")
    aws.advance(300)
    assert [findings(aws, name) for name in ("bill", "mail")] == [[], []]


def test_functions_are_counted_apart_from_hosts(aws):
    """Aggregations and coverage by the kind of resource."""
    inspector = aws.client("inspector2")
    rows = inspector.list_finding_aggregations(aggregationType="AWS_LAMBDA_FUNCTION")["responses"]
    counted = {row["lambdaFunctionAggregation"]["functionName"]: row["lambdaFunctionAggregation"] for row in rows}
    assert set(counted) == {"resize", "bill", "mail"}
    assert counted["resize"]["severityCounts"]["all"] == 2
    hosts = inspector.list_finding_aggregations(aggregationType="AWS_EC2_INSTANCE")["responses"]
    assert all(row["ec2InstanceAggregation"]["instanceId"].startswith("i-") for row in hosts)
    counts = inspector.list_coverage_statistics(groupBy="RESOURCE_TYPE")["countsByGroup"]
    assert {row["groupKey"]: row["count"] for row in counts}["AWS_LAMBDA_FUNCTION"] == 8


def test_a_function_that_a_caller_makes_is_on_the_newest_version(aws, functions):
    """And automatic, as AWS makes them."""
    role = aws.client("iam").create_role(RoleName="run", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    functions.create_function(
        FunctionName="new", Runtime="python3.12", Role=role, Handler="app.handler", Code={"ZipFile": b"code"}
    )
    aws.advance(2 * DAY)
    assert version(functions, "new") == version(functions, "resize")
    assert managed(functions, "new") == {"UpdateRuntimeOn": "Auto"}
    functions.delete_function(FunctionName="new")
    assert code(functions.get_runtime_management_config, FunctionName="new")[0] == 404


def test_a_world_file_names_runtimes_that_exist(start):
    """The message says which ones there are."""
    with pytest.raises(ValueError, match=r"runtime_releases\.0\.runtime: 'python4' is not one of .*python3\.12"):
        start(WORLD.replace("runtime: python3.12", "runtime: python4"))
