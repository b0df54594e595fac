"""Headless browser for tests of pages: Debian's packages chromium and chromium-driver."""

import contextlib
import shutil

import pytest


@contextlib.contextmanager
def started(*words):
    """Start a browser that records its console; skip the test where none is installed."""
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
    try:
        yield window
    finally:
        window.quit()


@pytest.fixture
def chromium():
    with started() as window:
        yield window


def width(window, wanted):
    """Return the width of a page in a window of the `wanted` width; it is larger only if something overflows."""
    metrics = {"width": wanted, "height": 900, "deviceScaleFactor": 1, "mobile": wanted < 500}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return window.execute_script("return document.documentElement.scrollWidth")
