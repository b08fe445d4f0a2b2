"""vLLM read through its Prometheus endpoint: observation only, for engines without our plug-in.

Names as of 0.12 to 0.33, older ones second. vLLM counts latencies in buckets, not misses, so:

* a TTFT miss is a first token slower than the bucket bound nearest to the objective;
* an ITL miss is estimated: the share of token gaps slower than the nearest bound, times the
  requests that finished since the last look;
* p99 latencies are interpolated in the buckets of the last 10 s, so they are as exact as those.

It tells neither the batch size nor how many prompt tokens wait.
"""

from __future__ import annotations

import math
import re
import threading
import time
from typing import TYPE_CHECKING

import requests

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceLost
from pals_grid.core.ports import EngineSample
from pals_grid.node.vllm.quantile import BucketWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pals_grid.core.site import Slo


STALE_S = 5.0

_RUNNING = ("vllm:num_requests_running",)
_WAITING = ("vllm:num_requests_waiting",)
_TOKENS_IN = ("vllm:prompt_tokens_total",)
_TOKENS_OUT = ("vllm:generation_tokens_total",)
_FINISHED = ("vllm:e2e_request_latency_seconds_count",)
_PREFILLS = "vllm:request_prefill_time_seconds_count"
_PREFILL_S = "vllm:request_prefill_time_seconds_sum"
_TTFT = ("vllm:time_to_first_token_seconds",)
_ITL = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")

_LINE = re.compile(r"^(vllm:[a-z0-9_]+)(?:\{(.*)\})? ([^ \n]+)(?: [0-9]+)?$", re.MULTILINE)
_BOUND = re.compile(r'\ble="([^"]+)"')


class Metrics:
    """One scrape: values summed over model names and data-parallel ranks."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, float] = {}
        self._buckets: dict[str, dict[float, float]] = {}
        for name, labels, number in _LINE.findall(text):
            value = float(number)
            bound = _BOUND.search(labels)
            if bound is not None and name.endswith("_bucket"):
                buckets = self._buckets.setdefault(name.removesuffix("_bucket"), {})
                edge = float(bound.group(1))
                buckets[edge] = buckets.get(edge, 0.0) + value
            else:
                self._values[name] = self._values.get(name, 0.0) + value

    def value(self, names: Iterable[str]) -> float:
        """Return the first of ``names`` that is there.

        Raises:
            DeviceLost: when none is, for then it is not vLLM that answers, or it is no number.
        """
        for name in names:
            if name in self._values:
                if not math.isfinite(self._values[name]):
                    raise DeviceLost(f"metric {name}: must be finite, got {self._values[name]}")
                return self._values[name]
        raise DeviceLost(f"no metric {' or '.join(names)} in the engine's answer")

    def optional(self, name: str) -> float | None:
        """Return a value that not every version has."""
        return self._values.get(name)

    def buckets(self, names: Iterable[str]) -> dict[float, float]:
        """Return the first of the histograms that is there: observations by upper bound."""
        return next((self._buckets[name] for name in names if name in self._buckets), {})

    def slower(self, names: Iterable[str], bound_s: float) -> tuple[float, float]:
        """Count those slower than the bound nearest to ``bound_s``, and all."""
        buckets = self.buckets(names)
        finite = [edge for edge in buckets if math.isfinite(edge)]
        whole = buckets.get(math.inf, 0.0)
        edge = min(finite, key=lambda e: abs(e - bound_s), default=math.inf)
        return whole - buckets.get(edge, whole), whole


class VllmMetricsEngine:
    """The engine behind ``<url>/metrics``. ``start`` scrapes in the background, off the tick."""

    def __init__(
        self,
        url: str,
        model: str,
        slo: Slo,
        *,
        period_s: float = 0.5,
        timeout_s: float = 1.0,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/") + "/metrics"
        self._model = model
        self._slo = slo
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._monotonic_s = monotonic_s
        self._session = requests.Session()
        self._session.trust_env = False
        self._latest: tuple[float, EngineSample] | None = None
        self._error = "it has not answered yet"
        self._stop = threading.Event()
        self._itl_before: tuple[float, float, float] | None = None
        self._itl_misses = 0.0
        self._ttft = BucketWindow()
        self._itl = BucketWindow()

    @property
    def model(self) -> str:
        """Name of the served model."""
        return self._model

    def observe(self) -> EngineSample:
        """Return the last scrape.

        Raises:
            DeviceLost: when it is older than 5 s, or there is none.
        """
        latest = self._latest
        if latest is None or self._monotonic_s() - latest[0] > STALE_S:
            raise DeviceLost(f"{self._url}: {self._error}")
        return latest[1]

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        """Refuse: /metrics is read-only."""
        return ActuationResult(
            Outcome.REFUSED, max_num_seqs, None, "vLLM's /metrics endpoint cannot be written to"
        )

    def start(self) -> None:
        """Scrape every ``period_s`` in a daemon thread until ``close``."""
        threading.Thread(target=self._run, name="vllm-metrics", daemon=True).start()

    def close(self) -> None:
        """Stop scraping."""
        self._stop.set()

    def refresh(self) -> None:
        """Scrape once; a failure is kept for ``observe`` to tell."""
        try:
            response = self._session.get(self._url, timeout=self._timeout_s, allow_redirects=False)
            response.raise_for_status()
            sample = self._sample(Metrics(response.text))
        except (requests.RequestException, DeviceLost, ValueError, OverflowError) as error:
            self._error = str(error)
        else:
            self._latest = self._monotonic_s(), sample

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self.refresh()
        self._session.close()

    def _sample(self, metrics: Metrics) -> EngineSample:
        finished = metrics.value(_FINISHED)
        ttft_slow, _ = metrics.slower(_TTFT, self._slo.ttft_s)
        now_s = self._monotonic_s()
        self._ttft.add(now_s, metrics.buckets(_TTFT))
        self._itl.add(now_s, metrics.buckets(_ITL))
        prefills = metrics.optional(_PREFILLS)
        return EngineSample(
            requests_running=int(metrics.value(_RUNNING)),
            requests_waiting=int(metrics.value(_WAITING)),
            tokens_in_total=metrics.value(_TOKENS_IN),
            tokens_out_total=metrics.value(_TOKENS_OUT),
            requests_finished_total=int(finished),
            ttft_misses_total=int(ttft_slow),
            itl_misses_total=self._count_itl(metrics, finished),
            max_num_seqs=None,
            ttft_p99_s=self._ttft.quantile(0.99),
            itl_p99_s=self._itl.quantile(0.99),
            prefills_total=None if prefills is None else int(prefills),
            prefill_s_total=metrics.optional(_PREFILL_S),
        )

    def _count_itl(self, metrics: Metrics, finished: float) -> int:
        slow, gaps = metrics.slower(_ITL, self._slo.itl_s)
        before, self._itl_before = self._itl_before, (slow, gaps, finished)
        if before is not None and gaps > before[1] and finished >= before[2]:
            share = max(0.0, slow - before[0]) / (gaps - before[1])
            self._itl_misses += share * (finished - before[2])
        return int(self._itl_misses)
