"""ERCOT public API: settlement point prices of Texas, with an account and a subscription key.

Source: https://developer.ercot.com/applications/pubapi/user-guide/, reports NP4-190-CD (day-ahead),
NP6-905-CD (real-time, 15 min) and NP6-788-CD (LMP of each dispatch, about every 5 min). The account
is logged in for a token that lasts an hour; a token that is refused is renewed once. What the rows
look like stands in ``ercot_reports``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    ask_with_token,
    load_json,
    raise_for_status,
    read_member,
    read_number,
    read_options,
    refusing,
    require_address,
    require_option,
)
from pals_grid.core.errors import FeedDataInvalid, FeedRejected, InvalidValue
from pals_grid.core.ports import ConnectorOption, Pace, Rhythm
from pals_grid.core.series import Quantity, touching
from pals_grid.core.tokens import Token
from pals_grid_connectors.ercot_reports import (
    CENTRAL,
    interval_of,
    last_of_each_slot,
    market_of,
    read_rows,
    rows_of_api,
)
from pals_grid_connectors.market_files import (
    market_options,
    of_location,
    priced,
    read_market,
    says,
)
from pals_grid_connectors.market_time import known_days

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext, HttpResponse
    from pals_grid.core.series import Observation
    from pals_grid_connectors.table import Row

NAME = "ERCOT"
PAGE_ROWS = 10_000
MAX_PAGES = 20
# The same for every user, from the guide "Registration and Authentication".
CLIENT_ID = "fec253ea-0d06-4272-a5e6-b478baeecd70"
LOGIN_URL = "https://ercotb2c.b2clogin.com/ercotb2c.onmicrosoft.com/B2C_1_PUBAPI-ROPC-FLOW/oauth2/v2.0/token"
# An hour by the guide, less what a fetch may take.
TOKEN_LIFE = timedelta(minutes=58)
SECRET_FORM = "user:password:subscription_key"  # noqa: S105 - how a secret is written, not one


@dataclass(frozen=True, slots=True)
class _Report:
    path: str
    begin: str
    end: str
    rhythm: Rhythm


# The next day's prices at about 13 h Central time; real-time ones after each interval.
REPORTS = {
    "day_ahead": _Report(
        "np4-190-cd/dam_stlmnt_pnt_prices",
        "deliveryDateFrom",
        "deliveryDateTo",
        Rhythm(every_s=86_400.0, late_s=4 * 3600.0),
    ),
    "real_time": _Report(
        "np6-905-cd/spp_node_zone_hub",
        "deliveryDateFrom",
        "deliveryDateTo",
        Rhythm(every_s=900.0, late_s=1800.0),
    ),
    "real_time_5min": _Report(
        "np6-788-cd/lmp_node_zone_hub",
        "SCEDTimestampFrom",
        "SCEDTimestampTo",
        Rhythm(every_s=300.0, late_s=900.0),
    ),
}


@dataclass(frozen=True, slots=True)
class _Account:
    user: str
    password: str
    key: str

    def hide(self, text: str) -> str:
        """Blank what is secret where a provider repeats it."""
        return text.replace(self.password, "***").replace(self.key, "***")


class Ercot:
    """Prices of one settlement point, USD/MWh."""

    summary: ClassVar[str] = "ERCOT: day-ahead, 15-min and 5-min prices of a point in Texas"
    quantity: ClassVar[Quantity] = Quantity.PRICE
    needs_secret: ClassVar[bool] = True
    pace: ClassVar[Pace | None] = Pace(30, 60.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = market_options(
        "settlement point, such as HB_NORTH or LZ_WEST",
        REPORTS,
        "https://api.ercot.com/api/public-reports",
        ConnectorOption("login_url", "where an account gets its token", LOGIN_URL),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._location, self._market, base_url = read_market(given, REPORTS)
        self._report = REPORTS[self._market]
        self._url = f"{base_url}/{self._report.path}"
        self._login_url = given["login_url"]
        require_address("options.login_url", self._login_url)
        self.rhythm = self._report.rhythm

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the days that ``window`` touches; the secret is as ``SECRET_FORM`` says."""
        require_option(NAME, "location", self._location)
        account = _read_account(context.secret)
        day_ahead = self._market == "day_ahead"
        days = known_days(window, context.fetched_at, CENTRAL, day_ahead=day_ahead)
        if not days:
            return []
        by_time = self._market == "real_time_5min"
        params = {
            self._report.begin: f"{days[0]}T00:00:00" if by_time else f"{days[0]}",
            self._report.end: f"{days[-1]}T23:59:59" if by_time else f"{days[-1]}",
            "settlementPoint": self._location,
            "size": str(PAGE_ROWS),
        }
        with refusing(NAME):
            rows = self._fetch_rows(params, account, context)
            found = self._observe(rows, context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one page of the API, or one file, of any of the three reports.

        Raises:
            FeedRejected: when it is the API's own error, or the option location must change.
            FeedDataInvalid: when it is no such report, or holds a price that cannot be.
        """
        with refusing(NAME):
            return self._observe(read_rows(payload), known_at)

    def _fetch_rows(
        self, params: Mapping[str, str], account: _Account, context: FetchContext
    ) -> list[Row]:
        rows: list[Row] = []
        for page in range(1, MAX_PAGES + 1):
            response = self._ask({**params, "page": str(page)}, account, context)
            document = load_json(response.body)
            found = rows_of_api(document)
            if found and market_of(found[0].cells) != self._market:
                bound = f"must be columns of {self._report.path}"
                raise InvalidValue("fields", ", ".join(found[0].cells), bound)
            rows += found
            if page >= _pages(document):
                return rows
        raise FeedDataInvalid(f"{NAME}: more than {MAX_PAGES} pages for one window")

    def _ask(
        self, params: Mapping[str, str], account: _Account, context: FetchContext
    ) -> HttpResponse:

        def ask(token: str) -> HttpResponse:
            headers = {
                "Authorization": f"Bearer {token}",
                "Ocp-Apim-Subscription-Key": account.key,
            }
            return context.http.get(self._url, params, headers)

        token_key = f"ercot {self._login_url} {account.user}"
        response = ask_with_token(context, token_key, lambda: self._log_in(account, context), ask)
        raise_for_status(response, account.hide(says(response.body)))
        return response

    def _log_in(self, account: _Account, context: FetchContext) -> Token:
        form = {
            "username": account.user,
            "password": account.password,
            "grant_type": "password",
            "scope": f"openid {CLIENT_ID} offline_access",
            "client_id": CLIENT_ID,
            "response_type": "id_token",
        }
        response = context.http.post(self._login_url, form)
        raise_for_status(response, f"login says: {account.hide(says(response.body))}")
        with refusing(f"{NAME} login"):
            answer = load_json(response.body)
            has_id = isinstance(answer, dict) and "id_token" in answer
            token = read_member(answer, "id_token" if has_id else "access_token", str)
        return Token(token, context.fetched_at + TOKEN_LIFE)

    def _observe(self, rows: Sequence[Row], known_at: datetime) -> list[Observation]:
        (own,) = of_location(NAME, self._location, [rows], "settlementpoint")
        if own and market_of(own[0].cells) == "real_time_5min":
            own = last_of_each_slot(own)
        found = [_observe(row, known_at) for row in own]
        return sorted(found, key=lambda item: item.start_at)


def _read_account(secret: str | None) -> _Account:
    """Take the secret apart; a password may hold colons."""
    user, _, rest = (secret or "").partition(":")
    password, _, key = rest.rpartition(":")
    if not (user and password and key):
        raise FeedRejected(
            f"{NAME}: an account and a key are needed, as {SECRET_FORM}, by secret_ref"
        )
    return _Account(user, password, key)


def _pages(document: object) -> int:
    meta = document.get("_meta") if isinstance(document, dict) else None
    pages = meta.get("totalPages") if isinstance(meta, dict) else None
    return int(read_number("totalPages", pages)) if pages is not None else 1


def _observe(row: Row, known_at: datetime) -> Observation:
    column = "lmp" if "lmp" in row.cells else "settlementpointprice"
    return priced(interval_of(row), row.field(column), row.cells[column], known_at)
