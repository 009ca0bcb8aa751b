"""Where does AWS-RunPatchBaseline read what it is to install, or by which baselines? An object in S3, named by its content.

`patchwave.execution` lays a list (InstallOverrideList) or baselines (BaselineOverride) down before the Install that names them.
The key is the digest of the text: laying the same down again changes nothing, and a run that resumes names the same address.
Hosts read it with their own instance profile (docs/iam/patchwave-hosts.json).
"""

from __future__ import annotations

import hashlib
import re

from patchwave.aws.calls import Calls
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.values import Cell

FOLDER = "patchwave-lists"
"""The IAM policies allow this prefix and nothing else."""
LONGEST_ADDRESS = 256
"""botocore model of ssm, InstancePatchState.InstallOverrideList: a longer one would be cut in the report."""
YAML, JSON = "yaml", "json"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def address(bucket: str, text: str, kind: str = YAML) -> str:
    """``s3://bucket/patchwave-lists/<sha256 of the text>.yaml``, or ``.json``.

    Raises:
        InvalidRequest: that is no name of a bucket.
    """
    if not _BUCKET.fullmatch(bucket):
        raise InvalidRequest(f"{bucket!r} is no S3 bucket; allowed are 3 to 63 small letters, digits, dots and hyphens")
    return f"s3://{bucket}/{_key(text, kind)}"


class Lists(Calls):
    """Lists of patches in S3."""

    def lay_down(self, cell: Cell, bucket: str, text: str) -> str:
        """Put a list where the hosts of a cell read it, in one call.

        It is put again before each Install: who may write to the bucket may have changed it since.

        Args:
            cell: with whose credentials; the bucket may be in another region.

        Returns:
            Its address, for InstallOverrideList.

        Raises:
            AccessDenied: the credentials may not write there.
            InvalidRequest: there is no such bucket.
        """
        return self._put(cell, bucket, text, YAML)

    def lay_down_override(self, cell: Cell, bucket: str, text: str) -> str:
        """The same for the JSON of a BaselineOverride.

        Returns:
            Its address, for BaselineOverride.
        """
        return self._put(cell, bucket, text, JSON)

    def _put(self, cell: Cell, bucket: str, text: str, kind: str) -> str:
        where = address(bucket, text, kind)
        media = f"application/{kind}; charset=utf-8"
        self.call(cell, "s3:PutObject", Bucket=bucket, Key=_key(text, kind), Body=text.encode(), ContentType=media)
        return where


def _key(text: str, kind: str) -> str:
    return f"{FOLDER}/{hashlib.sha256(text.encode()).hexdigest()}.{kind}"
