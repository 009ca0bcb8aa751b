"""Can strangers reach a host? Its public addresses, the load balancers in front of it, its tags.

`patchwave.aws.reachability` sees it, `deadlines` judges it. How long a host was exposed to a finding is `exposure`'s question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Sign(StrEnum):
    """What shows that strangers can reach a host."""

    PUBLIC_ADDRESS = "public_address"  # a public IPv4 or any IPv6 address of one of its interfaces
    INTERNET_FACING_LOAD_BALANCER = "internet_facing_load_balancer"  # one of its target groups serves such a load balancer


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How a host can be reached.

    Attributes:
        addresses: its public ones.
        balancers: names of the internet-facing load balancers that send it requests.
        tags: those that the policy asks for.
    """

    addresses: tuple[str, ...] = ()
    balancers: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def shows(self, sign: Sign) -> str:
        """The sign in words; empty if the host does not show it."""
        match sign:
            case Sign.PUBLIC_ADDRESS:
                # Which one is not said: a thousand hosts would have a thousand reasons, and nobody reads those.
                return "it has a public address" if self.addresses else ""
            case Sign.INTERNET_FACING_LOAD_BALANCER:
                return f"behind the internet-facing load balancer {self.balancers[0]}" if self.balancers else ""
