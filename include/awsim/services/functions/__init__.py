"""Lambda's runtime management: which version of its runtime has a function, and who changes it when?

`functions.py` keeps each function's mode and version and moves them on the virtual clock, `operations.py` answers calls. What
exists, with its code and configuration, is moto's; what Inspector finds in functions is `services/inspector2/functions.py`'s.
"""

from awsim.services.functions import functions, operations

__all__ = ["functions", "operations"]
