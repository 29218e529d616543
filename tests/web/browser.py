"""Debian's Chromium without a screen, driven by Playwright, and what tests ask of the dashboard in it."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from engine.wire.test_mark import FrameMark, find_mark

EXECUTABLE = "/usr/bin/chromium-headless-shell"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
LAPTOP, PHONE, WALL = (1440, 900), (390, 844), (3840, 2160)
#: Generous, because other tests run on the same cores.
SECONDS_MAX = 30.0
expect.set_options(timeout=SECONDS_MAX * 1000)
#: Chromium prints these itself when a request fails; no script can prevent it.
_NETWORK = re.compile(r"^Failed to load resource: ")

#: Keeps what the page shows as objects, so that a test can read the bytes of a picture. The page's own policy forbids
#: to fetch them.
_KEEP_BLOBS = """
window.shownBlobs = new Map();
const make = URL.createObjectURL;
URL.createObjectURL = (what) => { const url = make.call(URL, what); window.shownBlobs.set(url, what); return url; };
const revoke = URL.revokeObjectURL;
URL.revokeObjectURL = (url) => { window.shownBlobs.delete(url); revoke.call(URL, url); };
"""
_BYTES = """async (image) => {
  const blob = window.shownBlobs.get(image.src);
  if (!blob) return null;
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}"""


class Dashboard:
    """A page of the dashboard, and the errors that it met."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.set_default_timeout(SECONDS_MAX * 1000)
        page.add_init_script(_KEEP_BLOBS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(f"{error}"))
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _NETWORK.match(message.text):
            self.errors.append(message.text)

    def open(self, view: str = "") -> None:
        """``""``, ``camera/NAME``, ``system``, ``tenants`` or ``alerts``."""
        self.page.goto(f"{self.url}/#/{view}")

    def open_camera(self, camera: str) -> None:
        self.open(f"camera/{quote(camera, safe='')}")

    def tile(self, camera: str) -> Any:
        return self.page.locator(f'.tile[data-camera="{camera}"]')

    def picture(self, selector: str) -> bytes | None:
        """The bytes of the picture that an image shows; None if it shows none of its own."""
        text = self.page.locator(selector).evaluate(_BYTES)
        return base64.b64decode(text) if text else None

    def mark(self, selector: str) -> FrameMark | None:
        """The test mark of the shown picture."""
        picture = self.picture(selector)
        return find_mark(picture) if picture else None


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser, url: str, *, size: tuple[int, int] = LAPTOP, scheme: Literal["dark", "light"] = "dark"
) -> Iterator[Dashboard]:
    """A page in a profile of its own."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    try:
        yield Dashboard(context.new_page(), url)
    finally:
        context.close()
