"""The gateway to AWS: everything that a campaign asks of AWS or has it do, in the domain's words.

Hooks build one from a connection's credentials; triggers call it in threads. It is synchronous, knows no campaign and keeps
nothing but clients and a count of calls. Against awsim it is the same gateway under another endpoint.
"""

from __future__ import annotations

from patchwave.aws.automation import Automation
from patchwave.aws.baselines import Baselines
from patchwave.aws.calendars import ChangeCalendars
from patchwave.aws.commands import Commands
from patchwave.aws.config import ComplianceReads
from patchwave.aws.databases import ManagedDatabases
from patchwave.aws.events import Events
from patchwave.aws.functions import ManagedFunctions
from patchwave.aws.groups import Groups
from patchwave.aws.health import HealthChecks
from patchwave.aws.identity import Identity
from patchwave.aws.inspector import Inspector
from patchwave.aws.lists import Lists
from patchwave.aws.origins import Origins
from patchwave.aws.patching import Patching
from patchwave.aws.reachability import Reachability
from patchwave.aws.refreshes import Refreshes
from patchwave.aws.snapshots import RootVolumes
from patchwave.aws.windows import MaintenanceWindows


class Gateway(
    Commands,
    Patching,
    Lists,
    HealthChecks,
    Reachability,
    Groups,
    Origins,
    Inspector,
    ComplianceReads,
    Automation,
    Identity,
    Events,
    ChangeCalendars,
    MaintenanceWindows,
    Baselines,
    RootVolumes,
    ManagedDatabases,
    ManagedFunctions,
    Refreshes,
):
    """All services together; `calls.Calls` says how it is built."""
