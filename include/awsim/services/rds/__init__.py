"""RDS beyond moto: maintenance, engine versions and snapshots that take their time.

`databases.py` knows what is pending for a database and changes it on the virtual clock, `maintenance.py` tells and applies what
is pending, `changes.py` begins modifications and snapshots, `versions.py` tells engine versions. What exists, and everything
else about it, is moto's.
"""

from awsim.services.rds import changes, databases, maintenance, versions

__all__ = ["changes", "databases", "maintenance", "versions"]
