from pathlib import Path

import pytest

from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.feeds.secrets import read_secret


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_TOKEN", " abc\n")
    assert read_secret("env:FEED_TOKEN") == "abc"
    monkeypatch.setenv("FEED_TOKEN", "  ")
    with pytest.raises(FeedRejected, match="the secret env:FEED_TOKEN is not set"):
        read_secret("env:FEED_TOKEN")
    monkeypatch.delenv("FEED_TOKEN")
    with pytest.raises(FeedRejected, match="the secret env:FEED_TOKEN is not set"):
        read_secret("env:FEED_TOKEN")


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("abc\n")
    assert read_secret(f"file:{path}") == "abc"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FeedRejected, match="not UTF-8"):
        read_secret(f"file:{path}")
    path.unlink()
    with pytest.raises(FeedRejected, match="cannot be read: No such file"):
        read_secret(f"file:{path}")


@pytest.mark.parametrize("ref", ["s3cret", "env:", "env:A B", "file:relative", "vault:x", ""])
def test_another_form_is_refused_without_showing_what_may_be_the_secret(ref: str) -> None:
    with pytest.raises(InvalidValue, match="secret_ref: must be env:NAME") as caught:
        read_secret(ref)
    assert "s3cret" not in str(caught.value)
