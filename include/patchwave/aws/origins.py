"""From what do Auto Scaling groups make their instances?

`operators.compliance` asks when a run is verified, for `campaign.stale_images`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from patchwave.aws import moments
from patchwave.aws.calls import Calls, chunks
from patchwave.aws.errors import code_of
from patchwave.aws.groups import LARGEST_GROUPS
from patchwave.campaign.errors import Permanent
from patchwave.campaign.stale_images import Origin
from patchwave.campaign.values import Cell

ALIAS = "resolve:ssm:"
"""A launch template may name a parameter, or a public one of AWS, in the place of an image (EC2 user guide)."""


class Origins(Calls):
    """What groups launch."""

    def origins(self, cell: Cell, groups: Collection[str]) -> tuple[Origin, ...]:
        """From what these groups make their instances: one for each template that a group may use; one that is gone has none."""
        found: list[tuple[str, str, str, int]] = []
        for some in chunks(sorted(groups), LARGEST_GROUPS):
            for page in self.pages(
                cell, "autoscaling:DescribeAutoScalingGroups", AutoScalingGroupNames=list(some), MaxRecords=LARGEST_GROUPS
            ):
                for row in page.get("AutoScalingGroups", ()):
                    most = int(row.get("MaxSize", 0))
                    found += [(row["AutoScalingGroupName"], *source, most) for source in self._sources(cell, row)]
        made = self._made_at(cell, {image for _, _, image, _ in found if image})
        return tuple(
            Origin(cell=cell, group=group, source=source, image=image, made_at=made.get(image), most=most)
            for group, source, image, most in found
        )

    def _sources(self, cell: Cell, group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What the group's instances are made from, in words, and the image; AWS may not say it."""
        mixed = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
        templates = [group.get("LaunchTemplate"), mixed.get("LaunchTemplateSpecification")]
        templates += [one.get("LaunchTemplateSpecification") for one in mixed.get("Overrides", ())]
        known = {tuple(sorted(one.items())): one for one in templates if one}
        for one in known.values():
            name = one.get("LaunchTemplateName") or one.get("LaunchTemplateId", "")
            yield f"launch template {name}, version {one.get('Version', '$Default')}", self._of_template(cell, one)
        configuration = group.get("LaunchConfigurationName")
        if configuration:
            yield f"launch configuration {configuration}", self._of_configuration(cell, configuration)
        if not known and not configuration:
            yield "", ""

    def _of_template(self, cell: Cell, template: Mapping[str, str]) -> str:
        named = {"LaunchTemplateId": template["LaunchTemplateId"]} if template.get("LaunchTemplateId") else {
            "LaunchTemplateName": template["LaunchTemplateName"]
        }  # fmt: skip
        asked = {**named, "Versions": [template.get("Version", "$Default")]}
        image = self._image(cell, asked)
        return self._image(cell, asked | {"ResolveAlias": True}) if image.startswith(ALIAS) else image

    def _image(self, cell: Cell, asked: Mapping[str, Any]) -> str:
        """The image of one version; empty if the template is gone, names none, or names an alias that AWS does not resolve."""
        try:
            rows = self.call(cell, "ec2:DescribeLaunchTemplateVersions", **asked).get("LaunchTemplateVersions", ())
        except Permanent as error:
            if not (code_of(error) or "").startswith("InvalidLaunchTemplate"):
                raise
            return ""
        image = str(rows[0].get("LaunchTemplateData", {}).get("ImageId", "")) if rows else ""
        return "" if image.startswith(ALIAS) and "ResolveAlias" in asked else image

    def _of_configuration(self, cell: Cell, name: str) -> str:
        answer = self.call(cell, "autoscaling:DescribeLaunchConfigurations", LaunchConfigurationNames=[name])
        return next((str(row["ImageId"]) for row in answer.get("LaunchConfigurations", ())), "")

    def _made_at(self, cell: Cell, images: Collection[str]) -> dict[str, datetime]:
        """When these images were made; one that AWS does not know, or not any more, is absent."""
        found: dict[str, datetime] = {}
        for image in sorted(images):
            # One by one: an id that is gone fails the whole call.
            try:
                rows = self.call(cell, "ec2:DescribeImages", ImageIds=[image], IncludeDeprecated=True).get("Images", ())
            except Permanent as error:
                if not (code_of(error) or "").startswith("InvalidAMIID"):
                    raise
                continue
            found.update({row["ImageId"]: moments.parsed(row["CreationDate"]) for row in rows if row.get("CreationDate")})
        return found
