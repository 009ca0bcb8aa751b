"""Reports campaign and policy files that cannot be read, as one import error that names each.

It yields no dag, for Airflow calls every DAG of a file stale that has an import error (this is why the airflow wiring
stands in `campaigns.py`, which this file must not import).
"""

from __future__ import annotations

import os
from pathlib import Path

from patchwave.campaign import definition, policy
from patchwave.campaign.errors import InvalidFile

INCLUDE = Path(__file__).resolve().parents[1] / "include"
CAMPAIGNS = Path(os.environ.get("PATCHWAVE_CAMPAIGNS", INCLUDE / "campaigns"))
POLICIES = Path(os.environ.get("PATCHWAVE_POLICIES", INCLUDE / "policies"))

problems = [problem for broken in definition.read_all(CAMPAIGNS, policies=POLICIES)[1] for problem in broken.problems]
for path in sorted(POLICIES.glob("*.yaml")):
    try:
        policy.read(path)
    except InvalidFile as error:
        problems.extend(error.problems)
if problems:
    raise InvalidFile(tuple(dict.fromkeys(problems)))
