"""The page in a real browser: clicks and keys on a real video, corrections, and what a reader of the file gets."""

import contextlib
import json
import re
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from test_watch_draw import faces, film

from gazepose.watch.bouts import LOOKS, count_people
from gazepose.watch.draw import draw_video, drawn_name
from gazepose.watch.page import write_page
from gazepose.watch.table import FACES, Video
from gazepose.watch.tables import apply_corrections, read_corrections

CHROMIUM = Path("/usr/bin/chromium")
LONGEST = 60                             # seconds of a test
TIMES = list(range(0, 6000, 40))         # 25 frames per second, 6 seconds
HOSTILE = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
NAMES = ("P1", HOSTILE, "P3")


def table_of(video: str, names: tuple[str, ...] = NAMES) -> pd.DataFrame:
    """The first person looks from 1 to 2 s and from 3 to 4.4 s and is unsure at 4.4 to 5 s (45 %) and at 5.2 to 5.6 s
    (60 %); the second is not codable from 2 to 3 s; the third comes at 3 s."""
    parts = []
    for k, name in enumerate(names):
        part = faces(TIMES, video, [n for n in range(len(TIMES)) if k < 2 or n >= 75], person=name, x=40.0 + 90 * k)
        seconds, looking = part["seconds"], np.full(len(part), 0.05)
        if k == 0:
            looking[((seconds >= 1) & (seconds < 2)) | ((seconds >= 3) & (seconds < 4.4))] = 0.95
            looking[(seconds >= 4.4) & (seconds < 5)] = 0.45
            looking[(seconds >= 5.2) & (seconds < 5.6)] = 0.6
        if k == 1:
            hidden = (seconds >= 2) & (seconds < 3)
            part.loc[hidden, ["codable", "reason"]] = 0, "too small"
            looking[hidden] = np.nan
        parts.append(part.assign(looking=looking))
    return pd.concat(parts, ignore_index=True).sort_values(["video", "frame", "person"], ignore_index=True)


def looks_of(video: str) -> pd.DataFrame:
    return pd.DataFrame([(video, "P1", start, end, end - start, 0.95, "score") for start, end in ((1, 2), (3, 4.4))],
                        columns=list(LOOKS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A watched video of 6 s with sound, a watched picture, and their page."""
    import cv2
    root = tmp_path_factory.mktemp("watched")
    source = film(root / "a b#1.mp4", TIMES, "aac")
    video = Video(source.name, source, 320, 240, len(TIMES), 25.0, 6.0)
    still = Video("p.png", root / "p.png", 320, 240, 1, 0.0, 0.0)
    cv2.imwrite(str(still.path), np.full((240, 320, 3), 90, np.uint8))
    table = pd.concat([table_of(video.name), faces([0], "p.png", looking=0.87)], ignore_index=True)
    looks = looks_of(video.name)
    for each in (video, still):
        draw_video(each, table, looks, root / drawn_name(each))
    write_page(root, [video, still], table, looks, count_people(table, looks, [video, still]))
    return root


def ends_with_parent(program: str, path: Path) -> Path:
    """A script that runs a program so that the kernel ends it with its parent, also one that is killed."""
    path.write_text(f'#!/bin/sh\nexec setpriv --pdeathsig KILL {shlex.quote(program)} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
    if not CHROMIUM.exists() or not shutil.which("setpriv"):
        pytest.skip(f"no browser to test with: {CHROMIUM} or setpriv is not there")
    from playwright._impl._driver import compute_driver_executable
    folder = tmp_path_factory.mktemp("browser")
    chromium = ends_with_parent(str(CHROMIUM), folder / "chromium")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAYWRIGHT_NODEJS_PATH", str(ends_with_parent(compute_driver_executable()[0], folder / "node")))
        with playwright.sync_playwright() as started:
            yield started.chromium.launch(executable_path=str(chromium), args=[
                "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                "--autoplay-policy=no-user-gesture-required"])


@pytest.fixture
def time_limit() -> Iterator[None]:
    """A call of Playwright that waits for a script has no time limit of its own."""
    limit = threading.Timer(LONGEST, end_browser)
    limit.start()
    yield
    limit.cancel()


@pytest.fixture
def page(browser, folder, time_limit) -> Iterator[Any]:
    """The page, opened from the disk, in a browser without memory and without a network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, accept_downloads=True)
    opened, faults = context.new_page(), []
    opened.set_default_timeout(5000)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: request.url.startswith(("file:", "blob:")) or faults.append(request.url))
    show(opened, folder)
    yield opened
    assert faults == []
    context.close()


