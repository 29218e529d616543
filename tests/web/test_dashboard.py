"""The dashboard of a running site in a real browser."""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect

from engine.cli.demo_site import CLIP
from engine.wire.test_mark import FrameMark
from tests.servers.mjpeg_http import MjpegCamera
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site
from tests.web.browser import LAPTOP, PHONE, WALL, Dashboard, chromium, opened

JPEG, FILM, GATE, HOSTILE = "dock", "yard", "gate", "<img src=x onerror=alert(1)>"
FPS = 10
#: What the issue promises is 5 s; a machine full of tests gets more.
TURN_SECONDS_MAX = 15.0
WAIT_SECONDS = 30.0
VIEWS = ["", f"camera/{JPEG}", "system", "tenants", "alerts"]


class Running(NamedTuple):
    site: Site
    gate: MjpegCamera
    url: str


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    directory = Path(tempfile.mkdtemp(prefix="ev-"))
    picture = cv2.imencode(".jpg", np.full((180, 320, 3), 90, np.uint8))[1].tobytes()
    site, port = Site(directory / "run", warm=True), free_port()
    with RedisServer(directory / "redis") as server, MjpegCamera([picture], fps=FPS) as gate:
        cameras = [
            {"id": JPEG, "name": "Loading dock", "url": f"test://?size=640x360&kb=20&fps={FPS}"},
            {"id": FILM, "name": "Yard", "url": str(CLIP), "loop": True, "video": True, "decode": "key"},
            {"id": GATE, "url": gate.url},
            {"id": HOSTILE, "name": "<b>bold</b>", "url": "test://?size=320x180&kb=8&fps=5"},
        ]
        redis = {"address": server.address, "ttl_seconds": 300}
        site.write(cameras=cameras, redis=redis, web={"listen": f"127.0.0.1:{port}"})
        try:
            site.start()
            wait_until(lambda: all(one["stored"] for one in site.status()["cameras"]), 60, "stored", log=site.log_text)
            yield Running(site, gate, f"http://127.0.0.1:{port}")
        finally:
            site.end()
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def dashboard(running: Running, browser: Browser) -> Iterator[Dashboard]:
    """A page on a laptop's screen. After the test, no script of it has failed."""
    with opened(browser, running.url) as page:
        yield page
        assert not page.errors


def test_the_pictures_of_the_wall_move(dashboard: Dashboard) -> None:
    dashboard.open()
    for camera in (JPEG, GATE, FILM):
        expect(dashboard.tile(camera).locator(".mark")).to_have_text("active")
    image = f'.tile[data-camera="{JPEG}"] img'
    first = wait_until(lambda: dashboard.picture(image), WAIT_SECONDS, "a picture")
    second = wait_until(
        lambda: (found := dashboard.picture(image)) and found != first and found, WAIT_SECONDS, "another picture"
    )
    before, after = (cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) for one in (first, second))
    assert before.shape == after.shape
    expect(dashboard.tile(JPEG).locator(".figures")).to_contain_text(" fps · ")


def test_a_killed_camera_turns_red_and_comes_back(running: Running, dashboard: Dashboard) -> None:
    dashboard.open()
    tile, mark = dashboard.tile(GATE), dashboard.tile(GATE).locator(".mark")
    expect(mark).to_have_text("active")
    running.gate.mode = "refuse"
    try:
        expect(mark).to_have_text("offline", timeout=TURN_SECONDS_MAX * 1000)
        colour = mark.evaluate("(element) => getComputedStyle(element).color.match(/\\d+/g).map(Number)")
        assert colour[0] > 200
        assert colour[0] - max(colour[1:]) > 80, "red"
        assert dashboard.page.locator(".tile").first.get_attribute("data-camera") == GATE, "problems stand first"
        expect(dashboard.page.locator("#totals")).to_contain_text("3 of 4")
        expect(dashboard.page.locator("#announcer")).to_contain_text(GATE)
    finally:
        running.gate.mode = "normal"
    expect(mark).to_have_text("active")
    expect(dashboard.page.locator("#totals")).to_contain_text("4 of 4")
    expect(tile.locator("img")).to_be_visible()


