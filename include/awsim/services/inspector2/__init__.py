"""Inspector: findings, coverage, counts, accounts and filters.

`sightings.py` derives findings from the world, `criteria.py` filters and sorts them, `findings.py`, `coverage.py` and
`aggregations.py` tell them, `suppression.py` holds the filters that suppress, `accounts.py` says where Inspector is on and who
sees whom. Members, tags and the organization's configuration stay moto's.
"""

from awsim.services.inspector2 import accounts, aggregations, coverage, findings, suppression

__all__ = ["accounts", "aggregations", "coverage", "findings", "suppression"]
