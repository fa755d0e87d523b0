from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from k210tasks.toolchains.download import DownloadFailed, fetch
from tests.toolchains.loopback import Site

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()


def get(site: Site, target: Path, **more: object) -> str:
    pauses: list[float] = []
    options: dict[str, Any] = {"progress": lambda *a: None, "pause": pauses.append, "timeout": 5.0}
    options.update(more)
    return fetch(site.url, target, **options)


def test_whole(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    steps: list[tuple[int, int, str]] = []
    digest = get(site, tmp_path / "a" / "f", progress=lambda *a: steps.append(a))
    assert digest == SHA
    assert (tmp_path / "a" / "f").read_bytes() == BODY
    assert steps[0] == (0, len(BODY), "downloading")
    assert steps[-1] == (len(BODY), len(BODY), "downloading")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["f"]


def test_resumed_after_cuts(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    site.plan = [300_000, 200_000]
    waited: list[float] = []
    assert get(site, tmp_path / "f", pause=waited.append) == SHA
    assert site.seen[0] is None
    starts = [int(re.findall(r"\d+", r)[0]) for r in site.seen[1:] if r]
    assert len(starts) == 2
    assert 0 < starts[0] <= 300_000
    assert starts[0] < starts[1] <= 500_000
    assert waited == [1.0, 2.0]


def test_resumed_by_a_later_call(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    site.plan = [300_000]
    with pytest.raises(DownloadFailed, match="are kept, the next attempt asks for the rest"):
        get(site, tmp_path / "f", attempts=1)
    assert not (tmp_path / "f").exists()
    assert get(site, tmp_path / "f", attempts=1) == SHA
    assert site.seen[1] is not None


def test_another_file_behind_the_address_is_not_mixed(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    site.plan = [300_000]
    with pytest.raises(DownloadFailed):
        get(site, tmp_path / "f", attempts=1)
    site.body, site.etag = BODY[::-1], '"two"'
    assert get(site, tmp_path / "f", attempts=1) == hashlib.sha256(BODY[::-1]).hexdigest()


def test_another_file_is_not_mixed_where_no_tag_tells_it(site: Site, tmp_path: Path) -> None:
    site.body, site.etag = BODY, None
    site.plan = [300_000]
    with pytest.raises(DownloadFailed) as caught:
        get(site, tmp_path / "f", attempts=1)
    assert "are kept" not in str(caught.value)
    site.body = BODY[::-1]
    assert get(site, tmp_path / "f", attempts=1) == hashlib.sha256(BODY[::-1]).hexdigest()


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_cut_without_a_strong_tag_starts_anew(
    site: Site, tmp_path: Path, etag: str | None
) -> None:
    site.body, site.etag = BODY, etag
    site.plan = [300_000]
    assert get(site, tmp_path / "f") == SHA
    assert site.seen == [None, None]


def test_shorter_file_behind_the_address(site: Site, tmp_path: Path) -> None:
    site.body, site.etag = BODY, None
    site.plan = [300_000]
    with pytest.raises(DownloadFailed):
        get(site, tmp_path / "f", attempts=1)
    site.body = b"short"
    assert get(site, tmp_path / "f") == hashlib.sha256(b"short").hexdigest()


def test_server_that_ignores_range(site: Site, tmp_path: Path) -> None:
    site.body, site.ranges = BODY, False
    site.plan = [300_000]
    assert get(site, tmp_path / "f") == SHA
    assert site.seen[1] is not None


def test_server_that_sends_another_range(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    site.plan = [300_000, "shifted"]
    assert get(site, tmp_path / "f") == SHA
    assert len(site.seen) == 3


def test_without_length(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    site.plan = ["no-length"]
    assert get(site, tmp_path / "f") == SHA


def test_server_error_is_retried(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    site.plan = ["503", "503"]
    assert get(site, tmp_path / "f") == SHA


def test_missing_is_not_retried(site: Site, tmp_path: Path) -> None:
    site.plan = ["404"]
    with pytest.raises(DownloadFailed) as caught:
        get(site, tmp_path / "f")
    assert len(site.seen) == 1
    assert str(caught.value) == (
        f"cannot download {site.url}: the server answers 404 Not Found. Without network access, "
        "fetch the file elsewhere and name it in models.yaml under toolchains: "
        "{…: {url: file:///…}}"
    )


def test_gives_up(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    site.plan = [0] * 5
    with pytest.raises(DownloadFailed, match=r"after 0 of 1048576 bytes \(5 attempts\)"):
        get(site, tmp_path / "f")
    assert len(site.seen) == 5


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="Connection refused"):
        fetch(
            "http://127.0.0.1:9/x", tmp_path / "f", progress=lambda *a: None,
            pause=lambda s: None, attempts=2,
        )  # fmt: skip


def test_absurd_size(site: Site, tmp_path: Path) -> None:
    site.body = BODY
    with pytest.raises(DownloadFailed, match="it has 1048576 bytes, the limit is 1000"):
        get(site, tmp_path / "f", limit=1000)
    site.plan = ["no-length"]
    with pytest.raises(DownloadFailed, match="more than the limit of 1000 bytes"):
        get(site, tmp_path / "f", limit=1000)


def test_file(tmp_path: Path) -> None:
    source = tmp_path / "with space ü"
    source.write_bytes(BODY)
    digest = fetch(source.as_uri(), tmp_path / "f", progress=lambda *a: None)
    assert digest == SHA
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///no/such/file", "No such file or directory"),
        ("file://srv/mirror/ncc.tar.xz", "a file:// address names no host"),
        ("ftp://127.0.0.1/x", "addresses of the kind 'ftp'"),
        ("/plain/path", "addresses of the kind 'without scheme'"),
    ],
)
def test_bad_address(url: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=re.escape(why)):
        fetch(url, tmp_path / "f", progress=lambda *a: None)
