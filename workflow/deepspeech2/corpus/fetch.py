"""Download a file from the first of several mirrors that serves it.

A broken download is kept as `<output>.part` and resumed, from the same mirror and only where the
server confirms that the file has not changed. Every mirror is tried several times before the next;
if all fail, all are named. An answer that is neither an archive nor a checkpoint, or has another
SHA-256 than it must have, counts as none.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import queue
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import requests
import urllib3

from deepspeech2 import cli
from deepspeech2.cli import Output, UserError, log
from deepspeech2.corpus.archives import OPENERS, is_archive
from deepspeech2.files import naming, replacing, sha256, write_json

ATTEMPTS = 3  # of each mirror
PAUSE = 1.0  # seconds before the second attempt; doubles
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
ANSWER = 90.0  # seconds until an answer's headers are there
PERIOD, LEAST = 60.0, 1 << 18  # seconds, and bytes that have come after each so many
LONGEST = 24 * 3600.0  # seconds
CHUNK = 1 << 16  # bytes; at most so many are lost when a connection breaks
FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError)


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins like a torch checkpoint (zip or pickle) or like safetensors."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start.startswith((b"PK\x03\x04", b"\x80")) or start[8:9] == b"{"


def _is_whole(path: Path) -> bool:
    """Whether a file without a known length has its own end: a zip, safetensors, compressed tar."""
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        with open(path, "rb") as file:
            start = file.read(8)
        if start.startswith(b"PK"):
            return zipfile.is_zipfile(path)
        opened = next((o for magic, o in OPENERS.items() if start.startswith(magic)), None)
        if opened:
            with opened(path, "rb") as stream:
                while stream.read(1 << 20):
                    pass
            return True
        if is_checkpoint(path):
            from safetensors import SafetensorError, safe_open

            with contextlib.suppress(SafetensorError), safe_open(path, framework="np"):
                return True
    return False


KINDS = {"archive": is_archive, "checkpoint": is_checkpoint}


def fetch(
    urls: list[str],
    output: Path,
    kind: str = "archive",
    expected: str | None = None,
    megabytes: int = 1000,
) -> str:
    """Download to `output` and return the mirror that served it.

    `expected` is the SHA-256 that it must have, `megabytes` the most that may come.
    """
    failures = []
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"{url}: only http and https addresses can be fetched")
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                _download(url, output, kind, expected, megabytes * 1_000_000)
                return url
            except (*FAILURES, _Incomplete, _Refused) as error:
                reason = _reason(error)
                log.info("%s: attempt %d of %d: %s", url, attempt + 1, ATTEMPTS, reason)
                status = getattr(getattr(error, "response", None), "status_code", 0)
                if isinstance(error, _Refused) or 400 <= status < 500:
                    break  # the server's answer is final
        failures.append(f"{url} ({reason})")
    raise UserError(
        f"no mirror of {output.name} could be reached: {', '.join(failures)}; check the network, "
        "or get the file elsewhere and name it with --config archive=PATH or checkpoint=PATH"
    )


class _Incomplete(Exception):
    """The connection ended before the file did, or what came does not fit what is there."""


class _Refused(Exception):
    """The mirror serves something else."""


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "timed out"
    if isinstance(error, (requests.ConnectionError, urllib3.exceptions.HTTPError)):
        return "no connection"
    return str(error)[:200]


def _partial(url: str, part: Path, state: Path) -> tuple[dict[str, str], dict]:
    """Request headers that resume a partial download, and what is known of the whole file.

    Nothing where it cannot be resumed.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(state.read_text(encoding="utf-8"))
        if known["url"] == url and isinstance(known["validator"], str) and part.stat().st_size:
            resume = {"Range": f"bytes={part.stat().st_size}-", "If-Range": known["validator"]}
            return resume, known
    return {}, {}