def test_a_killed_capture_process_is_seen_and_comes_back(running: Running, dashboard: Dashboard) -> None:
    dashboard.open("system")
    row = dashboard.page.locator("tr", has=dashboard.page.get_by_role("rowheader", name=f"capture {JPEG}", exact=True))
    before = row.locator("td").nth(1).inner_text()
    running.site.kill("capture", JPEG)
    expect(row.locator("td").nth(1)).not_to_have_text(before)
    expect(row.locator("td").nth(0)).to_have_text("runs")


def test_the_time_line_shows_the_frame_of_the_chosen_time(running: Running, dashboard: Dashboard) -> None:
    """While it is dragged, and by keyboard; and frame by frame from there."""
    dashboard.open_camera(JPEG)
    page, slider = dashboard.page, dashboard.page.get_by_role("slider", name="Time")
    expect(slider).to_have_attribute("aria-valuetext", "live")
    wait_until(lambda: running.site.camera(JPEG)["stored"] > 8 * FPS, WAIT_SECONDS, "frames of some seconds")
    box = slider.bounding_box()
    assert box
    # The line ends at the newest time: a little left of it there are frames.
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 20, steps=5)
    shown = shows(dashboard, stored_at(running, JPEG, slider))
    assert shown.camera == JPEG
    text = page.locator(".screen .shown")
    expect(text).to_have_text(milliseconds(page, shown.unix_nano))
    page.get_by_role("button", name="Pause").evaluate("(button) => button.click()")
    page.mouse.up()
    settled = shows(dashboard, shown.frame)

    for key, by in ((",", -1), (".", 1), (".", 1)):
        page.keyboard.press(key)
        settled = shows(dashboard, settled.frame + by)
        expect(text).to_have_text(milliseconds(page, settled.unix_nano))

    slider.focus()
    page.keyboard.press("ArrowLeft")
    earlier = shows(dashboard, stored_at(running, JPEG, slider))
    assert earlier.frame < settled.frame
    page.keyboard.press("l")
    expect(page.locator(".screen .kind")).to_have_text("live")
    expect(slider).to_have_attribute("aria-valuetext", "live")


def stored_at(running: Running, camera: str, slider: Locator) -> int:
    """The number of the newest frame that is stored at or before the time that the slider shows."""
    nano = round(float(slider.get_attribute("data-ms") or 0) * 1000) * 1000
    with urllib.request.urlopen(f"{running.url}/api/v1/cameras/{camera}/at.jpg?time={nano}", timeout=20) as answer:
        return int(answer.headers["X-Frame-Sequence"])


def shows(dashboard: Dashboard, frame: int) -> FrameMark:
    """Waits until the picture is this frame; its mark."""
    return wait_until(
        lambda: (found := dashboard.mark(".screen img")) and found.frame == frame and found, WAIT_SECONDS, f"{frame}"
    )


