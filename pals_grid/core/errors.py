"""The tree of this project's errors; each leaf says what its catcher does next.

::

    PalsGridError
    |-- InvalidValue          correct the input: names the field, the bound and the value
    |-- NotFound              no such thing under this identifier
    |-- Conflict              the thing changed, or one like it is there already: read it again
    |-- AccessDenied          the token is missing, wrong or for something else
    |-- Busy                  another one runs: ask again in a moment
    |-- ConfigurationError    the operator corrects a setting, then restarts
    |-- FeedError
    |   |-- FeedUnavailable   temporary: try again later
    |   |   `-- FeedHeldBack  nothing was asked: try again when the provider is asked again
    |   |-- FeedRejected      permanent until somebody changes the feed's configuration
    |   `-- FeedDataInvalid   the provider's answer is not what it documents: keep the last good
    |-- LinkError
    |   |-- LinkUnavailable   the service cannot be reached: carry on alone, try again
    |   `-- LinkRejected      the service refused this node: tell the operator
    `-- DeviceError
        |-- DeviceUnsupported this device cannot do it: never ask again
        |-- DevicePermission  no right to write: go on observing
        `-- DeviceLost        the device is gone: leave it out
"""

from __future__ import annotations


class PalsGridError(Exception):
    """Anything that this project raises on purpose."""


class InvalidValue(PalsGridError):
    """A value outside its bounds, named by field."""

    def __init__(self, field: str, value: object, bound: str) -> None:
        self.field = field
        self.value = value
        self.bound = bound
        super().__init__(f"{field}: {bound}, got {value!r}")


class NotFound(PalsGridError):
    """No such thing."""

    def __init__(self, what: str, key: object) -> None:
        self.what = what
        self.key = key
        super().__init__(f"{what} {key!r} does not exist")


class Conflict(PalsGridError):
    """The state of things forbids this now."""


class AccessDenied(PalsGridError):
    """The caller may not do this."""


class Busy(PalsGridError):
    """As many of these as may run at once are running."""


class ConfigurationError(PalsGridError):
    """The operator has to correct a setting."""


class FeedError(PalsGridError):
    """A feed gave no usable values; the message quotes the provider."""


class FeedUnavailable(FeedError):
    """Temporary; ``retry_after_s`` is the provider's own wish, when it gave one."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class FeedHeldBack(FeedUnavailable):
    """Not asked: the provider is down for now, or its pace leaves no room."""


class FeedRejected(FeedError):
    """Permanent until the configuration changes: a key, a zone, a product."""


class FeedDataInvalid(FeedError):
    """The answer breaks the provider's own format, or holds impossible values."""


class LinkError(PalsGridError):
    """Between a node and the service."""


class LinkUnavailable(LinkError):
    """The service cannot be reached."""


class LinkRejected(LinkError):
    """The service refused this node or its message."""


class DeviceError(PalsGridError):
    """A GPU or an engine did not do as asked."""


class DeviceUnsupported(DeviceError):
    """The device has no such ability."""


class DevicePermission(DeviceError):
    """The process may not write to the device."""


class DeviceLost(DeviceError):
    """The device no longer answers."""
