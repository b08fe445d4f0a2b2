"""What is wrong with a feed's settings, in one sentence for somebody who adds a first one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.cli.exits import ServiceRefused

_NO_SECRET = re.compile(r"the secret (\S+) (is not set|cannot be read.*)")
_HTTP = re.compile(r"HTTP (\d{3}) from (\S+): (.*)")
_NETWORK = re.compile(r"no answer from (\S+): (.*)")


def advise(refused: ServiceRefused, secret_ref: str | None) -> str:
    """Return one sentence: what to look at, and the words of whoever refused."""
    text = " ".join(str(refused).split())
    if missing := _NO_SECRET.search(text):
        return _no_secret(missing[1], missing[2])
    if refused.kind == "feed-unavailable":
        return _unavailable(text)
    if refused.kind == "feed-rejected":
        return _rejected(text, secret_ref)
    if refused.kind == "feed-data-invalid":
        return f"the provider answers, but not with what this connector reads: {text}"
    if refused.field == "unit":
        return f"the prices are in another currency than the site's: {text}"
    return text


def no_values(start: str, end: str) -> str:
    """Return the sentence for an answer without a value."""
    return (
        f"the provider answers, but has no value between {start} and {end}: "
        "check the zone, region or product among the options"
    )


def _no_secret(ref: str, why: str) -> str:
    scheme, _, name = ref.partition(":")
    if scheme == "env":
        return f"{ref}: the service's process has no {name}: set it where the service is started"
    return f"{ref}: the secret's file {why}: the service's user must be able to read it"


def _unavailable(text: str) -> str:
    if silent := _NETWORK.search(text):
        return f"no answer from {silent[1]} ({silent[2]}): check network, proxy and base_url"
    return f"the provider has no time for us now, try again later: {_without_address(text)}"


def _rejected(text: str, secret_ref: str | None) -> str:
    status = _HTTP.search(text)
    if status is None:
        return f"these settings cannot be used: {text}"
    told = _without_address(text)
    if status[1] in {"401", "403"}:
        key = f"the key that {secret_ref} names" if secret_ref else "its key (--secret-ref)"
        return f"the provider refuses the key, or what it may ask for; check {key}: {told}"
    return f"the provider refuses the question; check zone, region and product: {told}"


def _without_address(text: str) -> str:
    """The provider's words before the status; the address is for the log."""
    return _HTTP.sub(r"\3 (HTTP \1)", text)
