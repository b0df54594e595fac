"""The web page of `make serve`: what it answers to right and wrong uploads, and how a browser shows it."""

import io
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import browser as chrome
import numpy as np
import pytest
import skimage.data
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from pipeline.apps import serve
from pipeline.competition import CLASSES

ROOT = Path(__file__).parent.parent
LIMIT = 60  # seconds that a busy machine may take for a page


def encoded(pixels, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


ASTRONAUT = skimage.data.astronaut()  # Eileen Collins, in the public domain (NASA)
PORTRAIT = encoded(ASTRONAUT, "JPEG")


class Explaining:
    """Looks at the middle of every face, without Keras."""

    def attention(self, faces, classes):
        assert len(faces) == len(classes)
        return np.pad(np.ones((len(faces), 24, 24)), ((0, 0), (12, 12), (12, 12)))


@pytest.fixture(scope="module")
def judge():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        found = serve.Judge()
        found.explaining = Explaining()
        yield found


@pytest.fixture
def client(judge):
    return TestClient(serve.application(judge), base_url="http://127.0.0.1", raise_server_exceptions=False)


def test_a_picture_is_answered_with_boxes_probabilities_and_heat_where_asked(client):
    answer = client.post("/predict", content=PORTRAIT)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    (face,) = answer.json()["faces"]
    assert (answer.json()["width"], face["label"], "heat" in face) == (512, "happy", False)
    assert face["box"] == pytest.approx([175, 64, 101], abs=6)
    assert list(face["probabilities"]) == list(CLASSES)
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    (face,) = client.post("/predict?explain=1", content=PORTRAIT).json()["faces"]
    assert face["heat"].startswith("data:image/png;base64,")
    assert client.post("/predict?explain=1", content=encoded(np.zeros((99, 99), "uint8"))).json()["faces"] == []


@pytest.mark.parametrize(("content", "status"), [
    (b"", 422), (b"no picture", 422), (PORTRAIT[:1000], 422), (b"%!PS-Adobe-3.0 EPSF-3.0\n", 422),
    (bytes(serve.LARGEST + 1), 413),
])  # fmt: skip
def test_a_wrong_upload_is_answered_by_one_sentence(client, content, status):
    answer = client.post("/predict", content=content)
    assert answer.status_code == status
    assert len(answer.json()["error"].splitlines()) == 1
    assert "Traceback" not in answer.text


def test_a_body_of_unknown_length_is_not_read_beyond_the_bound(client):
    parts = (bytes(1_000_000) for _ in range(100))
    assert client.post("/predict", content=parts).status_code == 413


def test_other_names_and_paths_are_refused_and_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "http" not in page.text.replace('http-equiv="', "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert [client.get("/predict").status_code, client.get("/etc/passwd").status_code] == [405, 404]


def test_a_port_that_is_taken_is_an_error_and_only_this_machine_is_let_in():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [sys.executable, "-m", "pipeline", "serve", "--port", str(port)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, f"port {port}" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


@pytest.mark.parametrize("uploading", [False, True])
def test_as_a_process_it_says_where_it_is_and_ends_at_ctrl_c_during_an_upload_too(uploading):
    words = [sys.executable, "-m", "pipeline", "serve", "--port", "0"]
    as_usual = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # nohup ignores it
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=as_usual) as server, socket.socket() as upload:  # fmt: skip
        address = server.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        upload.connect(("127.0.0.1", int(address.strip("/").rpartition(":")[2])))
        if uploading:
            upload.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nx")
        time.sleep(0.5)
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "Traceback" not in errors if uploading else errors == ""


@pytest.fixture(scope="module")
def address(judge):
    """Of a running server."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(serve.application(judge), log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium, whose camera sees the portrait."""
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film.write_bytes(20 * encoded(ASTRONAUT[:360], "JPEG"))
    with chrome.started("use-fake-ui-for-media-stream", "use-fake-device-for-media-stream",
                        f"use-file-for-fake-video-capture={film}") as window:  # fmt: skip
        yield window


@pytest.fixture
def page(driver, address):
    driver.get(address)
    return driver


def waited(page, right):
    """Wait until the page's status has a text, or until something is right."""
    from selenium.webdriver.support.ui import WebDriverWait

    found = right if callable(right) else lambda: right in page.find_element("id", "status").text
    WebDriverWait(page, LIMIT).until(lambda _: found())


def titles(page):
    return [title.text for title in page.find_elements("css selector", "#faces h2")]


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_a_picture_is_shown_with_its_face(page, tmp_path, width):
    assert chrome.width(page, width) == width
    (tmp_path / "portrait.jpg").write_bytes(PORTRAIT)
    page.find_element("id", "file").send_keys(str(tmp_path / "portrait.jpg"))
    waited(page, "1 face found")
    assert titles(page) == ["happy"]
    assert len(page.find_elements("css selector", "#faces .bar")) == 7
    assert chrome.width(page, width) == width
    painted = "const c = canvas; return [...c.getContext('2d').getImageData(c.width*.44, c.height*.22, 1, 1).data]"
    before = page.execute_script(painted)
    page.find_element("id", "explain").click()
    waited(page, lambda: page.execute_script(painted) != before)  # the heat lies over the face
    (tmp_path / "text.png").write_text("no picture")
    page.find_element("id", "file").send_keys(str(tmp_path / "text.png"))
    waited(page, "cannot be used")
    assert titles(page) == []


def test_in_a_browser_the_camera_is_watched_until_it_is_stopped(page):
    page.find_element("id", "camera").click()
    waited(page, "1 face found")
    assert titles(page) == ["happy"]
    page.find_element("id", "camera").click()
    assert page.find_element("id", "camera").text == "Use the camera"
    assert not [
        entry for entry in page.get_log("browser") if entry["level"] == "SEVERE" and "422" not in entry["message"]
    ]


def test_pictures_are_unpacked_one_at_a_time(judge, monkeypatch):
    at_once, most = [0], []

    def answer(self, content, explain):
        at_once[0] += 1
        most.append(at_once[0])
        time.sleep(0.1)
        at_once[0] -= 1
        return {}

    monkeypatch.setattr(serve.Judge, "answer", answer)
    with TestClient(serve.application(judge), base_url="http://127.0.0.1") as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(client.post, ["/predict"] * 4))
    assert most == [1, 1, 1, 1]
