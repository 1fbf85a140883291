"""Downloads, through requests' own machinery with a transport that never leaves the process."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from privfair.core.exceptions import (
    DataIntegrityError,
    DataNotAvailableError,
    InvalidParameterError,
    MissingDependencyError,
)
from privfair.datasets import _download, download_dataset
from privfair.datasets._files import cache_dir, read_files

requests = pytest.importorskip("requests", reason="pooch, an optional extra, is not installed")
Toy = Callable[..., Any]
FIRST, MIRROR = "https://data.example.org/toy.csv", "https://mirror.example.org/toy.csv"
ZIP = "https://data.example.org/toy.zip"
CONTENT = b"a,b\n1,2\n3,4\n"  # what the fixture `toy` registers
PAGE = b"<!DOCTYPE html><title>Please sign in</title>"


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Web:
    """Answers by address; whatever has no answer is a refused connection."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def send(self, request: Any, **options: Any) -> Any:
        with self.lock:
            self.asked.append(request.url)
            self.options.append({**options, "headers": dict(request.headers)})
        answer = self.answers.get(request.url)
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else None
        if answer is None:
            raise requests.ConnectionError("refused")
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
        response = requests.Response()
        response.status_code = status
        response.headers.update(headers)
        response.raw = BytesIO(body)
        response.url = request.url
        response.request = request
        response.reason = ""
        return response


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    control = Web()

    class Adapter(requests.adapters.BaseAdapter):  # type: ignore[misc]
        def send(self, request: Any, **options: Any) -> Any:
            return control.send(request, **options)

        def close(self) -> None:
            pass

    monkeypatch.setattr(requests.Session, "get_adapter", lambda self, url: Adapter())
    monkeypatch.setattr(_download, "BACKOFF", 0.0)
    return control


def fetch(**options: Any) -> Any:
    (found,) = read_files("toy", ("main",), **options)
    return found


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_download_to_the_cache_and_then_no_more(toy: Toy, web: Web) -> None:
    toy()
    web.answers[FIRST] = CONTENT
    found = fetch()
    assert found.data == CONTENT
    assert found.verified
    assert found.path == cache_dir() / "toyset" / "toy.csv"
    assert web.asked == [FIRST]
    assert fetch().data == CONTENT
    assert web.asked == [FIRST], "the second time it is there"
    assert web.options[0]["timeout"] == 30.0
    assert web.options[0]["verify"], "certificates are checked"
    assert leftovers(cache_dir()) == ["toy.csv"]


def test_download_to_data_home(toy: Toy, web: Web, folder: Path) -> None:
    toy()
    web.answers[FIRST] = CONTENT
    assert fetch(data_home=folder / "new").path == folder / "new" / "toyset" / "toy.csv"
    assert not cache_dir().exists()


def test_the_mirror_is_asked_next(toy: Toy, web: Web) -> None:
    toy()
    web.answers[MIRROR] = CONTENT
    assert fetch().data == CONTENT
    assert web.asked == [FIRST, MIRROR]


def test_the_official_archive_is_asked_last(toy: Toy, web: Web) -> None:
    toy()
    web.answers[ZIP] = zipped({"toy.csv": CONTENT, "../../evil": b"x"})
    assert fetch().data == CONTENT
    assert web.asked == [FIRST, MIRROR, ZIP]
    assert leftovers(cache_dir()) == ["toy.csv"]