def _ask(url: str, headers: dict[str, str]) -> requests.Response:
    """The beginning of an answer. A server that drips its headers is left waiting."""
    answers: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            answers.put(requests.get(url, headers=headers, stream=True, timeout=TIMEOUT))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answers.get(timeout=ANSWER)
    except queue.Empty:
        raise _Incomplete(f"no answer within {ANSWER:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found


def _received(response: requests.Response) -> Iterator[bytes]:
    """What comes, as it comes; too slow an answer is given up."""
    start = mark = time.monotonic()
    since = 0
    # Raw bytes: some servers declare an archive's own compression as the transfer's.
    while chunk := response.raw.read1(CHUNK, decode_content=False):
        yield chunk
        since, now = since + len(chunk), time.monotonic()
        if now - start > LONGEST or (now - mark > PERIOD and since < LEAST):
            raise _Incomplete(f"too slow: {since} bytes in {now - mark:.0f} s")
        if now - mark > PERIOD:
            mark, since = now, 0


def _download(url: str, output: Path, kind: str, expected: str | None, most: int) -> None:
    part = output.with_name(f"{output.name}.part")
    state = output.with_name(f"{output.name}.part.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    resume, known = _partial(url, part, state)
    with _ask(url, {"Accept-Encoding": "identity", **resume}) as response:
        if response.status_code == 416:  # nothing is left to fetch, or the file changed
            part.unlink(missing_ok=True)
            raise _Incomplete("the partial download did not fit; starting over")
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 16 else None
        etag = response.headers.get("ETag", "")
        # A weak tag does not promise equal bytes, so it cannot resume a download.
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        have = 0
        if response.status_code == 206:
            have = part.stat().st_size if resume else -1
            total = known.get("total")
            whole = f"bytes {have}-{(total or 0) - 1}/{total}"
            if response.headers.get("Content-Range") != whole or validator != known["validator"]:
                part.unlink(missing_ok=True)
                raise _Incomplete("the server sent another part, or file, than was asked for")
        else:
            part.unlink(missing_ok=True)  # before its new state is written
        if (total or 0) > most:
            raise _Refused(f"has {total} bytes, more than {most} (megabytes in config.yaml)")
        write_json(state, {"url": url, "validator": total and validator, "total": total})
        bar = cli.progress(None, total, output.name, "B")
        with naming(part), open(part, "ab") as file, bar:
            bar.unit_scale = True
            bar.update(have)
            for chunk in _received(response):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
                if have > most:
                    break
    if have > most or (total is not None and have > total):
        part.unlink()
        raise _Refused(f"sends more than {min(most, total or most)} bytes")
    if total is not None and have != total:
        raise _Incomplete(f"the connection ended after {have} of {total} bytes")
    if total is None and not (expected or _is_whole(part)):
        part.unlink()
        raise _Incomplete("the connection ended, and nothing tells that the file is whole")
    if not KINDS[kind](part):
        part.unlink()
        raise _Refused(f"serves something that is not a {kind}")
    if expected and (digest := sha256(part)) != expected.lower():
        part.unlink()
        raise _Refused(f"serves a file whose SHA-256 is {digest}, not {expected}")
    with replacing(output) as temporary:  # synced
        part.replace(temporary)
    state.unlink()


def require_trusted(path: Path, trust: Path) -> str:
    """Record the file's SHA-256 at its first sight; refuse a file with another one later."""
    digest = sha256(path)
    if trust.exists():
        known = trust.read_text(encoding="utf-8", errors="replace").strip()
        if known != digest:
            raise UserError(
                f"{path}: its SHA-256 is {digest}, but the first download's was {known}; if the "
                f"publisher changed the file and you trust it, delete {trust}"
            )
    else:
        with replacing(trust) as temporary:
            temporary.write_text(digest + "\n", encoding="ascii")
    return digest


def main(
    urls: list[str],
    output: Output,
    kind: Literal[tuple(KINDS)] = "archive",
    expected: str | None = None,
    megabytes: int = 1000,
) -> None:
    """Command line.

    urls: mirrors, the preferred one first
    output: file to write
    kind: what it must be; a checkpoint is trusted at its first download and must stay the same,
        its SHA-256 is kept beside it in trusted.sha256
    expected: the SHA-256 that it must have
    megabytes: the most that may come
    """
    url = fetch(urls, output, kind, expected, megabytes)
    if kind == "checkpoint":
        try:
            log.info("SHA-256 %s", require_trusted(output, output.with_name("trusted.sha256")))
        except UserError:
            output.unlink()
            raise
    log.info("fetched from %s", url)


if __name__ == "__main__":
    cli.run(main)
