"""The web page of `make serve`: responses to valid and invalid uploads, and the page in a browser."""

import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import browser as chrome
import numpy as np
import pytest
import skimage.data
import uvicorn
from settings import ROOT
from starlette.testclient import TestClient
from test_pictures import encoded

from pipeline.apps import serve
from pipeline.competition import CLASSES
from pipeline.errors import UserError

ASTRONAUT = skimage.data.astronaut()  # Eileen Collins, in the public domain (NASA)
PORTRAIT = encoded(ASTRONAUT, "JPEG")


@pytest.fixture(scope="module")
def predictor():
    """The predictor of the page, with attention maps of the whole face, which need no Keras."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        predictor = serve.Predictor()
    predictor.explaining = SimpleNamespace(attention=lambda faces, classes: np.ones((len(classes), 48, 48)))
    return predictor


@pytest.fixture
def client(predictor):
    return TestClient(serve.application(predictor), base_url="http://127.0.0.1", raise_server_exceptions=False)


def test_the_response_contains_boxes_probabilities_and_on_request_attention_maps(client):
    response = client.post("/predict", content=PORTRAIT)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    (face,) = response.json()["faces"]
    assert (response.json()["width"], face["label"], "heat" in face) == (512, "happy", False)
    assert face["box"] == pytest.approx([175, 64, 101], abs=6)
    assert list(face["probabilities"]) == list(CLASSES)
    (face,) = client.post("/predict?explain=1", content=iter([PORTRAIT])).json()["faces"]  # without a stated length
    assert face["heat"].startswith("data:image/png;base64,")
    assert client.post("/predict?explain=1", content=encoded(np.zeros((99, 99), "uint8"))).json()["faces"] == []


def test_a_damaged_or_too_large_upload_gives_an_error_message(client):
    unknown_length = iter([bytes(1_000_000)] * 11)
    for content, status in ((PORTRAIT[:1000], 422), (bytes(10_000_001), 413), (unknown_length, 413)):
        response = client.post("/predict", content=content)
        assert (response.status_code, len(response.json()["error"].splitlines())) == (status, 1)
    assert client.post("/predict", files={"file": PORTRAIT}).status_code == 415


def test_other_hosts_and_paths_are_refused_and_the_page_has_no_external_resources(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "http" not in page.text.replace('http-equiv="', "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.post("/predict", content=b"", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert [client.get("/predict").status_code, client.get("/etc/passwd").status_code] == [405, 404]


def test_a_port_in_use_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as used, pytest.raises(UserError, match=str(used.getsockname()[1])):
        serve.main(*used.getsockname())


def test_the_process_prints_its_address_and_stops_at_ctrl_c_even_during_an_upload():
    words = [sys.executable, "-m", "pipeline", "serve", "--port", "0"]
    reset = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # nohup ignores SIGINT
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=reset) as server, socket.socket() as upload:  # fmt: skip
        address = server.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        upload.connect(("127.0.0.1", int(address.strip("/").rpartition(":")[2])))
        upload.settimeout(60)
        more = b"Content-Length: 1000000\r\nExpect: 100-continue"
        upload.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n\r\n" % more)
        assert upload.recv(100).startswith(b"HTTP/1.1 100"), "the upload has begun"
        server.send_signal(signal.SIGINT)
        try:
            _, errors = server.communicate(timeout=60)
        finally:
            server.kill()
    assert (server.returncode, "Traceback" in errors) == (0, False), errors


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 400), ("0.0.0.0", 200)])
def test_other_host_names_are_accepted_only_if_other_machines_are_admitted(predictor, monkeypatch, host, status):
    monkeypatch.setattr(serve, "Predictor", lambda: predictor)
    monkeypatch.setattr(uvicorn, "Server", server := Mock())
    serve.main(host, 0)
    assert TestClient(server.call_args.args[0].app, base_url="http://other.example").get("/").status_code == status


@pytest.fixture(scope="module")
def page(predictor, tmp_path_factory):
    """The page of a running server in Chromium, with the portrait as the picture of its camera."""
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film.write_bytes(20 * encoded(ASTRONAUT[:360], "JPEG"))
    camera = ("use-fake-ui-for-media-stream", "use-fake-device-for-media-stream")
    server = uvicorn.Server(uvicorn.Config(serve.application(predictor), log_level="warning"))
    with (socket.create_server(("127.0.0.1", 0)) as listening,
          chrome.started(*camera, f"use-file-for-fake-video-capture={film}") as window):  # fmt: skip
        threading.Thread(target=server.run, args=([listening],), daemon=True).start()
        window.get(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        yield window
        server.should_exit = True


def wait(page, condition):
    """Wait for a condition, or for a text in the page's status."""
    from selenium.webdriver.support.ui import WebDriverWait

    met = condition if callable(condition) else lambda _: condition in page.find_element("id", "status").text
    WebDriverWait(page, 60).until(met)  # seconds on a busy machine


def titles(page):
    """Return the titles of all faces in one step, because camera frames replace them all the time."""
    return page.execute_script("return [...document.querySelectorAll('#faces h2')].map(title => title.textContent)")


def test_the_page_shows_the_face_and_its_probabilities(page, tmp_path):
    (tmp_path / "portrait.jpg").write_bytes(PORTRAIT)
    page.find_element("id", "file").send_keys(str(tmp_path / "portrait.jpg"))
    wait(page, "1 face found")
    assert titles(page) == ["happy"]
    assert len(page.find_elements("css selector", "#faces .bar")) == 7
    assert [chrome.width(page, width) for width in (390, 1280)] == [390, 1280]
    painted = "const c = canvas; return [...c.getContext('2d').getImageData(c.width*.44, c.height*.22, 1, 1).data]"
    before = page.execute_script(painted)
    page.find_element("id", "explain").click()
    wait(page, lambda _: page.execute_script(painted) != before)  # the attention map covers the face
    (tmp_path / "text.png").write_text("no picture")
    page.find_element("id", "file").send_keys(str(tmp_path / "text.png"))
    wait(page, "cannot be used")
    assert titles(page) == []


def test_the_page_predicts_camera_frames_until_the_camera_is_stopped(page):
    page.refresh()
    page.find_element("id", "camera").click()
    wait(page, "1 face found")
    assert titles(page) == ["happy"]
    page.find_element("id", "camera").click()
    assert page.find_element("id", "camera").text == "Use the camera"
    errors = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in errors if "422" not in message]
