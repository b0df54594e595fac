"""A Kaggle on this machine, for the real client: the calls that the pipeline makes, and every way they can fail.

The client speaks to it unmodified: KAGGLE_API_ENVIRONMENT=LOCALHOST lets it call http://localhost, and http_proxy leads
everything to the port where this listens. What a test wants to go wrong it puts into `script`.
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
class Trouble:
    """How a request fails: with a status (and words or headers), a cut connection, silence, or another content."""

    status: int = 0
    words: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  # in the middle of a file, or before any answer
    silent: bool = False  # until the client gives up
    content: bytes | None = None  # instead of the file, or of the answer
    happens: bool = False  # the request does its work all the same, only its answer is lost


class Server:
    """What Kaggle knows, what it was asked, and what will go wrong."""

    def __init__(self, slug):
        self.slug, self.files = slug, dict[str, bytes]()
        self.zipped = set()
        self.requests = []
        self.script = {}
        self.submissions = []
        self.uploads = {}
        self.verdicts = itertools.repeat({"status": "PENDING"})
        self.limits = {"numToday": 0, "numTotal": 3, "numAllowedNow": 2}
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                server.answer(self)

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
        """The environment of a command whose Kaggle this is."""
        here = f"http://127.0.0.1:{self.http.server_port}"
        clean = {key: value for key, value in os.environ.items() if not re.match("KAGGLE|XDG|.*_PROXY$", key.upper())}
        kaggle = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": here, "https_proxy": here}
        return clean | kaggle | {"HOME": str(home)} | credentials

    def answer(self, handler):
        """Answer one request."""
        path = re.sub(r"^https?://[^/]+", "", handler.path)
        name = path.split("?")[0].rpartition("/")[2]
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        operation = name if handler.command == "POST" else handler.command
        asked = json.loads(body) if handler.command == "POST" else {"name": name, "body": body, "path": path}
        self.requests.append(f"{operation} {asked.get('fileName') or (name if operation == 'GET' else '')}".strip())
        trouble = next(self.script.get(operation, iter(())), None) or Trouble()
        status, reply, headers = 0, b"", {}
        unanswered = trouble.silent or (trouble.cut and operation != "GET")
        if trouble.happens or not (trouble.status or unanswered or trouble.content is not None):
            status, reply, headers = self.work(operation, asked, handler.headers)
        if trouble.silent:
            self.released.wait(20)
        handler.close_connection = trouble.cut or trouble.silent
        if unanswered:
            return
        if trouble.content is not None:
            kind = {"Content-Type": "application/octet-stream"} if operation == "GET" else {}
            status, reply, headers = trouble.status or 200, trouble.content, kind | trouble.headers
        elif trouble.status:
            status, headers = trouble.status, trouble.headers
            reply = json.dumps({"code": status, "message": trouble.words}).encode()
        handler.send_response(status)
        for key, value in ({"Content-Type": "application/json", "Content-Length": str(len(reply))} | headers).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(reply[: len(reply) // 2] if trouble.cut else reply)

    def work(self, operation, asked, headers):
        """What the call does and gives back: status, body, headers."""
        basic = base64.b64encode(f"someone:{KEY}".encode()).decode()
        status, reply, more = 200, {}, {}
        if operation == "GET":
            start = int(headers.get("Range", "bytes=0-")[6:-1])
            more = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
            return 206 if start else 200, self.content(asked["name"])[start:], more
        if operation == "PUT":
            assert SIGNATURE in asked["path"]
            self.uploads[asked["name"]] = asked["body"]
        elif operation == "IntrospectToken":
            reply = {"active": asked["token"] == TOKEN, "username": "someone" if asked["token"] == TOKEN else ""}
        elif headers.get("Authorization") not in (f"Bearer {TOKEN}", f"Basic {basic}"):
            status, reply = 401, {"code": 401, "message": "Unauthenticated"}
        elif asked["competitionName"] != self.slug:
            status, reply = 403, {"code": 403, "message": "Permission 'competitions.get' was denied"}
        else:
            status, reply, more = getattr(self, operation)(asked)
        return status, json.dumps(reply).encode(), more

    def content(self, name):
        """What a link gives."""
        if not name.endswith(".zip"):
            return self.files[name]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.removesuffix(".zip"), self.files[name.removesuffix(".zip")])
        return packed.getvalue()

    def DownloadDataFile(self, asked):  # noqa: N802
        name = asked["fileName"]
        if name not in self.files:
            return 404, {"code": 404, "message": "Not found"}, {}
        name += ".zip" if name in self.zipped else ""
        return 302, {}, {"Location": f"http://storage.local/files/{name}?{SIGNATURE}"}

    def GetSubmissionLimits(self, asked):  # noqa: N802
        return 200, self.limits, {}

    def StartSubmissionUpload(self, asked):  # noqa: N802
        token = f"blob{len(self.uploads)}"
        return 200, {"token": token, "createUrl": f"http://storage.local/upload/{token}?{SIGNATURE}"}, {}

    def CreateSubmission(self, asked):  # noqa: N802
        ref = 1001 + len(self.submissions)
        self.submissions.insert(0, {
            "ref": ref, "date": "2026-11-23T08:00:00.000Z", "description": asked["submissionDescription"],
            "fileName": "ensemble.csv", "status": "PENDING", "bytes": self.uploads[asked["blobFileTokens"]],
        })  # fmt: skip
        return 200, {"message": "Successfully submitted", "ref": ref}, {}

    def ListSubmissions(self, asked):  # noqa: N802
        for each in self.submissions:
            if each["status"] == "PENDING":
                each |= next(self.verdicts)
        shown = [{key: value for key, value in each.items() if key != "bytes"} for each in self.submissions]
        start = 20 * (asked["page"] - 1)  # however many on a page are asked for
        return 200, {"submissions": shown[start : start + 20], "nextPageToken": ""}, {}


def in_this_process(kaggle, home, monkeypatch, **credentials):
    """Let the client in this process speak to `kaggle`, by the good token or by other credentials.

    Returns
    -------
    Its pauses, which are noted instead of waited for.
    """
    for key in [key for key in os.environ if re.match("KAGGLE|XDG|.*_PROXY$", key.upper())]:
        monkeypatch.delenv(key)
    for key, value in kaggle.environment(home, **(credentials or {"KAGGLE_API_TOKEN": TOKEN})).items():
        monkeypatch.setenv(key, value)
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(client, "TIMEOUT", (1, 0.3))
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "args", ["--local"])  # as the environment would have it had it been set before
    monkeypatch.setattr(KaggleApi, "config", str(home / ".kaggle/kaggle.json"))
    kaggle.requests.clear()  # of that import
    return pauses
