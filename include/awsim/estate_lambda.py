"""What does moto keep of Lambda? The functions, of which `services/functions` knows runtime version and management."""

import base64
import io
import json
import zipfile
from functools import cache
from typing import Any

from moto.awslambda.models import lambda_backends
from moto.iam.models import iam_backends

from awsim.clock import iso

_ROLE = "functions"


def function(account: str, region: str, name: str, qualifier: str | None = None) -> Any | None:
    """By name, partial or whole ARN; None for one that does not exist, or has no such version or alias."""
    parts = name.split(":")
    if "function" in parts:
        parts = parts[parts.index("function") + 1 :]
    elif len(parts) > 2:
        parts = parts[-1:]
    backend = _backend(account, region)
    try:
        return backend.get_function(parts[0], qualifier or (parts[1] if len(parts) > 1 else None))
    except Exception:  # noqa: BLE001 - moto's own, of several kinds
        return None


def functions(account: str, region: str) -> list[Any]:
    """The newest version ($LATEST) of each."""
    return list(_backend(account, region)._lambdas.latest())


def make_function(account: str, region: str, *, name: str, runtime: str, tags: dict[str, str], at: float) -> Any:
    role = f"arn:aws:iam::{account}:role/{_ROLE}"
    iam = iam_backends[account]["aws"]
    if all(known.name != _ROLE for known in iam.roles.values()):
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
        iam.create_role(_ROLE, json.dumps(trust), "/", None, "", [], "3600")
    made = _backend(account, region).create_function(
        {
            "FunctionName": name,
            "Runtime": runtime,
            "Role": role,
            "Handler": "app.handler",
            "Code": {"ZipFile": _archive()},
            "Tags": dict(tags),
        }
    )
    made.last_modified = iso(at).replace("Z", "+0000")
    return made


@cache
def _archive() -> str:
    """Somebody's code, in base64."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("app.py"), "def handler(event, context):\n    return event\n")
    return base64.b64encode(packed.getvalue()).decode()


def _backend(account: str, region: str) -> Any:
    return lambda_backends[account][region]
