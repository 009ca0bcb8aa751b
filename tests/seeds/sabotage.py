"""Executors with a bug each: what the seeds have to find."""

from __future__ import annotations

from datetime import timedelta

from patchwave.execution.executor import StageExecutor


class _LeaseIgnored(StageExecutor):
    """Does not look whether another process has taken the stage over."""


SABOTAGE: dict[str, type[StageExecutor]] = {}
__all__ = ["SABOTAGE", "timedelta"]