def end_browser() -> None:
    """End the driver and the browser; what waits for them then fails."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if {"node", "chromium"} & {Path(part).name for part in child.cmdline()[:1]}:
                child.kill()


def show(opened: Any, folder: Path) -> None:
    opened.goto(f"file://{folder}/watch.html")
    until(opened, "document.getElementById('video').readyState >= 2")


def until(page: Any, condition: str, seconds: float = 10) -> None:
    """Wait for a condition in JavaScript. Playwright's own way would need a page that lets text be run."""
    ends = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < ends, condition
        time.sleep(0.02)


def time_of(page: Any) -> float:
    """Where the real video is, once it has got there."""
    until(page, "(v => !v.seeking && v.readyState >= 2 && window.page.player.pending === undefined)"
                "(document.getElementById('video'))")
    return page.evaluate("document.getElementById('video').currentTime")


def grey_of(page: Any) -> int:
    """Level of a free spot of the picture that is on the screen; it tells the frame (film)."""
    import cv2
    shot = cv2.imdecode(np.frombuffer(page.locator("#video").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return int(shot[shot.shape[0] // 12, shot.shape[1] // 2, 1])


def click_at(page: Any, person: str, seconds: float) -> None:
    canvas = page.get_by_role("slider", name=f"Timeline of {person}", exact=True)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + box["width"] * seconds / 6, box["y"] + box["height"] / 2)


def counts(page: Any, person: str) -> list[str]:
    return page.locator("#summary tbody tr").filter(has=page.get_by_role("rowheader", name=person, exact=True)) \
        .locator("td").all_text_contents()


def saved(page: Any, tmp_path: Path) -> pd.DataFrame:
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("Download corrections")).click()
    assert download.value.suggested_filename == "corrections.csv"
    download.value.save_as(tmp_path / "corrections.csv")
    return read_corrections(tmp_path / "corrections.csv")


# ---- playing

def test_a_click_on_a_timeline_seeks_the_video_and_shows_that_frame(page):
    for seconds, frame in ((3.5, 87), (1.02, 25)):
        click_at(page, "P1", seconds)
        assert time_of(page) == pytest.approx(seconds, abs=0.02)
        assert page.locator("#clock").inner_text().endswith(f"frame {frame}")
        assert abs(grey_of(page) - (60 + frame % 40)) <= 2
    playhead = page.locator(".playhead").bounding_box()
    canvas = page.get_by_role("slider", name="Timeline of P1", exact=True).bounding_box()
    assert playhead["x"] == pytest.approx(canvas["x"] + canvas["width"] * 1.02 / 6, abs=3)


def test_keys_step_by_frame_and_by_look_and_play(page):
    def after(key: str) -> float:
        page.keyboard.press(key)
        return time_of(page)
    assert [int(after(key) / 0.04) for key in "...,"] == [1, 2, 3, 2]
    assert [after(key) for key in ("n", "n", "p")] == pytest.approx([1, 3, 1], abs=0.02)
    assert page.locator("#mark-start").input_value() == "0:01.000"
    page.keyboard.press(" ")
    until(page, "document.getElementById('video').currentTime > 1.2")
    page.keyboard.press(" ")
    assert page.evaluate("document.getElementById('video').paused")
    page.get_by_role("button", name="Next frame").focus()
    before = time_of(page)
    page.keyboard.press(" ")                                 # on a button, space presses the button
    assert time_of(page) == pytest.approx(before + 0.04, abs=0.03) and page.evaluate("page.player.paused")


# ---- corrections

def test_corrections_are_counted_saved_and_read_back_by_the_program(page, folder, tmp_path):
    video = page.evaluate("page.video.name")
    click_at(page, "P1", 3.5)
    page.get_by_label("Name", exact=True).fill(' =1+1, "Anna" ')
    page.get_by_role("button", name="Rename").click()
    anna = '=1+1, "Anna"'
    page.get_by_role("textbox", name="start of the look").nth(1).fill("2.8")
    page.keyboard.press("Enter")                             # the second look begins earlier
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "start of the look"
    page.get_by_role("button", name="Delete the look at 0:01.0").click()
    page.locator("#mark-start").fill("0.4")
    page.locator("#mark-end").fill("0:00.8")
    page.locator("#mark").get_by_role("button", name="Not codable").click()
    click_at(page, "P3", 4)
    page.locator("#other").select_option(HOSTILE)
    page.get_by_role("button", name="Merge").click()

    corrections = saved(page, tmp_path)
    lines = corrections.drop(columns="line").astype(object)
    assert lines.where(lines.notna(), "").values.tolist() == [
        ["rename", video, "P1", "", "", anna], ["look", video, anna, 2.8, 3.0, ""],
        ["no_look", video, anna, 1.0, 2.0, ""], ["not_codable", video, anna, 0.4, 0.8, ""],
        ["merge", video, "P3", "", "", HOSTILE]]
    assert (tmp_path / "corrections.csv").read_text().splitlines()[1].endswith(""","'=1+1, ""Anna\"\"\"""")
    facts = [Video(video, folder / video, 320, 240, len(TIMES), 25.0, 6.0)]
    applied = apply_corrections(table_of(video), looks_of(video), corrections, facts)
    people = count_people(applied.table, applied.looks, facts).set_index("person")
    for name in (anna, HOSTILE):
        row, shown = people.loc[name], counts(page, name)
        assert int(shown[0]) == row["looks"]
        for cell, column in ((1, "looks_per_minute"), (2, "seconds_looking"), (6, "seconds_codable")):
            assert float(shown[cell]) == pytest.approx(row[column], abs=0.06), column
    assert counts(page, anna)[:3] == ["1", "10.7", "1.6"] and counts(page, "P3") == []

    for _ in range(5):
        page.keyboard.press("u")
    assert counts(page, "P1")[0] == "2" and counts(page, "P3")[0] == "0"
    assert page.get_by_role("button", name="Undo").is_disabled()


def test_an_edge_of_a_look_can_be_dragged(page, tmp_path):
    click_at(page, "P1", 1.5)
    box = page.get_by_role("slider", name="Timeline of P1", exact=True).bounding_box()
    x, y = box["x"] + box["width"] * 2 / 6, box["y"] + 20
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] * 0.5 / 6, y, steps=3)
    page.mouse.up()
    line = saved(page, tmp_path).iloc[0]
    assert (line["action"], line["person"], line["start"]) == ("look", "P1", 2.0)
    assert line["end"] == pytest.approx(2.5, abs=0.02)


