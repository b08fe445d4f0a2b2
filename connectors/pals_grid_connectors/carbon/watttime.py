"""WattTime v3: marginal carbon intensity (MOER) of a region, in steps of five minutes.

Source: https://docs.watttime.org. Values are lb CO2 per MWh. Times are interval starts. The
account is ``user:password``; a login gives a token for 30 minutes. The first point of a forecast
is the present: it is a forecast here, so that it never stands before a measured value.
``co2_aoer`` is an average rate, so a feed of it is of average intensity.
"""

from __future__ import annotations

import base64
import logging
import math
from datetime import UTC, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    ask_with_token,
    load_json,
    raise_for_status,
    read_member,
    read_number,
    read_options,
    refuse_error,
    refusing,
    require_address,
    require_choice,
    require_match,
    require_option,
    words_of,
)
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import floor_to, parse_instant, slots
from pals_grid.core.ports import ConnectorOption, Pace, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind, last_of_kind, touching
from pals_grid.core.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext, HttpResponse

NAME = "WattTime"
UNIT = "gCO2eq/kWh"
UNITS_GIVEN = "lbs_co2_per_mwh"
# 453.59237 g a pound, by definition, over 1000 kWh a MWh.
G_PER_KWH_IN_LB_PER_MWH = Decimal("0.45359237")
SIGNALS = {"co2_moer": Quantity.MARGINAL_INTENSITY, "co2_aoer": Quantity.AVERAGE_INTENSITY}
FIVE_MINUTES = timedelta(minutes=5)
# One call takes 32 days at most; the documentation advises to stay below 31.
LONGEST = timedelta(days=30)
HORIZON_MAX_H = 72
# A token is good for 30 minutes; the last two are left for the calls under way.
TOKEN_LIFE = timedelta(minutes=28)

_log = logging.getLogger(__name__)


