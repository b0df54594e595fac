"""Name the expressions in pictures on a web page that this machine alone can open: nothing is sent on, nothing is kept.

Reads the released network. A picture is the body of `POST /predict`; `?explain=1` adds where the network looks.
"""

import asyncio
import base64
import contextlib
import io
import socket
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.apps import annotate, detect, predict, sources
from pipeline.competition import CLASSES
from pipeline.errors import UserError

try:
    import uvicorn
    from anyio import CapacityLimiter, to_thread
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as missing:
    raise UserError(f"{missing}; the web page needs: .venv/bin/python -m pip install -e '.[serve]'") from None

PAGE = Path(__file__).with_name("serve.html")
LARGEST = 10_000_000  # bytes of an upload
LOOPBACK = ("127.0.0.1", "localhost")
HEAT = (256, 256)  # pixels of the picture that is laid over a face
HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src blob:; connect-src 'self'; frame-ancestors 'none'",
}  # fmt: skip


class Judge:
    """Answers for one picture after the other; Keras starts when the first is explained."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.detector = detect.Detector()
        self.network = predict.load(predict.RELEASED, explain=False)

    @cached_property
    def explaining(self) -> Any:
        """The same network in Keras, which can tell where it looks."""
        return predict.load(predict.RELEASED, explain=True)

    def answer(self, content: bytes, explain: bool) -> dict[str, Any]:
        """What is in a picture file: its size, and every face. Raises UserError for what is no picture."""
        with self.turn:
            picture = sources.Picture(sources.read(io.BytesIO(content)))
            seen = predict.look(sources.Source(Path(), Path(), "picture"), picture, self.detector, None)
            rows = self.network.probabilities(seen.faces)
            heat = self.explaining.attention(seen.faces, rows.argmax(axis=1)) if explain and len(rows) else []
        faces: list[dict[str, Any]] = [
            {"box": box, "label": CLASSES[int(np.argmax(row))], "probabilities": dict(zip(CLASSES, row, strict=True))}
            for box, row in zip(seen.boxes.tolist(), rows.tolist(), strict=True)
        ]
        for face, values in zip(faces, heat, strict=False):
            face["heat"] = _inline(annotate.glow(values, HEAT))
        return {"width": picture.pixels.shape[1], "height": picture.pixels.shape[0], "faces": faces}


def _inline(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


async def upload(request: Request) -> bytes:
    """The body of a request, in memory alone. HTTPException where it is larger than LARGEST, or the server ends."""
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > LARGEST:
                raise HTTPException(413, f"The picture is larger than {LARGEST // 1_000_000} MB.")
    except asyncio.CancelledError:
        raise HTTPException(503, "The server ends.") from None
    return bytes(content)


async def refuse(_: Request, trouble: Exception) -> Response:
    """One sentence, and the status that goes with it."""
    status, text = (trouble.status_code, trouble.detail) if isinstance(trouble, HTTPException) else (422, str(trouble))
    return JSONResponse({"error": text}, status, HEADERS)


def application(judge: Judge, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """The server: the page and what it asks.

    Parameters
    ----------
    hosts : by which names it may be called, so that no other site's page can speak to it under a name of its own.
    """
    one = CapacityLimiter(1)  # thread: pictures that are unpacked side by side would fill the memory

    def page(_: Request) -> Response:
        return Response(PAGE.read_bytes(), headers=HEADERS, media_type="text/html")

    async def predicted(request: Request) -> Response:
        content, explain = await upload(request), request.query_params.get("explain") == "1"
        return JSONResponse(await to_thread.run_sync(judge.answer, content, explain, limiter=one), headers=HEADERS)

    return Starlette(
        routes=[Route("/", page), Route("/predict", predicted, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={HTTPException: refuse, UserError: refuse, ClientDisconnect: refuse},
    )


def main(host: str, port: int) -> None:
    """Run the command."""
    try:
        listening = socket.create_server((host, port))
    except OSError as trouble:
        raise UserError(f"port {port} of {host} cannot be used ({trouble.strerror}); name another: PORT=...") from None
    with listening, contextlib.suppress(KeyboardInterrupt):
        served = application(Judge(), LOOPBACK if host in LOOPBACK else ("*",))
        print(f"http://{host}:{listening.getsockname()[1]}/ (Ctrl-C stops)", flush=True)
        uvicorn.Server(
            uvicorn.Config(served, log_level="warning", server_header=False, timeout_graceful_shutdown=1)
        ).run([listening])