def test_three_rounds_with_growing_pauses(
    toy: Toy, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(archives=())
    pauses: list[float] = []
    monkeypatch.setattr(_download, "BACKOFF", 1.0)
    monkeypatch.setattr(_download.time, "sleep", pauses.append)
    with pytest.raises(DataNotAvailableError, match="3 rounds") as caught:
        fetch()
    assert web.asked == [FIRST, MIRROR] * 3
    assert pauses == [1.0, 2.0]
    for part in (FIRST, MIRROR, "ConnectionError", "privfair data fetch toy --to DIR"):
        assert part in str(caught.value)
    assert leftovers(cache_dir()) == []


def test_a_passing_failure_is_retried(toy: Toy, web: Web) -> None:
    toy(archives=(), urls=(FIRST,))
    web.answers[FIRST] = [requests.Timeout("slow"), (503, {}, b"busy"), CONTENT]
    assert fetch().data == CONTENT
    assert len(web.asked) == 3


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (PAGE[: len(CONTENT)], "web page"),
        (CONTENT[:-1], "11 bytes"),
        (b"a,b\n1,2\n3,5\n", "12 bytes"),
        (b"", "0 bytes"),
    ],
    ids=["captive-portal", "partial", "poisoned", "empty"],
)
def test_wrong_bytes_are_never_kept(toy: Toy, web: Web, body: bytes, hint: str) -> None:
    spec = toy(archives=())
    web.answers |= {FIRST: body, MIRROR: body}
    with pytest.raises(DataIntegrityError, match=hint) as caught:
        fetch()
    assert hashlib.sha256(body).hexdigest() in str(caught.value)
    assert spec.files["main"].sha256 in str(caught.value)
    assert leftovers(cache_dir()) == []


def test_a_poisoned_mirror_does_not_stop_the_next(toy: Toy, web: Web) -> None:
    toy()
    web.answers |= {FIRST: b"a,b\n1,2\n3,5\n", MIRROR: CONTENT}
    assert fetch().data == CONTENT


def test_more_bytes_than_stated_stop_the_transfer(toy: Toy, web: Web) -> None:
    toy(archives=(), urls=(FIRST,))
    endless = b"x" * 10_000_000
    read = []

    class Body(BytesIO):
        def read(self, *args: Any) -> bytes:
            piece = super().read(*args)
            read.append(len(piece))
            return piece

    original = web.send

    def send(request: Any, **options: Any) -> Any:
        response = original(request, **options)
        response.raw = Body(endless)
        return response

    web.send = send  # type: ignore[method-assign]
    web.answers[FIRST] = endless
    with pytest.raises(DataNotAvailableError, match="more bytes came"):
        fetch()
    assert sum(read) < 1_000_000
    assert leftovers(cache_dir()) == []


def test_an_announced_excess_is_refused_before_the_body(toy: Toy, web: Web) -> None:
    toy(archives=(), urls=(FIRST,))
    web.answers[FIRST] = (200, {"Content-Length": "10000000"}, CONTENT)
    with pytest.raises(DataNotAvailableError, match="announces more"):
        fetch()


