from __future__ import annotations

import pytest

from pals_grid.node.profile_window import Reading, Window, choose_window


def pieces(*amounts: tuple[float, float, float]) -> list[Window]:
    """One second each of (prompt tokens, output tokens, joules)."""
    windows: list[Window] = []
    at = Reading(0.0, 0.0, 0.0, 0.0)
    for tokens_in, tokens_out, energy_j in amounts:
        after = Reading(
            at.at_s + 1,
            at.tokens_in + tokens_in,
            at.tokens_out + tokens_out,
            at.energy_j + energy_j,
        )
        windows.append(Window(at, after, polls=2, saturated=2, running=8.0))
        at = after
    return windows


def test_a_window_counts_rates() -> None:
    first, second = pieces((500, 100, 300), (300, 200, 500))
    whole = first.joined(second)
    assert (whole.tokens_per_s, whole.power_w) == (150.0, 400.0)
    assert whole.input_per_output == pytest.approx(800 / 300)
    assert whole.itl_s == pytest.approx(4 / 150)  # 4 sequences share 150 tokens/s


def test_the_prompts_time_is_taken_off_where_the_engine_tells_it() -> None:
    first = Reading(0.0, 0.0, 0.0, 0.0, 10, 12, 3.0)
    last = Reading(10.0, 5000.0, 1000.0, 3000.0, 20, 22, 8.0)
    window = Window(first, last, polls=2, saturated=2, running=8.0)
    assert window.ttft_s == pytest.approx(0.5)
    # 4 sequences share 100 tokens/s; each of 10 requests of 100 tokens was 0.5 s in its prompt
    assert window.itl_s == pytest.approx(0.04 - 0.5 / 100)
    assert Window(first, first._replace(at_s=1.0), polls=1, running=4.0).ttft_s is None


def test_a_silent_window_has_no_mix_and_no_itl() -> None:
    (window,) = pieces((500, 0, 300))
    assert window.input_per_output is None
    assert window.itl_s is None


def test_a_wave_of_prompts_is_left_out() -> None:
    window, off = choose_window(pieces((900, 0, 400), (500, 100, 300), (500, 100, 300)), 5.0)
    assert window.tokens_per_s == 100.0
    assert off == 0.0


def test_a_wave_that_comes_back_is_counted_whole() -> None:
    waves = pieces((2000, 20, 400), (0, 380, 200), (2000, 20, 400), (0, 380, 200))
    window, off = choose_window(waves, 5.0)
    assert (window.tokens_per_s, window.power_w) == (200.0, 300.0)
    assert off == 0.0


def test_a_load_of_another_mix_is_far_off_however_long_one_looks() -> None:
    _, off = choose_window(pieces(*[(300, 100, 300)] * 6), 5.0)
    assert off == pytest.approx(0.4)


def test_without_a_known_mix_two_windows_have_to_agree() -> None:
    window, off = choose_window(pieces((0, 50, 100), (0, 100, 300), (0, 100, 330)), None)
    assert window.tokens_per_s == 100.0
    assert off == pytest.approx(30 / 330)