def test_the_least_certain_moment_comes_first_and_is_checked_with_one_key(page, tmp_path):
    moments = page.locator("#moments li")
    assert "45 %" in moments.nth(0).inner_text() and "60 %" in moments.nth(1).inner_text()
    moments.nth(0).get_by_role("button").click()
    assert time_of(page) >= 3.7                              # it plays from a little before
    page.keyboard.press("1")
    assert page.evaluate("document.activeElement.className") == "moment"
    assert "1 of 2 uncertain moments checked" in page.locator("#queue-note").inner_text()
    page.get_by_role("button", name="Not looking").first.click()
    assert "2 of 2" in page.locator("#queue-note").inner_text() and moments.count() == 0
    assert saved(page, tmp_path)[["action", "start", "end"]].values.tolist() == [
        ["look", 4.4, 5.0], ["no_look", 5.2, 5.6]]
    assert counts(page, "P1")[2] == "3.0"                     # 1 to 2 s, and 3 to 5 s


def test_corrections_stay_in_the_browser_and_are_loaded_from_a_file(page, folder, tmp_path):
    video = page.evaluate("page.video.name")
    page.evaluate("page.rename('Anna')")
    show(page, folder)
    assert "1 correction restored" in page.locator("#status").inner_text() and counts(page, "Anna")[0] == "2"
    path = tmp_path / "mine.csv"
    path.write_text(f"\ufeffaction,video,person,start,end,value\r\nno_look,{video},P1,3,4.4,\r\n"
                    f"no_look,{video},Nobody,1,2,\r\n", encoding="utf-8")
    page.locator("#load").set_input_files(path)
    until(page, "document.getElementById('status').textContent.includes('loaded')")
    assert counts(page, "P1")[0] == "1" and "1 correction fit nobody" in page.locator("#status").inner_text()
    path.write_text("action,video,person,start,end,value\nlook,a,P1,x,2,\n")
    page.locator("#load").set_input_files(path)
    until(page, "document.getElementById('status').textContent.includes('line 2')")
    assert counts(page, "P1")[0] == "1"


def test_a_name_that_somebody_has_is_refused(page):
    click_at(page, "P1", 1.5)
    page.get_by_label("Name", exact=True).fill("P3")
    page.get_by_role("button", name="Rename").click()
    assert "Merge them, or take another name" in page.locator("#status").inner_text() and counts(page, "P1")


# ---- safety, shape

def test_a_script_in_a_name_is_text(page):
    assert page.evaluate("window.ran") is None
    assert page.get_by_role("rowheader", name=HOSTILE, exact=True).count() == 1
    assert page.locator("img[src=x]").count() == 0


