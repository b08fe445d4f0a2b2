"""What every connector needs: options checked, bad answers translated, values made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import FeedRejected, FeedUnavailable, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.core.ports import ConnectorOption, HttpResponse


def read_options(given: Mapping[str, str], known: tuple[ConnectorOption, ...]) -> dict[str, str]:
    """Options with defaults filled in.

    Raises:
        InvalidValue: for an option that is unknown, or required and missing.
    """
    names = {option.name for option in known}
    for name, value in given.items():
        if name not in names:
            allowed = ", ".join(sorted(names)) or "none"
            raise InvalidValue(f"options.{name}", value, f"unknown option; known are: {allowed}")
    for option in known:
        if option.default is None and not given.get(option.name):
            raise InvalidValue(f"options.{option.name}", None, f"is required: {option.help}")
    return {option.name: given.get(option.name) or option.default or "" for option in known}


def raise_for_status(response: HttpResponse, provider_says: str) -> None:
    """Translate a status of 400 and above, quoting the provider.

    Raises:
        FeedUnavailable: 408, 425, 429 and 5xx.
        FeedRejected: every other 4xx.
    """
    if response.status < 400:
        return
    message = f"HTTP {response.status} from {response.url}: {provider_says[:300]}"
    if response.status in {408, 425, 429} or response.status >= 500:
        wish = response.headers.get("retry-after", "")
        raise FeedUnavailable(message, float(wish) if wish.isdecimal() else None)
    raise FeedRejected(message)
