"""Where do the facts come from that deadlines are decided by? Files beside the policies, and one address.

`scan_findings` calls this; what a text means is `patchwave.campaign.catalogues`' to say. An address that cannot be read is a
passing trouble, a file that is wrong is not: each is told apart here, and nothing is made up for either.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from patchwave.campaign import catalogues, document
from patchwave.campaign.catalogues import Catalogue, Ssvc
from patchwave.campaign.errors import InvalidFile, Transient

POLICIES_VARIABLE = "PATCHWAVE_POLICIES"
SHIPPED = Path(__file__).resolve().parents[2] / "policies"

LARGEST = 64 * 1024 * 1024
"""CISA's catalogue has 1.5 MB; whoever sends this much sends something else."""
PATIENCE = 20
"""Seconds without a byte."""

Opener = Callable[..., IO[bytes]]


class CatalogueUnavailable(Transient):
    """The catalogue's address cannot be read."""


def folder() -> Path:
    """Where relative paths in policies count from: the folder of the policies."""
    return Path(os.environ.get(POLICIES_VARIABLE) or SHIPPED)


def located(written: str) -> Path:
    """A path of a policy file as one that can be opened."""
    return folder() / written


def exploited(source: str, *, now: datetime, opened: Opener = urllib.request.urlopen) -> Catalogue:
    """CISA's catalogue from a file or an address.

    Raises:
        InvalidFile: the file is no whole catalogue.
        CatalogueUnavailable: the address does not answer, or answers with something else.
    """
    if "://" not in source:
        path = located(source)
        return catalogues.catalogue(document.text_of(path), file=str(path), read_at=now)
    try:
        request = urllib.request.Request(source, headers={"User-Agent": "patchwave"})  # noqa: S310 - a policy allows https
        with opened(request, timeout=PATIENCE) as answer:
            content = answer.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise CatalogueUnavailable(f"{source} sends more than {LARGEST} bytes: that is no catalogue")
        return catalogues.catalogue(content.decode("utf-8-sig"), file=source, read_at=now)
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError, what is no UTF-8 a ValueError
        raise CatalogueUnavailable(f"{source} cannot be read: {error or type(error).__name__}") from error
    except InvalidFile as error:
        raise CatalogueUnavailable(f"{source} sends something else: {error.problems[0]}") from error


def ssvc(written: str, *, wanted: Collection[str]) -> Mapping[str, Ssvc]:
    """SSVC answers on these CVE ids, from a file or from a folder laid out as the Vulnrichment repository.

    Raises:
        InvalidFile: a file is no CVE record, or there is neither file nor folder.
    """
    path = located(written)
    if not path.is_dir():
        read = catalogues.ssvc(document.text_of(path), file=str(path))
        return {cve: read[cve] for cve in sorted(wanted) if cve in read}
    found: dict[str, Any] = {}
    for cve in sorted(wanted):
        record = path / catalogues.record_path(cve)
        if record.is_file():
            said = catalogues.ssvc(document.text_of(record), file=str(record))
            found |= {cve: said[cve]} if cve in said else {}
    return found


def epss(written: str, *, wanted: Collection[str]) -> Mapping[str, float]:
    """Probabilities of these CVE ids.

    Raises:
        InvalidFile: the file is none of FIRST's.
    """
    path = located(written)
    return catalogues.epss(document.text_of(path), file=str(path), wanted=wanted)
