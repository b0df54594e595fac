"""A Kaggle on this machine, for the real client: the calls that the pipeline makes, and every way they can fail.

The client speaks to it unmodified: KAGGLE_API_ENVIRONMENT=LOCALHOST lets it call http://localhost, and http_proxy leads
everything to the port where this listens. What a test wants to go wrong it puts into `script`.
"""

import base64
import contextlib
import io
import itertools
import json
import os
import re
import ssl
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.kaggle import client

TOKEN, KEY = "kgat_the-good-token-0123456789", "the-good-key-9876543210"
SIGNATURE = "X-Signature=the-secret-signature"


@dataclass
class Trouble:
    """How a request fails: with a status (and words or headers), a cut connection, silence, or another content."""

    status: int = 0
    words: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  # in the middle of the body, or before any answer where there is none
    silent: bool = False  # until the client gives up
    slow: float = 0.0  # seconds between two pieces of the body
    content: bytes | None = None  # instead of the file, or of the answer
    happens: bool = False  # the request does its work all the same, only its answer is lost


ALL = itertools.repeat


class Server:
    """What Kaggle knows, what it was asked, and what will go wrong."""

    def __init__(self, slug: str) -> None:
        self.slug, self.files = slug, dict[str, bytes]()
        self.zipped: set[str] = set()
        self.requests: list[str] = []
        self.headers: list[str] = []
        self.script: dict[str, Iterator[Trouble | None]] = {}
        self.submissions: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.verdicts: Iterator[dict[str, Any]] = itertools.repeat({"status": "PENDING"})
        self.limits: dict[str, Any] = {"numToday": 0, "numTotal": 3, "numAllowedNow": 2}
        self.page = 20  # submissions on one, however many are asked for
        self.redirect = b"", "application/json"  # body and type of the answer that leads to a file
        self.certificate: Path | None = None  # with its key; without one, tunnels through this want a login
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.answer(self)

            do_GET = do_PUT = do_POST  # noqa: N815

            def do_CONNECT(self) -> None:
                server.tunnel(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home: Path, **credentials: str) -> dict[str, str]:
        """The environment of a command whose Kaggle this is."""
        here = f"http://127.0.0.1:{self.http.server_port}"
        clean = {key: value for key, value in os.environ.items() if not re.match("KAGGLE|XDG|.*_PROXY$", key.upper())}
        return clean | {
            "HOME": str(home), "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": here, "https_proxy": here,
        } | credentials  # fmt: skip

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path = re.sub(r"^https?://[^/]+", "", handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        operation = path.rpartition("/")[2] if handler.command == "POST" else handler.command
        asked = json.loads(body) if handler.command == "POST" else {}
        what = asked.get("fileName") or (path.split("?")[0].rpartition("/")[2] if handler.command == "GET" else "")
        self.requests.append(f"{operation} {what}".strip())
        self.headers.append(str(handler.headers))
        trouble = next(self.script.get(operation, iter(())), None) or Trouble()
        if trouble.happens:
            self.work(operation, path, body, asked, handler)
        if trouble.silent:
            self.released.wait(20)
        if trouble.silent or (trouble.cut and operation != "GET"):
            handler.close_connection = True
            return
        if trouble.content is not None and operation != "GET":
            self.send(handler, trouble.status or 200, trouble.content, trouble.headers)
            return
        if trouble.status:
            self.send(handler, trouble.status, {"code": trouble.status, "message": trouble.words}, trouble.headers)
            return
        status, reply, headers = self.work(operation, path, body, asked, handler)
        if operation == "GET" and status == 200:
            self.stream(handler, reply if trouble.content is None else trouble.content, trouble)
        else:
            self.send(handler, status, reply, headers)

    def tunnel(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request for a tunnel: refuse it, or pretend to be who was asked for."""
        self.requests.append("CONNECT")
        handler.send_response(200 if self.certificate else 407)
        handler.end_headers()
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            with contextlib.suppress(OSError):
                context.wrap_socket(handler.connection, server_side=True)
        handler.close_connection = True

    def authorized(self, handler: BaseHTTPRequestHandler) -> bool:
        """Whether a call bears the good token or the good key."""
        basic = base64.b64encode(f"someone:{KEY}".encode()).decode()
        return handler.headers.get("Authorization") in (f"Bearer {TOKEN}", f"Basic {basic}")

    def work(self, operation: str, path: str, body: bytes, asked: dict[str, Any], handler: Any) -> Any:
        """What the call does and gives back: status, reply, headers."""
        if operation == "IntrospectToken":
            good = asked["token"] == TOKEN
            return 200, {"active": good, "username": "someone" if good else ""}, {}
        if operation == "GET":
            return 200, self.content(path.split("?")[0].rpartition("/")[2]), {}
        if operation == "PUT":
            assert SIGNATURE in path
            self.uploads[path.split("?")[0].rpartition("/")[2]] = body
            return 201, {}, {}
        if not self.authorized(handler):
            return 401, {"code": 401, "message": "Unauthenticated"}, {}
        if asked["competitionName"] != self.slug:
            return 403, {"code": 403, "message": "Permission 'competitions.get' was denied"}, {}
        return getattr(self, operation)(asked)

    def content(self, name: str) -> bytes:
        """What a link gives."""
        if not name.endswith(".zip"):
            return self.files[name]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.removesuffix(".zip"), self.files[name.removesuffix(".zip")])
        return packed.getvalue()

    def DownloadDataFile(self, asked: dict[str, Any]) -> Any:  # noqa: N802
        name = asked["fileName"]
        if name not in self.files:
            return 404, {"code": 404, "message": "Not found"}, {}
        name += ".zip" if name in self.zipped else ""
        body, kind = self.redirect
        return 302, body, {"Location": f"http://storage.local/files/{name}?{SIGNATURE}", "Content-Type": kind}

    def GetSubmissionLimits(self, asked: dict[str, Any]) -> Any:  # noqa: N802
        return 200, self.limits, {}

    def StartSubmissionUpload(self, asked: dict[str, Any]) -> Any:  # noqa: N802
        token = f"blob{len(self.uploads)}"
        return 200, {"token": token, "createUrl": f"http://storage.local/upload/{token}?{SIGNATURE}"}, {}

    def CreateSubmission(self, asked: dict[str, Any]) -> Any:  # noqa: N802
        assert asked["blobFileTokens"] in self.uploads
        ref = 1001 + len(self.submissions)
        self.submissions.insert(0, {
            "ref": ref, "date": "2026-11-23T08:00:00.000Z", "description": asked["submissionDescription"],
            "fileName": "ensemble.csv", "status": "PENDING", "bytes": self.uploads[asked["blobFileTokens"]],
        })  # fmt: skip
        return 200, {"message": "Successfully submitted", "ref": ref}, {}

    def ListSubmissions(self, asked: dict[str, Any]) -> Any:  # noqa: N802
        for each in self.submissions:
            if each["status"] == "PENDING":
                each |= next(self.verdicts)
        shown = [{key: value for key, value in each.items() if key != "bytes"} for each in self.submissions]
        start = (asked["page"] - 1) * self.page
        return 200, {"submissions": shown[start : start + self.page], "nextPageToken": ""}, {}

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, reply: Any, headers: dict[str, str]) -> None:
        text = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        handler.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(text))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text)

    def stream(self, handler: BaseHTTPRequestHandler, content: bytes, trouble: Trouble) -> None:
        """Send a file, as far as the trouble lets it."""
        handler.send_response(200)
        for name, value in {"Content-Type": "application/octet-stream", "Content-Length": str(len(content)),
                            "Accept-Ranges": "bytes", **trouble.headers}.items():  # fmt: skip
            handler.send_header(name, value)
        handler.end_headers()
        part = len(content) // 2 if trouble.cut else len(content)
        pieces = 5 if trouble.slow else 1
        for place in range(pieces):
            handler.wfile.write(content[place * part // pieces : (place + 1) * part // pieces])
            handler.wfile.flush()
            self.released.wait(trouble.slow)
        handler.close_connection = trouble.cut


def in_this_process(kaggle: Server, home: Path, monkeypatch: pytest.MonkeyPatch, **credentials: str) -> list[float]:
    """Let the client in this process speak to `kaggle`, by the good token or by other credentials.

    Returns
    -------
    Its pauses, which are noted instead of waited for.
    """
    for key in [key for key in os.environ if re.match("KAGGLE|XDG|.*_PROXY$", key.upper())]:
        monkeypatch.delenv(key)
    for key, value in kaggle.environment(home, **(credentials or {"KAGGLE_API_TOKEN": TOKEN})).items():
        monkeypatch.setenv(key, value)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(client, "TIMEOUT", (1, 0.5))
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "args", ["--local"])  # as the environment would have it had it been set before
    monkeypatch.setattr(KaggleApi, "config", str(home / ".kaggle/kaggle.json"))
    kaggle.requests.clear()  # of that import
    return pauses