def test_a_trickle_is_given_up(toy: Toy, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(archives=(), urls=(FIRST,))
    clock = iter(range(0, 1_000_000, 1_000))
    monkeypatch.setattr(_download.time, "monotonic", lambda: float(next(clock)))
    web.answers[FIRST] = CONTENT
    with pytest.raises(DataNotAvailableError, match="slower than"):
        fetch()


@pytest.mark.parametrize(
    "target", ["http://data.example.org/toy.csv", "ftp://data.example.org/toy.csv", "file:///etc"]
)
def test_redirects_off_https_are_not_followed(toy: Toy, web: Web, target: str) -> None:
    toy(archives=(), urls=(FIRST,))
    web.answers |= {FIRST: (302, {"Location": target}, b""), target: CONTENT}
    with pytest.raises(DataNotAvailableError, match="redirects away from https"):
        fetch()
    assert set(web.asked) == {FIRST}


def test_a_redirect_within_https_is_followed(toy: Toy, web: Web) -> None:
    toy()
    web.answers |= {
        FIRST: (302, {"Location": "/moved.csv"}, b""),
        "https://data.example.org/moved.csv": CONTENT,
    }
    assert fetch().data == CONTENT


def test_offline_asks_nobody(toy: Toy, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    toy()
    monkeypatch.setenv("PRIVFAIR_OFFLINE", "1")
    web.answers[FIRST] = CONTENT
    with pytest.raises(DataNotAvailableError, match="PRIVFAIR_OFFLINE"):
        fetch()
    with pytest.raises(DataNotAvailableError, match="PRIVFAIR_OFFLINE"):
        download_dataset("toy")
    assert web.asked == []


def test_never_asks_nobody(toy: Toy, web: Web) -> None:
    toy()
    web.answers[FIRST] = CONTENT
    with pytest.raises(DataNotAvailableError, match="download='never'"):
        fetch(download="never")
    assert web.asked == []


def test_a_fallback_never_waits_for_a_network(
    web: Web, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    from privfair.datasets import _embedded, fetch_adult, fetch_compas

    monkeypatch.setattr(_embedded, "load_adult", lambda **options: options)
    monkeypatch.setattr(_embedded, "load_compas", lambda **options: options)
    assert fetch_adult(data_home=folder, fallback="embedded", split="test") == {
        "split": "test", "missing": "category", "as_frame": True,
    }  # fmt: skip
    assert fetch_compas(data_home=folder, fallback="embedded", version="filtered") == {
        "split": "all", "as_frame": True,
    }  # fmt: skip
    for options in ({"outcome": "violent"}, {"include_identifiers": True}, {"columns": "all"}):
        with pytest.raises(InvalidParameterError, match="embedded edition"):
            fetch_compas(data_home=folder, fallback="embedded", **options)  # type: ignore[arg-type]
    assert web.asked == []


def test_pooch_missing(toy: Toy, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    toy()
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingDependencyError, match=r"privfair\[data\]") as caught:
        fetch()
    assert caught.value.exit_code == 7
    assert "PRIVFAIR_DATA_DIR" in str(caught.value)
    assert web.asked == []


def test_no_pooch_is_needed_for_local_files(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    toy()
    monkeypatch.setitem(sys.modules, "pooch", None)
    (folder / "toy.csv").write_bytes(CONTENT)
    assert fetch(data_home=folder).data == CONTENT


def test_a_target_that_is_a_file(toy: Toy, web: Web, folder: Path) -> None:
    toy()
    web.answers[FIRST] = CONTENT
    (folder / "occupied").write_text("a file")
    with pytest.raises(DataNotAvailableError, match="cannot be used|not writable"):
        fetch(data_home=folder / "occupied")


def test_a_read_only_target(
    toy: Toy, web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy()

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root ignores the folder's own mode
    with pytest.raises(DataNotAvailableError, match="not writable"):
        fetch(data_home=folder)


def test_parallel_workers_download_once(toy: Toy, web: Web) -> None:
    toy()
    web.answers[FIRST] = CONTENT
    results: list[bytes] = []
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait()
        results.append(fetch().data)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 6
    assert web.asked == [FIRST]
    assert leftovers(cache_dir()) == ["toy.csv"]


def test_download_dataset_keeps_and_verifies_what_is_there(
    toy: Toy, web: Web, folder: Path
) -> None:
    toy()
    web.answers[FIRST] = CONTENT
    paths = download_dataset("toy", folder)
    assert paths == [str(folder / "toyset" / "toy.csv")]
    assert download_dataset("toy", folder) == paths
    assert web.asked == [FIRST]
    Path(paths[0]).write_bytes(b"a,b\n1,2\n3,5\n")
    with pytest.raises(DataIntegrityError):
        download_dataset("toy", folder)
    assert Path(paths[0]).read_bytes() == b"a,b\n1,2\n3,5\n"


def test_only_https_is_in_the_registry() -> None:
    from privfair.datasets import available_datasets, dataset_info

    urls = [
        url for name in available_datasets() for f in dataset_info(name)["files"]
        for url in f["urls"]
    ]  # fmt: skip
    assert len(urls) > 10
    assert all(url.startswith("https://") for url in urls)