def milliseconds(page: Page, nano: int) -> str:
    """The browser's local time of day, to the millisecond."""
    text: str = page.evaluate("(ms) => new Date(ms).toTimeString().slice(0, 8)", nano // 1_000_000)
    return f"{text}.{nano // 1_000_000 % 1000:03d}"


def test_recorded_jpegs_play(running: Running, dashboard: Dashboard) -> None:
    dashboard.open_camera(JPEG)
    wait_until(lambda: running.site.camera(JPEG)["stored"] > 16 * FPS, WAIT_SECONDS, "frames of some seconds")
    slider = dashboard.page.get_by_role("slider", name="Time")
    box = slider.bounding_box()
    assert box
    dashboard.page.mouse.click(box["x"] + box["width"] * 0.78, box["y"] + 20)
    numbers = []
    for _ in range(3):
        numbers.append(
            wait_until(
                lambda: (found := dashboard.mark(".screen img")) and found.frame not in numbers and found.frame,
                WAIT_SECONDS,
                "the next frame",
            )
        )
    assert numbers == sorted(numbers)
    expect(dashboard.page.locator(".screen .kind")).to_have_text("recorded")


def test_h264_plays_live_and_recorded(running: Running, dashboard: Dashboard) -> None:
    wait_until(lambda: running.site.camera(FILM)["video"]["stored"] > 16 * 15, WAIT_SECONDS, "some seconds of video")
    dashboard.open_camera(FILM)
    page, video = dashboard.page, dashboard.page.locator(".screen video")
    expect(video).to_be_visible()
    assert moves(dashboard) > 0
    slider = page.get_by_role("slider", name="Time")
    box = slider.bounding_box()
    assert box
    with page.expect_response("**/video.mp4?**") as answered:
        page.mouse.click(box["x"] + box["width"] * 0.78, box["y"] + 20)
    # The film begins with the key frame before; the page shows it from the chosen time on.
    chosen = int(parse_qs(urlsplit(answered.value.url).query)["start"][0])
    first = int(answered.value.headers["x-video-start-nano"])
    assert first <= chosen
    expect(page.locator(".screen .kind")).to_have_text("recorded")
    expect(video).to_be_visible()
    assert moves(dashboard) > 0
    assert video.evaluate("(video) => video.videoWidth") == 1280
    shown = first / 1e9 + video.evaluate("(video) => video.currentTime")
    assert chosen / 1e9 - 0.1 < shown < chosen / 1e9 + WAIT_SECONDS
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert video.evaluate("(video) => video.paused")


def moves(dashboard: Dashboard) -> float:
    """Waits until the video's time has gone on for half a second; by how much."""
    video = dashboard.page.locator(".screen video")
    wait_until(lambda: video.evaluate("(video) => video.currentTime > 0 && !video.paused"), WAIT_SECONDS, "it plays")
    first = video.evaluate("(video) => video.currentTime")
    return wait_until(
        lambda: (now := video.evaluate("(video) => video.currentTime")) > first + 0.5 and now - first,
        WAIT_SECONDS,
        "the video's time goes on",
    )


def test_a_codec_that_no_browser_plays_is_said_plainly(running: Running, dashboard: Dashboard) -> None:
    """As with H.265 in Debian's Chromium: the page shows JPEGs instead."""
    dashboard.page.add_init_script("MediaSource.isTypeSupported = () => false;")
    dashboard.open_camera(FILM)
    expect(dashboard.page.locator(".controls .note")).to_contain_text("cannot play")
    expect(dashboard.page.locator(".controls .note")).to_contain_text("key frames")
    image = dashboard.page.locator(".screen img")
    expect(image).to_be_visible()
    wait_until(lambda: image.evaluate("(image) => image.naturalWidth"), WAIT_SECONDS, "a picture")


def test_hostile_names_are_text(dashboard: Dashboard) -> None:
    dashboard.open()
    expect(dashboard.page.locator(".tile .title", has_text="<b>bold</b>")).to_be_visible()
    dashboard.page.locator(".tile", has_text="<b>bold</b>").click()
    expect(dashboard.page.get_by_role("heading", level=1)).to_have_text(f"<b>bold</b> ({HOSTILE})")
    expect(dashboard.page.locator(".screen img")).to_be_visible()
    dashboard.open("system")
    expect(dashboard.page.get_by_role("rowheader", name=f"capture {HOSTILE}")).to_be_visible()
    assert dashboard.page.locator("main img[src=x]").count() == 0
    assert dashboard.page.locator("main b", has_text="bold").count() == 0
    dashboard.open_camera("no such\"'<camera>%")
    expect(dashboard.page.locator("main .empty")).to_have_text("There is no camera no such\"'<camera>% at this site.")


def test_the_keyboard_alone_finds_and_opens_a_camera(dashboard: Dashboard) -> None:
    dashboard.open()
    page = dashboard.page
    expect(page.locator(".tile")).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("yard")
    expect(page.locator(".tile")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    expect(dashboard.tile(FILM)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Yard")
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_have_value("yard")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    dashboard.open("system")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_the_search_is_focused_while_another_view_is_about_to_be_shown(dashboard: Dashboard) -> None:
    dashboard.open()
    page = dashboard.page
    expect(page.locator(".tile")).to_have_count(4)
    page.evaluate(
        """() => {
          location.hash = "#/system";
          document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "/", bubbles: true }));
        }"""
    )
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_curves_and_servers_and_tenants_show_what_the_site_does(running: Running, dashboard: Dashboard) -> None:
    page = dashboard.page
    dashboard.open_camera(JPEG)
    expect(page.locator(".curve")).to_have_count(3)
    expect(page.get_by_role("img", name="Frames a second: now frames")).to_be_visible()
    expect(page.locator(".curve canvas").first).to_be_visible()
    dashboard.open("system")
    for label in ("Redis memory", "Redis hits", "Redis commands", "RabbitMQ"):
        expect(page.locator(".figure", has_text=label).first).to_be_visible()
    expect(page.get_by_role("region", name="Rings").get_by_role("row")).to_have_count(1 + 4 + 1)
    dashboard.open("tenants")
    row = page.get_by_role("region", name="Cameras of default").get_by_role("row").filter(has_text=JPEG)
    expect(row).to_contain_text("ago")


def test_an_alert_is_told(running: Running, dashboard: Dashboard) -> None:
    """In the header, on its page, and to a screen reader; its text is text. The site's own alerts take longer to raise
    than a test should, so the answer is a made one."""
    alert = {"name": "camera_down", "subject": "x", "severity": "critical", "since_nano": 1_795_942_665_000_000_000}
    alert |= {"value": 31, "threshold": 30, "text": "camera <b>x</b> is offline", "advice": "look at its power"}

    def answer(route: Route) -> None:
        answered = route.fetch()
        report = answered.json()
        route.fulfill(response=answered, json={**report, "alerts": [alert]})

    dashboard.page.route("**/api/v1/status", answer)
    dashboard.open("alerts")
    expect(dashboard.page.locator("#badge")).to_have_text("1")
    expect(dashboard.page.locator(".alerts .text")).to_have_text("camera <b>x</b> is offline")
    expect(dashboard.page.locator(".alerts")).to_contain_text("look at its power")
    expect(dashboard.page.locator("#announcer")).to_contain_text("Alert: camera <b>x</b> is offline")
    dashboard.page.unroute_all(behavior="ignoreErrors")


@pytest.mark.parametrize("size", [PHONE, LAPTOP, WALL], ids=["phone", "laptop", "wall"])
def test_nothing_is_cropped(running: Running, browser: Browser, size: tuple[int, int]) -> None:
    with opened(browser, running.url, size=size) as dashboard:
        for view in VIEWS:
            dashboard.open(view)
            expect(dashboard.page.locator("main > *").first).to_be_attached()
            expect(dashboard.page.locator("#site")).not_to_have_text("Edge Video")
            page_width = dashboard.page.evaluate("document.documentElement.scrollWidth")
            assert page_width <= size[0], f"{view or 'wall'} is {page_width} wide"
        assert not dashboard.errors


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_serious(running: Running, browser: Browser, scheme: str) -> None:
    with opened(browser, running.url, scheme=scheme) as dashboard:
        for view in VIEWS:
            dashboard.open(view)
            expect(dashboard.page.locator("#site")).not_to_have_text("Edge Video")
            found = Axe().run(dashboard.page).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            told = [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in serious]
            assert not told, f"{view or 'wall'}, {scheme}"
        assert not dashboard.errors


def test_the_theme_is_remembered(running: Running, dashboard: Dashboard) -> None:
    dashboard.open()
    theme = "document.documentElement.dataset.theme"
    assert dashboard.page.evaluate(theme) == "dark"
    dashboard.page.get_by_role("button", name="Change to the light theme").click()
    assert dashboard.page.evaluate(theme) == "light"
    dashboard.page.reload()
    assert dashboard.page.evaluate(theme) == "light"


def test_a_page_stays_over_a_restart_of_the_site(running: Running, browser: Browser) -> None:
    """Last, because it restarts the site of this module."""
    with opened(browser, running.url) as wall, opened(browser, running.url) as one:
        wall.open()
        one.open_camera(JPEG)
        expect(wall.tile(JPEG).locator(".mark")).to_have_text("active")
        expect(one.page.locator(".screen img")).to_be_visible()
        assert running.site.stop() == 0
        for page in (wall.page, one.page):
            expect(page.locator("#banner")).to_have_text("The connection to the site is lost. Trying again …")
        running.site.start()
        for page in (wall.page, one.page):
            expect(page.locator("#banner")).to_be_hidden()
        expect(wall.tile(JPEG).locator(".mark")).to_have_text("active")
        image = f'.tile[data-camera="{JPEG}"] img'
        first = wall.picture(image)
        wait_until(lambda: (found := wall.picture(image)) and found != first, WAIT_SECONDS, "pictures move again")
        # The stream of pictures is a new one: what is drawn changes again.
        shot = one.page.locator(".screen img").screenshot()
        wait_until(
            lambda: one.page.locator(".screen img").screenshot() != shot, WAIT_SECONDS, "the live picture moves again"
        )
        assert not wall.errors + one.errors
