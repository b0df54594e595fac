"""Local web page that predicts expressions in pictures. By default, only this machine can open it. Stores nothing.

Reads the released network. The body of `POST /predict` is a picture; `?explain=1` adds Grad-CAM maps.
"""

import asyncio
import base64
import contextlib
import io
import socket
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

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
    raise UserError(f"{missing}; install the web server: .venv/bin/python -m pip install -e '.[serve]'") from None

PAGE = Path(__file__).with_name("serve.html")
LARGEST = 10_000_000  # bytes of an upload
LOOPBACK = ("127.0.0.1", "localhost")
HEAT = (256, 256)  # pixels of the overlay for a face
HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src blob:; connect-src 'self'; frame-ancestors 'none'",
}  # fmt: skip


class Predictor:
    """Predictor for one picture at a time, in one thread; Keras starts with the first explanation."""

    def __init__(self) -> None:
        self.detector = detect.Detector()
        self.network = predict.load(predict.RELEASED, explain=False)

    @cached_property
    def explaining(self) -> Any:
        """The same network in Keras, for attention maps."""
        return predict.load(predict.RELEASED, explain=True)

    def predict(self, content: bytes, explain: bool) -> dict[str, Any]:
        """Return the size and all faces of a picture file. Raises UserError if the content is not a picture."""
        pixels = sources.read(io.BytesIO(content))
        boxes, crops = detect.faces(pixels, self.detector, None)
        rows = self.network.probabilities(crops)
        heat = self.explaining.attention(crops, rows.argmax(axis=1)) if explain and len(rows) else []
        faces: list[dict[str, Any]] = [
            {"box": box, "label": CLASSES[int(np.argmax(row))], "probabilities": dict(zip(CLASSES, row, strict=True))}
            for box, row in zip(boxes.tolist(), rows.tolist(), strict=True)
        ]
        for face, values in zip(faces, heat, strict=False):
            annotate.glow(values, HEAT).save(png := io.BytesIO(), "PNG")
            face["heat"] = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        return {"width": pixels.shape[1], "height": pixels.shape[0], "faces": faces}


async def upload(request: Request) -> bytes:
    """Return the body of a request. Raises HTTPException if it exceeds LARGEST, or the server stops."""
    if request.headers.get("Content-Type", "").lower().startswith("multipart/"):
        raise HTTPException(415, "Send the picture alone, not a form: curl --data-binary @face.jpg ADDRESS")
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > LARGEST:
                raise HTTPException(413, f"The picture is larger than {LARGEST // 1_000_000} MB.")
        return bytes(content)
    except asyncio.CancelledError:
        raise HTTPException(503, "The server is stopping.") from None


async def refuse(_: Request, error: Exception) -> Response:
    """Return the status and message of an error as JSON."""
    status, text = (error.status_code, error.detail) if isinstance(error, HTTPException) else (422, str(error))
    return JSONResponse({"error": text}, status, HEADERS)


def application(predictor: Predictor, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """Build the server of the page and its predictions.

    Parameters
    ----------
    hosts : accepted host names; others are refused, against DNS rebinding by other sites.
    """
    limiter = CapacityLimiter(1)  # one thread: pictures decoded in parallel could fill the memory

    def page(_: Request) -> Response:
        return Response(PAGE.read_bytes(), headers=HEADERS, media_type="text/html")

    async def predicted(request: Request) -> Response:
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise HTTPException(403, "Requests of other sites are refused.")
        content, explain = await upload(request), request.query_params.get("explain") == "1"
        found = await to_thread.run_sync(predictor.predict, content, explain, limiter=limiter)
        return JSONResponse(found, headers=HEADERS)

    return Starlette(
        routes=[Route("/", page), Route("/predict", predicted, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={HTTPException: refuse, UserError: refuse, ClientDisconnect: refuse},
    )


def main(host: str, port: int) -> None:
    """Run the command."""
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be used ({error.strerror}); choose another: PORT=...") from None
    with listening, contextlib.suppress(KeyboardInterrupt):
        served = application(Predictor(), LOOPBACK if host in LOOPBACK else ("*",))
        print(f"http://{host}:{listening.getsockname()[1]}/ (Ctrl-C stops)", flush=True)
        settings = uvicorn.Config(served, log_level="warning", server_header=False, timeout_graceful_shutdown=1)
        uvicorn.Server(settings).run([listening])
