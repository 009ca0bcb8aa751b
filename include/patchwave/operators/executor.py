"""Moved to `patchwave.execution.executor`."""

from patchwave.execution.executor import *  # noqa: F403
