"""Pages as a browser without a screen shows them: Debian's packages chromium and chromium-driver."""

import contextlib
import shutil

import pytest


@contextlib.contextmanager
def started(*words):
    """A browser that notes what its console says; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    usual = ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "hide-scrollbars")
    for word in (*usual, *words):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture
def chromium():
    with started() as window:
        yield window


def width(window, wanted):
    """How many pixels wide a page is in a window so wide: no more, unless something sticks out."""
    metrics = {"width": wanted, "height": 900, "deviceScaleFactor": 1, "mobile": wanted < 500}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return window.execute_script("return document.documentElement.scrollWidth")
