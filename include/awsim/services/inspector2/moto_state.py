"""What does moto keep of Inspector: members, delegated administrators, filters, and results put there by hand?"""

from typing import Any

from moto.inspector2.models import inspector2_backends


def members(account: str, region: str) -> list[str]:
    """The member accounts of an administrator."""
    if account not in inspector2_backends:
        return []
    found = inspector2_backends[account][region].members.values()
    return [str(member.account_id) for member in found if member.status == "ENABLED"]


def administrator(account: str, region: str) -> str | None:
    """Whose member an account is, or the delegated administrator that it has named itself."""
    for other in list(inspector2_backends):
        backend = inspector2_backends[other][region]
        if account in members(other, region):
            return str(other)
        if other == account:
            named = [key for key, status in backend.admin_accounts.items() if status == "ENABLED"]
            if named:
                return str(named[0])
    return None


def named_administrators(account: str, region: str) -> list[str]:
    found = inspector2_backends[account][region].admin_accounts
    return [str(key) for key, status in found.items() if status == "ENABLED"]


def queued(account: str, region: str) -> bool:
    backend = inspector2_backends[account][region]
    return bool(backend.findings_queue or backend.findings)


def filters(account: str, region: str) -> list[dict[str, Any]]:
    if account not in inspector2_backends:
        return []
    return [found.to_json() for found in inspector2_backends[account][region].filters.values()]


def change_filter(account: str, region: str, arn: str, **members: Any) -> bool:
    """Set what is not None; False where there is no such filter."""
    found = inspector2_backends[account][region].filters.get(arn)
    if found is None:
        return False
    for name, value in members.items():
        if value is not None:
            setattr(found, name, value)
    return True