def test_a_picture_is_shown_with_its_probability(page):
    page.locator("#video-choice").select_option(label="p.png")
    until(page, "document.getElementById('picture').naturalWidth === 320")
    assert counts(page, "P1")[3] == "87 %" and page.locator("#timelines").is_hidden()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (390, "light"), (1280, "dark")])
def test_it_fits_a_phone_and_follows_light_and_dark(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate("page.selectMoment(page.model.moments[0])")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    back = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (max(map(int, back)) < 60) == (scheme == "dark")
    too_wide = """[...document.querySelectorAll('button, table, canvas, input')].filter(
        e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.id || e.textContent)"""
    assert page.evaluate(too_wide) == []


def test_every_control_has_a_name(page):
    page.evaluate("page.selectMoment(page.model.moments[0])")
    nameless = """[...document.querySelectorAll('button, input, select, [role=slider]')].filter(e => !e.hidden && !(
        e.getAttribute('aria-label') || e.title || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map(
        e => e.outerHTML)"""
    assert page.evaluate(nameless) == []


# ---- the file

def test_a_page_of_two_hours_and_ten_people_stays_small_and_is_drawn_fast(tmp_path, browser):
    count = 2 * 3600 * 2
    rows = {name: np.zeros(10 * count) for name, kind in FACES.items() if kind == "float64"}
    frame = np.tile(np.arange(count), 10)
    table = pd.DataFrame(rows | {"video": "long.mp4", "person": np.repeat([f"P{k}" for k in range(10)], count),
                                 "frame": frame, "seconds": frame / 2, "codable": (frame % 50 > 0).astype(int),
                                 "looking": (frame % 101) / 100, "reason": np.where(frame % 50 > 0, "", "too dark")})
    starts = np.arange(100) * 60.0
    looks = pd.concat([pd.DataFrame({"video": "long.mp4", "person": f"P{k}", "start": starts, "end": starts + 5,
                                     "duration": 5.0, "probability": 0.9, "source": "score"}) for k in range(10)])
    video = Video("long.mp4", tmp_path / "long.mp4", 320, 240, count, 2.0, 7200.0)
    path = write_page(tmp_path, [video], table[list(FACES)], looks, table[["video", "person"]].drop_duplicates())
    assert path.stat().st_size < 2 << 20
    opened = browser.new_page()
    opened.goto(f"file://{path}")
    opened.wait_for_selector("canvas.row")
    taken = opened.evaluate("""(() => { const from = performance.now(); page.lines.zoom(0.5, 3600); page.changed('');
        return performance.now() - from; })()""")
    assert taken < 1500                                      # 100 to 300 on two cores
    opened.close()


def test_a_video_without_a_face_has_a_page_that_says_so(tmp_path, browser):
    video, none = Video("n.mp4", tmp_path / "n.mp4", 320, 240, 100, 25.0, 4.0), faces([], "n.mp4")
    path, opened, faults = write_page(tmp_path, [video], none, looks_of("x"), none), browser.new_page(), []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(f"file://{path}")
    assert opened.locator("#lede").inner_text() == "no face was found"
    for key in ("n", "c", ".", "1", "u", "Delete"):
        opened.keyboard.press(key)
    until(opened, "!document.getElementById('missing').hidden")
    assert "n.mp4.watched.mp4” cannot be played" in opened.locator("#missing").inner_text() and faults == []
    opened.close()


def test_data_cannot_end_its_script_and_names_no_other_place(folder):
    text = (folder / "watch.html").read_text()
    inside = text[text.index('id="data">') + 10:]
    assert "<" not in inside[:inside.index("</script>")]
    assert json.loads(inside[:inside.index("</script>")])["videos"][0]["source"] == "a%20b%231.mp4.watched.mp4"
    structure = text.replace(inside[:inside.index("</script>")], "")
    assert re.findall(r"""(?:src|href)=(?!"#)\S+|https?://\S+|url\(""", structure) == []


def test_frame_times_of_a_variable_rate_are_in_the_page(tmp_path):
    times = [0, 40, 80, 500, 540, 1000]
    video = Video("v.mp4", tmp_path / "v.mp4", 320, 240, 6, 5.0, 1.2)
    path = write_page(tmp_path, [video], faces(times, "v.mp4"), looks_of("x"),
                      pd.DataFrame({"video": ["v.mp4"], "person": ["P1"]}))
    import base64
    packed = re.search(r'"times":"([^"]+)"', path.read_text())
    assert packed and np.frombuffer(base64.b64decode(packed[1]), "<u2").cumsum().tolist() == times
