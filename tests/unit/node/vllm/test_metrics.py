from __future__ import annotations

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceLost
from pals_grid.core.site import Slo
from pals_grid.node.vllm.metrics import Metrics, VllmMetricsEngine
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def exposition(
    *,
    itl_name: str = "inter_token_latency_seconds",
    tokens: float = 500.0,
    finished: int = 10,
    slow_gaps: int = 20,
) -> str:
    """Two data-parallel ranks of one model, as vLLM writes them."""
    lines = ["# HELP vllm:num_requests_running Number of requests", "process_open_fds 12.0"]
    for rank in ("0", "1"):
        labels = f'engine="{rank}",model_name="m"'
        for name, value in (
            ("num_requests_running", 2),
            ("num_requests_waiting", 1),
            ("prompt_tokens_total", 1.5e3),
            ("generation_tokens_total", tokens),
            ("e2e_request_latency_seconds_count", finished),
        ):
            lines.append(f"vllm:{name}{{{labels}}} {value}")
        for edge, count in (("1.0", 3), ("2.5", 8), ("+Inf", 10)):
            lines.append(f'vllm:time_to_first_token_seconds_bucket{{{labels},le="{edge}"}} {count}')
        for edge, count in (("0.1", 180), ("0.15", 190), ("+Inf", 180 + slow_gaps)):
            lines.append(f'vllm:{itl_name}_bucket{{{labels},le="{edge}"}} {count}')
    return "\n".join(lines) + "\n"


class Page:
    def __init__(self) -> None:
        self.text = exposition()
        self.status = 200


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def url(page: Page) -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.text.encode()
            self.send_response(page.status if self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def patient(
    url: str, slo: Slo, *, monotonic_s: Callable[[], float] = lambda: 0.0, period_s: float = 0.5
) -> VllmMetricsEngine:
    """An engine that waits for a busy machine, at a time that the test sets."""
    return VllmMetricsEngine(
        url, "m", slo, period_s=period_s, timeout_s=PATIENCE_S, monotonic_s=monotonic_s
    )


@pytest.mark.parametrize(
    "itl_name", ["inter_token_latency_seconds", "time_per_output_token_seconds"]
)
def test_ranks_are_summed_under_new_and_old_names(url: str, page: Page, itl_name: str) -> None:
    engine = patient(url, Slo(ttft_s=2.0, itl_s=0.1))
    page.text = exposition(itl_name=itl_name)
    engine.refresh()
    page.text = exposition(itl_name=itl_name, tokens=600, finished=15, slow_gaps=30)
    engine.refresh()
    sample = engine.observe()
    assert (sample.requests_running, sample.requests_waiting) == (4, 2)
    assert (sample.tokens_in_total, sample.tokens_out_total) == (3000.0, 1200.0)
    assert sample.requests_finished_total == 30
    assert sample.ttft_misses_total == 4  # slower than 2.5 s, the bound nearest to 2 s
    assert sample.itl_misses_total == 10  # all new gaps were slow, of 10 finished requests
    assert sample.max_num_seqs is None
    assert (sample.prefills_total, sample.prefill_s_total) == (None, None)
    engine.close()


def test_the_time_of_prompts_is_read_where_it_is_told(url: str, page: Page) -> None:
    engine = patient(url, Slo())
    for rank in ("0", "1"):
        page.text += f'vllm:request_prefill_time_seconds_sum{{engine="{rank}"}} 1.25\n'
        page.text += f'vllm:request_prefill_time_seconds_count{{engine="{rank}"}} 10.0\n'
    engine.refresh()
    sample = engine.observe()
    assert (sample.prefills_total, sample.prefill_s_total) == (20, 2.5)
    engine.close()


def test_p99_latencies_are_those_of_the_last_ten_seconds(url: str, page: Page) -> None:
    now = [0.0]
    engine = patient(url, Slo(), monotonic_s=lambda: now[0])
    engine.refresh()
    first = engine.observe()
    assert (first.ttft_p99_s, first.itl_p99_s, first.prompt_tokens_waiting) == (None, None, None)
    # two ranks; 200 gaps each, of which 10 between 0.1 and 0.15 s and 1 above
    now[0] = 5.0
    page.text = page.text.replace('le="0.1"} 180', 'le="0.1"} 369')
    page.text = page.text.replace('le="0.15"} 190', 'le="0.15"} 389')
    page.text = re.sub(r'(inter_token.*le="\+Inf"}) 200', r"\1 400", page.text)
    engine.refresh()
    found = engine.observe()
    assert found.itl_p99_s == pytest.approx(0.1 + 0.05 * (198 - 189) / (199 - 189))
    assert found.ttft_p99_s is None  # no first token since
    now[0] = 20.0
    engine.refresh()
    now[0] = 21.0
    engine.refresh()
    assert engine.observe().itl_p99_s is None
    engine.close()


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
@pytest.mark.parametrize("name", ["num_requests_running", "generation_tokens_total"])
def test_a_figure_that_is_no_number_is_refused(url: str, page: Page, name: str, value: str) -> None:
    engine = patient(url, Slo())
    page.text += f'vllm:{name}{{model_name="n"}} {value}\n'
    engine.refresh()
    with pytest.raises(DeviceLost, match=f"vllm:{name}: must be finite"):
        engine.observe()
    engine.close()


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
def test_a_bucket_that_is_no_number_ends_no_thread(url: str, page: Page, value: str) -> None:
    engine = patient(url, Slo())
    page.text += f'vllm:time_to_first_token_seconds_bucket{{le="+Inf"}} {value}\n'
    engine.refresh()
    with pytest.raises(DeviceLost):
        engine.observe()
    engine.close()


def test_a_dead_server_is_told_with_its_error_and_comes_back(url: str, page: Page) -> None:
    now = [0.0]
    engine = patient(url, Slo(), monotonic_s=lambda: now[0])
    with pytest.raises(DeviceLost, match="not answered yet"):
        engine.observe()
    engine.refresh()
    page.status = 503
    engine.refresh()
    assert engine.observe().requests_running == 4  # one missed scrape is no death
    now[0] = 5.1
    with pytest.raises(DeviceLost, match="503"):
        engine.observe()
    page.status = 200
    engine.refresh()
    assert engine.observe().requests_running == 4
    engine.close()


@pytest.mark.parametrize("text", ["", "<html>hello</html>", "vllm:num_requests_running{} x\n"])
def test_something_else_on_the_port_is_no_engine(url: str, page: Page, text: str) -> None:
    page.text = text
    engine = patient(url, Slo())
    engine.refresh()
    with pytest.raises(DeviceLost):
        engine.observe()
    engine.close()


def test_it_cannot_be_written(url: str) -> None:
    engine = patient(url, Slo())
    assert engine.apply_max_num_seqs(8).outcome is Outcome.REFUSED
    engine.close()


def test_the_background_thread_scrapes(url: str) -> None:
    engine = patient(url, Slo(), period_s=0.01)
    engine.start()

    def answers() -> bool:
        with contextlib.suppress(DeviceLost):
            return engine.observe().requests_running == 4
        return False

    wait_until(answers)
    engine.close()


def test_without_buckets_nothing_is_slow() -> None:
    assert Metrics("vllm:a 1\n").slower(("vllm:b",), 0.1) == (0.0, 0.0)
