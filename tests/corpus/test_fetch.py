"""Downloads from real servers on this machine: mirrors, retries, resuming, trust."""

import contextlib
import hashlib
import http.server
import pickle
import tarfile
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from deepspeech2.cli import UserError
from deepspeech2.corpus import fetch
from helpers import assert_one_line_error, run_stage, write_safetensors

CONTENT = b"PK\x03\x04" + np.random.default_rng(0).bytes(3_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT. The path says how; `server.seen` keeps each request's path and range."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, asked = urlsplit(self.path).path, self.headers.get("Range")
        self.server.seen.append((path, asked))
        if path == "/missing":
            self.send_error(404)
            return
        if path == "/broken" or (path == "/flaky" and len(self.server.seen) < 3):
            self.send_error(500)
            return
        if path == "/page":
            body = b"<html>Welcome to the hotel's network</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if self.hostile(path, asked):
            return
        start = 0
        etag = 'W/"weak"' if path == "/weak" else f'"{self.server.version}"'
        if asked and self.headers.get("If-Range") == etag:
            start = int(asked[len("bytes=") : -1])
            self.send_response(206)
            claimed = 0 if path == "/wrongpart" else start
            self.send_header("Content-Range", f"bytes {claimed}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.server.resumed += 1
        else:
            self.send_response(200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        if path != "/plain":
            self.send_header("ETag", etag)
        self.end_headers()
        cut = path == "/cut" or (
            path in ("/resume", "/weak", "/plain", "/wrongpart") and not self.server.cuts
        )
        if cut:
            self.server.cuts += 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def hostile(self, path, asked):
        """Answers as no good server does; whether it did."""
        places = {"/to_a_file": "file:///etc/passwd", "/to_ftp": "ftp://x", "/around": "/around"}
        if path in places:
            self.send_response(302)
            self.send_header("Location", places[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/close":
            self.close_connection = True
        elif path == "/silent":
            time.sleep(2)
            self.close_connection = True
        elif path == "/dripping_headers":
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                for number in range(30):
                    self.wfile.write(f"X-{number}: y\r\n".encode())
                    time.sleep(0.1)
            self.close_connection = True
        elif path in ("/drip", "/endless", "/nothing_tells", "/no_length"):
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            content = self.server.content
            with contextlib.suppress(OSError):
                if path == "/drip":
                    for place in range(40):
                        self.wfile.write(content[place : place + 1])
                        time.sleep(0.1)
                elif path == "/endless":
                    for _ in range(100):
                        self.wfile.write(content)
                else:
                    cut = len(content) // 2 if path == "/nothing_tells" else None
                    self.wfile.write(content[:cut])
        elif path in ("/chunks", "/cut_chunks"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            content = self.server.content
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.write(b"0\r\n\r\n" if path == "/chunks" else b"ffff\r\nPK")
            self.close_connection = True
        elif path.startswith("/other_") and asked and self.server.cuts < 2:
            # Continues, but with what belongs to another file.
            self.server.cuts += 1
            start = int(asked[len("bytes=") : -1])
            body = bytes(len(CONTENT) - start)
            total = len(CONTENT) + (path == "/other_total")
            place = start - (path == "/other_place")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {place}-{len(CONTENT) - 1}/{total}")
            self.send_header("ETag", '"other"' if path == "/other_etag" else '"v1"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif path.startswith("/other_") and not self.server.cuts:
            self.server.cuts += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.send_header("ETag", '"v1"')
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
            self.close_connection = True
        else:
            return False
        return True


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.content = CONTENT
        found.seen, found.cuts, found.version, found.resumed = [], 0, "v1", 0
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        found.url = f"http://127.0.0.1:{found.server_address[1]}"
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0.01)


def test_a_plain_download(server, tmp_path):
    assert fetch.fetch([f"{server.url}/whole"], tmp_path / "a") == f"{server.url}/whole"
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failing_server_is_asked_again(server, tmp_path):
    fetch.fetch([f"{server.url}/flaky"], tmp_path / "a")
    assert [path for path, _ in server.seen] == ["/flaky"] * 3


def test_the_next_mirror_is_tried_and_a_final_answer_is_not_repeated(server, tmp_path):
    used = fetch.fetch([f"{server.url}/missing", f"{server.url}/whole"], tmp_path / "a")
    assert used.endswith("/whole")
    assert [path for path, _ in server.seen] == ["/missing", "/whole"]


def test_a_broken_download_is_resumed(server, tmp_path):
    fetch.fetch([f"{server.url}/resume"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    (_, first), (_, second) = server.seen
    half = len(CONTENT) // 2
    assert first is None and half - fetch.CHUNK < int(second[len("bytes=") : -1]) <= half
    assert server.resumed == 1


def test_a_later_run_resumes_too(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    with pytest.raises(UserError, match="resume"):
        fetch.fetch([f"{server.url}/resume"], tmp_path / "a")
    kept = (tmp_path / "a.part").stat().st_size
    assert kept > 0 and not (tmp_path / "a").exists()
    fetch.fetch([f"{server.url}/resume"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.seen[1][1] == f"bytes={kept}-"


def test_a_file_that_changed_meanwhile_is_fetched_whole(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    with pytest.raises(UserError):
        fetch.fetch([f"{server.url}/resume"], tmp_path / "a")
    server.version = "v2"
    fetch.fetch([f"{server.url}/resume"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/weak", "/plain"])
def test_without_a_strong_validator_nothing_is_resumed(server, tmp_path, path):
    fetch.fetch([server.url + path], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.seen == [(path, None), (path, None)]


def test_a_wrong_part_is_not_appended(server, tmp_path):
    fetch.fetch([f"{server.url}/wrongpart"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.resumed == 1 and len(server.seen) == 3


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"url": 1, "validator": 5}', ""])
def test_a_broken_state_means_a_fresh_start(server, tmp_path, text):
    (tmp_path / "a.part").write_bytes(b"other bytes")
    (tmp_path / "a.part.json").write_text(text)
    fetch.fetch([f"{server.url}/whole"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and server.seen == [("/whole", None)]


@pytest.mark.parametrize("kind", ["archive", "checkpoint"])
def test_a_page_instead_of_the_file_is_a_failed_mirror(server, tmp_path, kind):
    urls = [f"{server.url}/page", f"{server.url}/whole"]
    assert fetch.fetch(urls, tmp_path / "a", kind) == urls[1]
    with pytest.raises(UserError, match=f"serves something that is not a {kind}"):
        fetch.fetch(urls[:1], tmp_path / "b", kind)
    assert not (tmp_path / "b").exists() and not (tmp_path / "b.part").exists()


def test_more_than_may_come_is_a_failed_mirror(server, tmp_path):
    for path, words in (("/whole", "has 3000004 bytes, more than 1000000"),
                        ("/endless", "sends more than 1000000 bytes")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            fetch.fetch([server.url + path], tmp_path / "a", megabytes=1)
        assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("path", ["/drip", "/dripping_headers", "/silent"])
def test_a_slow_mirror_is_left_for_the_next(server, tmp_path, monkeypatch, path):
    for name, value in (("ANSWER", 0.5), ("PERIOD", 0.2), ("ATTEMPTS", 2), ("TIMEOUT", (1, 1))):
        monkeypatch.setattr(fetch, name, value)
    start = time.monotonic()
    used = fetch.fetch([server.url + path, f"{server.url}/whole"], tmp_path / "a")
    assert used.endswith("/whole") and time.monotonic() - start < 10
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/other_total", "/other_etag", "/other_place"])
def test_a_part_of_another_file_is_not_joined(server, tmp_path, path):
    fetch.fetch([server.url + path], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and len(server.seen) == 3


@pytest.mark.parametrize("path", ["/nothing_tells", "/cut_chunks"])
def test_a_cut_answer_without_a_length_is_not_taken(server, tmp_path, path):
    trust = tmp_path / "trusted.sha256"
    result = run_stage(
        "corpus.fetch", "--urls", server.url + path, "--output", tmp_path / "a", "--kind",
        "checkpoint", "--log", tmp_path / "log",
    )  # fmt: skip
    assert_one_line_error(result, path)
    assert not (tmp_path / "a").exists() and not trust.exists()


def test_an_answer_without_a_length_that_is_whole_is_taken(server, tmp_path):
    server.content = write_safetensors(tmp_path / "x.safetensors").read_bytes()
    for path in ("/no_length", "/chunks"):
        fetch.fetch([server.url + path], tmp_path / "a", "checkpoint")
        assert (tmp_path / "a").read_bytes() == server.content
    fetch.fetch([f"{server.url}/no_length"], tmp_path / "b", "checkpoint",
                hashlib.sha256(server.content).hexdigest())  # fmt: skip
    with pytest.raises(UserError, match="SHA-256"):
        fetch.fetch([f"{server.url}/no_length"], tmp_path / "c", "checkpoint", "0" * 64)


@pytest.mark.parametrize("path", ["/to_a_file", "/to_ftp", "/around", "/close"])
def test_redirects_that_lead_nowhere(server, tmp_path, path):
    used = fetch.fetch([server.url + path, f"{server.url}/whole"], tmp_path / "a")
    assert used.endswith("/whole")


def test_what_begins_like_an_archive_or_checkpoint(tmp_path, an4_archive):
    assert fetch.is_archive(an4_archive) and not fetch.is_checkpoint(an4_archive)
    source = write_safetensors(tmp_path / "a.safetensors")
    assert fetch.is_checkpoint(source) and not fetch.is_archive(source)
    (tmp_path / "a.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))  # torch before 1.6
    assert fetch.is_checkpoint(tmp_path / "a.pth") and not fetch.is_archive(tmp_path / "a.pth")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(source, "x")
    assert fetch.is_archive(tmp_path / "a.tar") and not fetch.is_archive(tmp_path / "a.safetensors")


def test_another_mirrors_part_is_not_resumed(server, tmp_path):
    used = fetch.fetch([f"{server.url}/cut", f"{server.url}/whole"], tmp_path / "a")
    assert ("/whole", None) in server.seen
    assert used.endswith("/whole") and (tmp_path / "a").read_bytes() == CONTENT


def test_all_mirrors_are_named_when_none_serves(server, tmp_path):
    closed = "http://127.0.0.1:9"
    urls = [f"{server.url}/missing", f"{server.url}/broken", f"{closed}/x"]
    result = run_stage("corpus.fetch", "--urls", *urls, "--output", tmp_path / "a")
    assert_one_line_error(result_without_notes(result), *urls, "404", "500", "no connection")
    assert not (tmp_path / "a").exists()


def result_without_notes(result):
    """The notes on attempts go to standard error too when there is no log."""
    lines = result.stderr.strip().splitlines()
    assert all("attempt" in line for line in lines[:-1])
    result.stderr = lines[-1]
    return result


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "a.tar.gz"])
def test_only_web_addresses_are_fetched(tmp_path, url):
    with pytest.raises(UserError, match="only http"):
        fetch.fetch([url], tmp_path / "a")


def test_the_first_download_is_trusted_and_a_changed_one_is_not(tmp_path):
    path, trust = tmp_path / "a", tmp_path / "trusted.sha256"
    path.write_bytes(b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    assert fetch.require_trusted(path, trust) == digest == trust.read_text().strip()
    assert fetch.require_trusted(path, trust) == digest
    path.write_bytes(b"two")
    with pytest.raises(UserError, match=f"{digest}.*delete .*trusted.sha256"):
        fetch.require_trusted(path, trust)


def test_a_distrusted_download_is_not_kept(server, tmp_path):
    path, trust = tmp_path / "a", tmp_path / "trusted.sha256"
    command = ("corpus.fetch", "--urls", f"{server.url}/whole", "--output", path, "--kind")
    assert run_stage(*command, "archive").returncode == 0
    assert not trust.exists()  # what archives hold is checked otherwise
    assert run_stage(*command, "checkpoint").returncode == 0
    assert trust.read_text().strip() == hashlib.sha256(CONTENT).hexdigest()
    trust.write_text("0" * 64)
    assert_one_line_error(run_stage(*command, "checkpoint"), "first download", str(trust))
    assert not path.exists()
