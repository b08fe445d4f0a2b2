import pytest

from pals_grid.core.errors import FeedUnavailable
from pals_grid.feeds.recorded import RecordedHttp


def test_what_is_not_recorded_is_unavailable() -> None:
    http = RecordedHttp({"https://a.example": b"1"})
    assert http.get("https://a.example", {"q": "1"}).body == b"1"
    with pytest.raises(FeedUnavailable, match=r"nothing is recorded for https://b\.example"):
        http.get("https://b.example")
    assert http.asked == [("https://a.example", {"q": "1"}), ("https://b.example", {})]
