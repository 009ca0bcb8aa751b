"""The only place that knows boto3; returns domain types."""

from patchwave.aws.gateway import Gateway

__all__ = ["Gateway"]
