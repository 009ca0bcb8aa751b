"""Instance refreshes of Auto Scaling groups, and the launch template versions that they bring.

The calls that `campaign.replacement` decides on. A version is made with the client token and the description of the intent, so
that it is found again; a refresh takes no token and is known by the version that it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from patchwave.aws.calls import Calls
from patchwave.aws.errors import code_of
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.replacement import Preferences, Refresh, Status, TemplateVersion
from patchwave.campaign.values import Cell

LARGEST_REFRESHES = 100
"""Auto Scaling API reference, DescribeInstanceRefreshes: MaxRecords at most 100."""
LARGEST_VERSIONS = 200
"""EC2 API reference, DescribeLaunchTemplateVersions: MaxResults 1 to 200."""


class Refreshes(Calls):
    """Replacing instances."""

    def refreshes(self, cell: Cell, group: str) -> tuple[Refresh, ...]:
        """What AWS remembers of a group's refreshes, six weeks back, the newest first."""
        return tuple(
            _refresh(row)
            for page in self.pages(
                cell, "autoscaling:DescribeInstanceRefreshes", AutoScalingGroupName=group, MaxRecords=LARGEST_REFRESHES
            )
            for row in page.get("InstanceRefreshes", ())
        )

    def template_version(self, cell: Cell, template: str, token: str) -> TemplateVersion | None:
        """The version of a launch template that was made for this intent; None if there is none."""
        for page in self.pages(
            cell, "ec2:DescribeLaunchTemplateVersions", LaunchTemplateId=template, MaxResults=LARGEST_VERSIONS
        ):
            for row in page.get("LaunchTemplateVersions", ()):
                if row.get("VersionDescription") == token:
                    return TemplateVersion(template=template, version=str(row["VersionNumber"]))
        return None

    def make_template_version(self, cell: Cell, base: TemplateVersion, image: str, token: str) -> TemplateVersion:
        """A version like `base`, with another image. The same token makes it once.

        Args:
            token: at most 64 characters, as AWS's ClientToken.
        """
        made = self.call(
            cell, "ec2:CreateLaunchTemplateVersion", LaunchTemplateId=base.template, SourceVersion=base.version,
            LaunchTemplateData={"ImageId": image}, VersionDescription=token, ClientToken=token,
        )  # fmt: skip
        return TemplateVersion(template=base.template, version=str(made["LaunchTemplateVersion"]["VersionNumber"]))

    def start_refresh(self, cell: Cell, group: str, asks_for: TemplateVersion, how: Preferences) -> str:
        """Begin to replace the group's instances; its id.

        What runs the version already stays (SkipMatching). AWS takes the refresh back by itself when one of the alarms fires, or
        when it fails.

        Raises:
            OutcomeUnknown: the answer was lost: look for a refresh that asks for this version.
            InvalidRequest: AWS refuses it (`InstanceRefreshInProgress`: another one was faster).
        """
        wanted = {"LaunchTemplate": {"LaunchTemplateId": asks_for.template, "Version": asks_for.version}}
        made = self.call(
            cell, "autoscaling:StartInstanceRefresh", AutoScalingGroupName=group, Strategy="Rolling",
            DesiredConfiguration=wanted, Preferences=_preferences(how),
        )  # fmt: skip
        return str(made["InstanceRefreshId"])

    def cancel_refresh(self, cell: Cell, group: str) -> bool:
        """Let what is under way come to its end and begin no further instance. It undoes nothing.

        Returns:
            False if no refresh was active.
        """
        return self._ended(cell, "autoscaling:CancelInstanceRefresh", group)

    def roll_back_refresh(self, cell: Cell, group: str) -> bool:
        """Replace the new instances by ones from the configuration of before.

        Returns:
            False if no refresh was active.

        Raises:
            InvalidRequest: AWS cannot take it back (`IrreversibleInstanceRefresh`).
        """
        return self._ended(cell, "autoscaling:RollbackInstanceRefresh", group)

    def _ended(self, cell: Cell, operation: str, group: str) -> bool:
        try:
            self.call(cell, operation, AutoScalingGroupName=group)
        except InvalidRequest as error:
            if code_of(error) not in {"ActiveInstanceRefreshNotFound", "ActiveInstanceRefreshNotFoundFault"}:
                raise
            return False
        return True


def _refresh(row: Mapping[str, Any]) -> Refresh:
    template = (row.get("DesiredConfiguration") or {}).get("LaunchTemplate") or {}
    named = template.get("LaunchTemplateId") and template.get("Version")
    return Refresh(
        id=row["InstanceRefreshId"],
        status=Status(row["Status"]),
        asks_for=TemplateVersion(template=template["LaunchTemplateId"], version=str(template["Version"])) if named else None,
        began_at=row["StartTime"].astimezone(UTC),
        percent=int(row.get("PercentageComplete") or 0),
        why=str((row.get("RollbackDetails") or {}).get("RollbackReason") or row.get("StatusReason") or ""),
    )


def _preferences(how: Preferences) -> dict[str, Any]:
    made: dict[str, Any] = {
        "MinHealthyPercentage": how.min_healthy,
        "SkipMatching": True,
        "AutoRollback": True,
        "ScaleInProtectedInstances": how.protected.value,
        "StandbyInstances": how.standby.value,
        "BakeTime": int(how.bake.total_seconds()),
    }
    if how.max_healthy is not None:
        made["MaxHealthyPercentage"] = how.max_healthy
    if how.warmup is not None:
        made["InstanceWarmup"] = int(how.warmup.total_seconds())
    if how.checkpoints:
        made["CheckpointPercentages"] = list(how.checkpoints)
        made["CheckpointDelay"] = int(how.checkpoint_delay.total_seconds())
    if how.alarms:
        made["AlarmSpecification"] = {"Alarms": list(how.alarms)}
    return made
