"""SSM Automation: executions of runbooks, really carried out.

`start`, `start_many`, `stop` and `signal` are what the operations (`operations.py`), Config's remediation and maintenance windows
call; every step is events on the world's agenda. `executions.py` holds the records, `flow.py` moves an execution from step to
step, `actions.py` has one function an action, `rate.py` fans an execution out over targets, accounts and regions, `documents.py`
finds runbooks: those that callers created in moto, and AWS's own, shipped as YAML in `runbooks/`. An action that is not
simulated fails, and the failure names it.
"""

from awsim.services.automation import actions, operations
from awsim.services.automation.executions import Execution, Executions, Step, executions
from awsim.services.automation.flow import signal, start, stop
from awsim.services.automation.rate import start_many

__all__ = [
    "Execution",
    "Executions",
    "Step",
    "actions",
    "executions",
    "operations",
    "signal",
    "start",
    "start_many",
    "stop",
]
