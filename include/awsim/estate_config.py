"""What does moto keep of AWS Config beyond rules (`estate.py`), and of the groups that a rule looks at?"""

from typing import Any

from moto.autoscaling.models import autoscaling_backends
from moto.config.models import config_backends


def config_rule_row(account: str, region: str, name: str) -> dict[str, Any]:
    """The rule as DescribeConfigRules tells it."""
    row: dict[str, Any] = config_backends[account][region].config_rules[name].to_dict()
    return row


def aggregator(account: str, region: str, name: str) -> dict[str, Any] | None:
    """A configuration aggregator in the shape of moto's own answer."""
    found = config_backends[account][region].config_aggregators.get(name)
    return found.to_dict() if found is not None else None


def has_region(region: str) -> bool:
    """Whether AWS Config is there."""
    return region in config_backends["123456789012"].regions


def aggregation_allowed(source: str, region: str, by: str, by_region: str) -> bool:
    """Whether the source account lets that account aggregate its data there."""
    return f"{by}/{by_region}" in config_backends[source][region].aggregation_authorizations


def put_organization_pack(account: str, region: str, name: str, params: dict[str, Any]) -> str:
    """moto's record of an organization conformance pack, also where the template is not in S3; the pack's ARN."""
    answer = config_backends[account][region].put_organization_conformance_pack(
        name=name,
        template_s3_uri=params.get("TemplateS3Uri") or "s3://template-body/given",
        template_body=params.get("TemplateBody") or "",
        delivery_s3_bucket=params.get("DeliveryS3Bucket") or "",
        delivery_s3_key_prefix=params.get("DeliveryS3KeyPrefix") or "",
        input_parameters=params.get("ConformancePackInputParameters") or [],
        excluded_accounts=params.get("ExcludedAccounts") or [],
    )
    return str(answer["OrganizationConformancePackArn"])


def scaling_groups(account: str, region: str) -> list[tuple[str, str, bool]]:
    """ARN and name of each Auto Scaling group, and whether a launch template makes its instances."""
    if account not in autoscaling_backends:
        return []
    groups = autoscaling_backends[account][region].autoscaling_groups.values()
    return [(str(group.arn), str(group.name), group.launch_config is None) for group in groups]
