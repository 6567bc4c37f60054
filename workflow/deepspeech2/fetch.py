"""Download a file from the first of several mirrors that serves it.

A broken download is kept as `<output>.part` and resumed, from the same mirror and only where the
server confirms that the file has not changed. Every mirror is tried several times before the next;
if all fail, all are named. A file fetched once under `--trust` must have the same SHA-256 later.
"""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import requests

from deepspeech2 import stage
from deepspeech2.files import read_json, replacing, sha256, write_json
from deepspeech2.stage import UserError, log

ATTEMPTS = 3  # of each mirror
PAUSE = 1.0  # seconds before the second attempt; doubles
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
MAX_BYTES = 8 << 30
CHUNK = 1 << 16  # bytes; at most so many are lost when a connection breaks


def fetch(urls: list[str], output: Path) -> str:
    """Download to `output` and return the mirror that served it."""
    failures = []
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"{url}: only http and https addresses can be fetched")
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                _download(url, output)
                return url
            except (requests.RequestException, _Incomplete) as error:
                reason = _reason(error)
                log.info("%s: attempt %d of %d: %s", url, attempt + 1, ATTEMPTS, reason)
                response = getattr(error, "response", None)
                if response is not None and 400 <= response.status_code < 500:
                    break  # the server's answer is final
        failures.append(f"{url} ({reason})")
    raise UserError(
        f"no mirror of {output.name} could be reached: {', '.join(failures)}; check the network, "
        "or get the file elsewhere and name it with --config archive=PATH or checkpoint=PATH"
    )


class _Incomplete(Exception):
    """The connection ended before the file did."""


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)


def _download(url: str, output: Path) -> None:
    part = output.with_name(f"{output.name}.part")
    state = output.with_name(f"{output.name}.part.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    headers, have = {"Accept-Encoding": "identity"}, 0
    if part.exists() and state.exists():
        known = read_json(state)
        if known["url"] == url and known["validator"]:
            have = part.stat().st_size
            headers.update({"Range": f"bytes={have}-", "If-Range": known["validator"]})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is left to fetch, or the file changed
            part.unlink()
            raise _Incomplete("the partial download did not fit; starting over")
        response.raise_for_status()
        resumed = have and response.status_code == 206
        if not resumed:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        etag = response.headers.get("ETag", "")
        # A weak tag does not promise equal bytes, so it cannot resume a download.
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        write_json(state, {"url": url, "validator": validator})
        bar = stage.progress(None, total, output.name, "B")
        with open(part, "ab" if resumed else "wb") as file, bar:
            bar.unit_scale = True
            bar.update(have)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
                if have > MAX_BYTES:
                    raise UserError(f"{url}: sends more than {MAX_BYTES} bytes")
    if total is not None and have != total:
        raise _Incomplete(f"the connection ended after {have} of {total} bytes")
    part.replace(output)
    state.unlink()


def require_trusted(path: Path, trust: Path) -> str:
    """Record the file's SHA-256 at its first sight; refuse a file with another one later."""
    digest = sha256(path)
    if trust.exists():
        known = trust.read_text(encoding="ascii").strip()
        if known != digest:
            raise UserError(
                f"{path}: its SHA-256 is {digest}, but the first download's was {known}; if the "
                f"publisher changed the file and you trust it, delete {trust}"
            )
    else:
        with replacing(trust) as temporary:
            temporary.write_text(digest + "\n", encoding="ascii")
    return digest


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--urls", nargs="+", required=True, help="mirrors, the preferred one first")
    parser.add_argument("--trust", type=Path, help="file that keeps the first download's SHA-256")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    args = stage.parse(parser, argv)

    url = fetch(args.urls, args.output)
    if args.trust:
        try:
            log.info("SHA-256 %s", require_trusted(args.output, args.trust))
        except UserError:
            args.output.unlink()
            raise
    log.info("fetched from %s", url)


if __name__ == "__main__":
    stage.run(main)
