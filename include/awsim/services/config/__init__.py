"""What does AWS Config say of the hosts, when was that judged, and how does its remediation stand?

`evaluation.py` judges (the managed rules that a patch campaign uses, as a function of time), `custom.py` takes what custom
rules say, `operations.py` tells of rules and compliance, `remediation.py` starts Automation executions, also by itself,
`packs.py` makes rules of conformance packs and organization packs, `aggregators.py` looks at many accounts and regions, late.
Rules live in moto (PutConfigRule and DeleteConfigRule are moto's, watched here), those of conformance packs here.
"""

from awsim.services.config import aggregators, custom, operations, packs, remediation

__all__ = ["aggregators", "custom", "operations", "packs", "remediation"]
