"""A local Kaggle server for the real client: the calls that the pipeline makes, and their failures.

The client is unmodified: KAGGLE_API_ENVIRONMENT=LOCALHOST makes it call http://localhost, and http_proxy redirects all
requests to this server's port. Tests put the failures that they need into `Server.script`.
"""

import base64
import io
import itertools
import json
import os
import re
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pipeline.kaggle import client

TOKEN, KEY = "kgat_the-good-token-0123456789", "the-good-key-9876543210"
SIGNATURE = "X-Signature=the-secret-signature"
SECRETS = (TOKEN, KEY, SIGNATURE, "bad-token", "storage.local")
ALL = itertools.repeat


@dataclass
class Failure:
    """A failure of one request."""

    status: int = 0
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  # close the connection in the middle of a file, or before any response
    silent: bool = False  # until the client's timeout
    content: bytes | None = None  # replaces the file or the response
    happens: bool = False  # the request takes effect, only its response is lost


class Server:
    """Server with files and submissions, a log of requests, and a script of failures by operation."""

    def __init__(self, slug):
        self.slug, self.files, self.uploads, self.script = slug, {}, {}, {}
        self.zipped, self.requests, self.submissions = set(), [], []
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

    def close(self):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home, **credentials):
        """Return environment variables that connect a command with this server."""
        address = f"http://127.0.0.1:{self.http.server_port}"
        clean = {key: value for key, value in os.environ.items() if not re.match("KAGGLE|XDG|.*_PROXY$", key.upper())}
        kaggle = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": address, "https_proxy": address}
        return clean | kaggle | {"HOME": str(home)} | credentials

    def respond(self, handler):
        """Respond to one request."""
        path = re.sub(r"^https?://[^/]+", "", handler.path)
        name = path.split("?")[0].rpartition("/")[2]
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        operation = name if handler.command == "POST" else handler.command
        request = json.loads(body) if handler.command == "POST" else {"name": name, "body": body, "path": path}
        self.requests.append(f"{operation} {request.get('fileName') or (name if operation == 'GET' else '')}".strip())
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
            kind = {"Content-Type": "application/octet-stream"} if operation == "GET" else {}
            status, reply, headers = failure.status or 200, failure.content, kind | failure.headers
        elif failure.status:
            status, headers = failure.status, failure.headers
            reply = json.dumps({"code": status, "message": failure.message}).encode()
        handler.send_response(status)
        for key, value in ({"Content-Type": "application/json", "Content-Length": str(len(reply))} | headers).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(reply[: len(reply) // 2] if failure.cut else reply)

    def work(self, operation, request, headers):
        """Execute a request, and return status, body and headers of its response."""
        if operation == "GET":
            start = int(headers.get("Range", "bytes=0-")[6:-1])
            more = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
            return 206 if start else 200, self.content(request["name"])[start:], more
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

    def content(self, name):
        """Return the content of a link."""
        if not name.endswith(".zip"):
            return self.files[name]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.removesuffix(".zip"), self.files[name.removesuffix(".zip")])
        return packed.getvalue()

    def DownloadDataFile(self, request):  # noqa: N802
        name = request["fileName"] + ".zip" * (request["fileName"] in self.zipped)
        return 302, {}, {"Location": f"http://storage.local/files/{name}?{SIGNATURE}"}

    def GetSubmissionLimits(self, request):  # noqa: N802
        return 200, self.limits, {}

    def StartSubmissionUpload(self, request):  # noqa: N802
        token = f"blob{len(self.uploads)}"
        return 200, {"token": token, "createUrl": f"http://storage.local/upload/{token}?{SIGNATURE}"}, {}

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


def in_this_process(kaggle, home, monkeypatch, **credentials):
    """Connect the client of this process with the server `kaggle`, with a valid token unless `credentials` are given.

    Returns the list to which the client's pauses are appended, instead of waiting.
    """
    for key in [key for key in os.environ if re.match("KAGGLE|XDG|.*_PROXY$", key.upper())]:
        monkeypatch.delenv(key)
    for key, value in kaggle.environment(home, **(credentials or {"KAGGLE_API_TOKEN": TOKEN})).items():
        monkeypatch.setenv(key, value)
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(client, "TIMEOUT", (1, 0.3))
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "args", ["--local"])  # as if the environment had been set before the import
    monkeypatch.setattr(KaggleApi, "config", str(home / ".kaggle/kaggle.json"))
    kaggle.requests.clear()  # requests of the import
    return pauses
