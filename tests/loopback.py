"""A local Kaggle server for the real client: the calls that the pipeline makes, and their failures.

The client is unmodified: KAGGLE_API_ENVIRONMENT=LOCALHOST makes it call http://localhost, and http_proxy redirects all
requests to this server's port. Tests put the failures that they need into `Server.script`.
"""

import base64
import itertools
import json
import os
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import settings

from pipeline.errors import UserError
from pipeline.kaggle import client

TOKEN, KEY = "kgat_the-good-token-0123456789", "the-good-key-9876543210"
SIGNATURE = "X-Signature=the-secret-signature"
SECRETS = (TOKEN, KEY, SIGNATURE, "bad-token", "storage.local")
OWN = re.compile("KAGGLE|XDG|.*_PROXY$", re.IGNORECASE)  # environment variables that the client reads
ALL = itertools.repeat


@dataclass
class Failure:
    """A failure of one request."""

    status: int = 0
    message: str = ""
    cut: bool = False  # close the connection in the middle of a file, or before any response
    silent: bool = False  # until the client's timeout
    content: bytes | None = None  # replaces the file or the response
    happens: bool = False  # the request takes effect, only its response is lost


class Server:
    """Server with files and submissions, a log of requests, and a script of failures by operation."""

    def __init__(self, slug):
        self.slug, self.files, self.uploads, self.script = slug, {}, {}, {}
        self.requests, self.submissions, self.pauses = [], [], []
        self.verdicts = itertools.repeat({"status": "PENDING"})
        self.limits = {"numToday": 0, "numTotal": 3, "numAllowedNow": 2}
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                server.respond(self)

            do_GET = do_PUT = do_POST  # noqa: N815

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def environment(self, **credentials):
        """Return environment variables that connect a command with this server; the folder home/ is its home."""
        address = f"http://127.0.0.1:{self.http.server_port}"
        clean = {key: value for key, value in os.environ.items() if not OWN.match(key)}
        kaggle = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": address, "HOME": os.path.abspath("home")}
        return clean | kaggle | credentials

    def log_in(self, monkeypatch, **credentials):
        """Connect the client of this process. Its pauses are appended to `pauses`, instead of waiting."""
        for key in filter(OWN.match, list(os.environ)):
            monkeypatch.delenv(key)
        for key, value in self.environment(**credentials).items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(time, "sleep", self.pauses.append)
        monkeypatch.setattr(client, "TIMEOUT", (5, 20))
        from kaggle.api.kaggle_api_extended import KaggleApi

        monkeypatch.setattr(KaggleApi, "args", ["--local"])  # as if the environment had been set before the import
        monkeypatch.setattr(KaggleApi, "config", os.path.abspath("home/.kaggle/kaggle.json"))
        self.requests.clear()  # requests of the import

    def respond(self, handler):
        """Respond to one request."""
        name = handler.path.split("?")[0].rpartition("/")[2]
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        operation = name if handler.command == "POST" else handler.command
        request = json.loads(body) if handler.command == "POST" else {"name": name, "body": body, "path": handler.path}
        what = f"{operation} {request.get('fileName') or (name if operation == 'GET' else '')}"
        self.requests.append(f"{what} {handler.headers.get('Range', '')}".strip())
        failure = next(self.script.get(operation, iter(())), None) or Failure()
        lost = failure.silent or (failure.cut and operation != "GET")
        if failure.happens or not (failure.status or lost or failure.content is not None):
            status, reply, headers = self.work(operation, request, handler.headers)
        if failure.silent:
            self.released.wait(20)
        handler.close_connection = failure.cut or failure.silent
        if lost:
            return
        if failure.content is not None:
            status, reply, headers = 200, failure.content, {}
        elif failure.status:
            status, headers = failure.status, {"Retry-After": "7200"}
            reply = json.dumps({"code": status, "message": failure.message}).encode()
        handler.send_response(status)
        headers |= {"Content-Type": f"application/{'octet-stream' if operation == 'GET' else 'json'}"}
        for key, value in (headers | {"Content-Length": str(len(reply))}).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(reply[: len(reply) // 2] if failure.cut else reply)

    def work(self, operation, request, headers):
        """Execute a request, and return status, body and headers of its response."""
        if operation == "GET":
            start = int(headers.get("Range", "bytes=0-")[6:-1])
            return 206 if start else 200, self.files[request["name"]][start:], {"Accept-Ranges": "bytes"}
        basic = base64.b64encode(f"someone:{KEY}".encode()).decode()
        status, reply, more = 200, {}, {}
        if operation == "PUT":
            assert SIGNATURE in request["path"]
            self.uploads[request["name"]] = request["body"]
        elif operation == "IntrospectToken":
            valid = request["token"] == TOKEN
            reply = {"active": valid, "username": "someone" if valid else ""}
        elif headers.get("Authorization") not in (f"Bearer {TOKEN}", f"Basic {basic}"):
            status, reply = 401, {"code": 401, "message": "Unauthenticated"}
        elif request["competitionName"] != self.slug:
            status, reply = 403, {"code": 403, "message": "Permission 'competitions.get' was denied"}
        else:
            status, reply, more = getattr(self, operation)(request)
        return status, json.dumps(reply).encode(), more

    def DownloadDataFile(self, request):  # noqa: N802
        return 302, {}, {"Location": f"http://storage.local/files/{request['fileName']}?{SIGNATURE}"}

    def GetSubmissionLimits(self, request):  # noqa: N802
        return 200, self.limits, {}

    def StartSubmissionUpload(self, request):  # noqa: N802
        return 200, {"token": "blob", "createUrl": f"http://storage.local/upload/blob?{SIGNATURE}"}, {}

    def CreateSubmission(self, request):  # noqa: N802
        ref = 1001 + len(self.submissions)
        self.submissions.insert(0, {
            "ref": ref, "date": "2026-11-23T08:00:00.000Z", "description": request["submissionDescription"],
            "fileName": "ensemble.csv", "status": "PENDING", "bytes": self.uploads[request["blobFileTokens"]],
        })  # fmt: skip
        return 200, {"message": "Successfully submitted", "ref": ref}, {}

    def ListSubmissions(self, request):  # noqa: N802
        for each in self.submissions:
            if each["status"] == "PENDING":
                each |= next(self.verdicts)
        shown = [{key: value for key, value in each.items() if key != "bytes"} for each in self.submissions]
        start = 20 * (request["page"] - 1)  # whatever page size is requested
        return 200, {"submissions": shown[start : start + 20], "nextPageToken": ""}, {}


def connected(slug, folder, monkeypatch):
    """Yield a server for one competition, which params.yaml in `folder` names, and to which this process is logged in.

    Use it in a fixture.
    """
    settings.write({"source": "kaggle", "slug": slug})
    (folder / "home").mkdir()
    server = Server(slug)
    server.log_in(monkeypatch, KAGGLE_API_TOKEN=TOKEN)
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()


def refused(words, command, *arguments):
    """Assert that a command fails with one line that contains `words` and no secret."""
    with pytest.raises(UserError) as refusal:
        command(*arguments)
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert not any(secret in message for secret in (*SECRETS, "\n", "\x1b"))