class WattTime:
    """One signal of one region, gCO2eq/kWh."""

    summary: ClassVar[str] = "WattTime: marginal carbon intensity worldwide, with an account"
    needs_secret: ClassVar[bool] = True
    pace: ClassVar[Pace | None] = Pace(requests=10, per_s=1.0)
    # What was measured comes some minutes after.
    rhythm: ClassVar[Rhythm | None] = Rhythm(every_s=300.0, late_s=1800.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("region", "region such as CAISO_NORTH or PJM_DC; needed to fetch", ""),
        ConnectorOption("signal_type", "co2_moer, marginal, or co2_aoer, average", "co2_moer"),
        ConnectorOption("horizon_h", "hours of forecast, 1 to 72; 0 for none", "48"),
        ConnectorOption("base_url", "address of the API", "https://api.watttime.org"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._region = require_match(
            "options.region", given["region"], "[A-Z0-9_-]*", "must be as CAISO_NORTH"
        )
        self._signal = require_choice("options.signal_type", given["signal_type"], SIGNALS)
        horizon_h = given["horizon_h"]
        if not (horizon_h.isdecimal() and int(horizon_h) <= HORIZON_MAX_H):
            bound = f"must be a whole number from 0 to {HORIZON_MAX_H}"
            raise InvalidValue("options.horizon_h", horizon_h, bound)
        self._horizon_h = int(horizon_h)
        self._base_url = require_address("options.base_url", given["base_url"])

    @property
    def quantity(self) -> Quantity:
        """Marginal intensity, or average intensity for ``co2_aoer``."""
        return SIGNALS[self._signal]

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch what is past in steps of 30 days, and the forecast of what is ahead."""
        user, colon, _ = (context.secret or "").partition(":")
        if not user or not colon:
            raise FeedRejected(f"{NAME}: the secret must be user:password; name it by secret_ref")
        require_option(NAME, "region", self._region)
        found: list[Observation] = []
        for path, asked in self._questions(window, context.fetched_at):
            found += self._ask(path, asked, context)
        return last_of_kind(touching(found, window))

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one answer: of the past, a forecast, or past forecasts.

        Raises:
            FeedRejected: when the payload is the provider's own error.
            FeedDataInvalid: when it holds no values of the signal and region asked for.
        """
        with refusing(NAME):
            document = load_json(payload)
            if isinstance(document, dict) and "data" not in document:
                refuse_error(NAME, document)
            points = read_member(document, "data", list)
            meta = read_member(document, "meta", dict)
            self._check_meta(meta)
            found = list(_read(points, meta, known_at))
        _log_warnings(meta)
        return sorted(found, key=lambda item: (item.start_at, item.kind, item.known_at))

    def _questions(
        self, window: Interval, now: datetime
    ) -> Iterator[tuple[str, Mapping[str, str]]]:
        start_at = floor_to(window.start_at, FIVE_MINUTES)
        for part in slots(start_at, min(window.end_at, floor_to(now, FIVE_MINUTES)), LONGEST):
            asked = {"start": _stamp(part.start_at), "end": _stamp(part.end_at)}
            yield "historical", asked | {"include_imputed_marker": "true"}
        ahead_h = math.ceil((window.end_at - now) / timedelta(hours=1))
        if ahead_h > 0 and self._horizon_h > 0:
            yield "forecast", {"horizon_hours": str(min(ahead_h, self._horizon_h))}

    def _ask(self, path: str, asked: Mapping[str, str], context: FetchContext) -> list[Observation]:
        key = f"watttime {self._base_url} {(context.secret or '').partition(':')[0]}"
        params = {"region": self._region, "signal_type": self._signal, **asked}

        def ask(token: str) -> HttpResponse:
            url = f"{self._base_url}/v3/{path}"
            return context.http.get(url, params, {"Authorization": f"Bearer {token}"})

        response = ask_with_token(context, key, lambda: self._log_in(context), ask, {401, 403})
        raise_for_status(response, words_of(response))
        return self.parse(response.body, context.fetched_at)

    def _log_in(self, context: FetchContext) -> Token:
        account = base64.b64encode((context.secret or "").encode()).decode()
        url = f"{self._base_url}/login"
        response = context.http.get(url, None, {"Authorization": f"Basic {account}"})
        if response.status in {401, 403}:
            raise FeedRejected(
                f"{NAME} refuses the user or the password: {words_of(response)[:200]}"
            )
        raise_for_status(response, words_of(response))
        with refusing(NAME):
            token = read_member(load_json(response.body), "token", str)
        return Token(token, context.fetched_at + TOKEN_LIFE)

    def _check_meta(self, meta: object) -> None:
        """Refuse values of another signal, region or unit."""
        wanted = {"signal_type": self._signal, "units": UNITS_GIVEN}
        if self._region:
            wanted["region"] = self._region
        for name, value in wanted.items():
            if (found := read_member(meta, name, str)) != value:
                raise InvalidValue(f"meta.{name}", found, f"must be {value}")


def _read(points: list[object], meta: object, known_at: datetime) -> Iterator[Observation]:
    period_s = read_number("period", read_member(meta, "data_point_period_seconds", Decimal))
    if not 1 <= period_s <= 86_400:
        raise InvalidValue("meta.data_point_period_seconds", str(period_s), "must be 1 to 86400")
    step = timedelta(seconds=float(period_s))
    if isinstance(meta, dict) and "generated_at" in meta:
        yield from _read_forecast(points, meta, step)
        return
    for point in points:
        if isinstance(point, dict) and "forecast" in point:
            yield from _read_forecast(read_member(point, "forecast", list), point, step)
        else:
            imputed = isinstance(point, dict) and point.get("imputed_data_used") is True
            kind = ValueKind.FORECAST if imputed else ValueKind.MEASURED
            yield _read_point(point, step, kind, known_at)


def _read_forecast(points: list[object], made: object, step: timedelta) -> Iterator[Observation]:
    generated_at = parse_instant("generated_at", read_member(made, "generated_at", str))
    for point in points:
        yield _read_point(point, step, ValueKind.FORECAST, generated_at)


def _read_point(point: object, step: timedelta, kind: ValueKind, known_at: datetime) -> Observation:
    start_at = parse_instant("point_time", read_member(point, "point_time", str))
    value = read_number("value", read_member(point, "value", Decimal)) * G_PER_KWH_IN_LB_PER_MWH
    return Observation(start_at, start_at + step, float(value), UNIT, kind, known_at)


def _log_warnings(meta: object) -> None:
    warnings = meta.get("warnings") if isinstance(meta, dict) else None
    for warning in warnings if isinstance(warnings, list) else []:
        told = warning.get("message", warning) if isinstance(warning, dict) else warning
        _log.warning("%s warns: %s", NAME, str(told)[:300])


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M+00:00")
