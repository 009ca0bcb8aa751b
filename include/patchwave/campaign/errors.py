"""Which failures are worth another try, and which are not?

Every error of Patchwave belongs to one of two families; the Airflow shells translate them (`Transient` is retried by
Airflow, `Permanent` becomes `AirflowFailException`). AWS's errors are translated into them once, in `patchwave.aws`.
"""

from __future__ import annotations


class PatchwaveError(Exception):
    """Anything that Patchwave itself reports; the docstring of the subclass is the default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).splitlines()[0])


class Transient(PatchwaveError):
    """It may go well a moment later: throttling, a lost connection, a ledger that is locked."""


class Permanent(PatchwaveError):
    """It will fail again however often it is tried: bad input, missing rights, a broken rule."""


class InvalidFile(Permanent):
    """A campaign, policy or world file says something that it must not say.

    Attributes:
        problems: one sentence each, already with file, line and field.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class LeaseLost(Transient):
    """Another process has taken this stage over; this one steps back before its next effect."""


class IllegalMove(Permanent):
    """A host cannot go from that state to this one."""


class ImageRefused(Permanent):
    """This version of a gold image cannot come to that level."""


class NotApproved(Permanent):
    """The ledger holds no approval of this plan for this stage, so nothing is patched."""


class LedgerUnavailable(Transient):
    """The ledger does not answer; nothing is sent to any host until it does."""


class OutcomeUnknown(Transient):
    """A call with an effect was made and its answer was lost: it is looked up by its token before anything is sent again."""


class AccessDenied(Permanent):
    """AWS refuses this call for the credentials in use.

    Attributes:
        operation: AWS's name of the call, e.g. ``ssm:SendCommand``.
    """

    def __init__(self, message: str, *, operation: str) -> None:
        self.operation = operation
        super().__init__(message)


class Throttled(Transient):
    """AWS asks for fewer calls; the whole cell slows down."""


class AwsUnavailable(Transient):
    """AWS, or the way to it, does not answer as it should."""


class InvalidRequest(Permanent):
    """AWS refuses the request as it was made."""


class HostsRefused(Permanent):
    """AWS refuses a command because of at least one of its hosts, and sends it to none of them."""
