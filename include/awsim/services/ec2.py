"""What EC2 says and does beyond moto: reboots take their time, and status checks follow them. Everything else stays moto's."""

from typing import Any

from awsim.journal import Cause
from awsim.registry import Context, operation
from awsim.wire import Answer


@operation("ec2", "RebootInstances", check=False)
def reboot_instances(ctx: Context, params: dict[str, Any]) -> Answer:
    """moto checks the ids; then the machines go down."""
    answer = ctx.moto_answer()
    if answer.status == 200:
        for identifier in params.get("InstanceIds") or []:
            host = ctx.world.host(ctx.account, ctx.region, identifier)
            if host is not None:
                ctx.world.reboot(host, cause=Cause(request_id=ctx.request_id))
    return answer


@operation("ec2", "DescribeInstanceStatus", check=False)
def describe_instance_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """moto says ok always; a machine that reboots is impaired, one that just came up initializes."""
    told = ctx.call_moto()
    for row in told.get("InstanceStatuses") or []:
        host = ctx.world.host(ctx.account, ctx.region, row["InstanceId"])
        if host is None or host.state != "running":
            continue
        status = host.status_check(ctx.at)
        reachability = {"ok": "passed", "impaired": "failed"}.get(status, status)
        row["InstanceStatus"] = {"Status": status, "Details": [{"Name": "reachability", "Status": reachability}]}
        system = "ok" if status != "initializing" else status
        row["SystemStatus"] = {
            "Status": system,
            "Details": [{"Name": "reachability", "Status": "passed" if system == "ok" else system}],
        }
    wanted = {entry["Name"]: entry["Values"] for entry in params.get("Filters") or []}
    for name, field in (("instance-status.status", "InstanceStatus"), ("system-status.status", "SystemStatus")):
        if name in wanted:
            told["InstanceStatuses"] = [row for row in told["InstanceStatuses"] if row[field]["Status"] in wanted[name]]
    return told
