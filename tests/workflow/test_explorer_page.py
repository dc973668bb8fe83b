"""The explorer in a browser: search, prefixes, collisions, deep links, and no text that runs."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sidmill.formats import code_files, item_text, quantizer_file
from sidmill.quantize import category_level
from sidmill.report import explorer
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.report import Explorer

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="chromium or chromedriver is not installed",
    ),
]

TEMPLATE = Path(__file__).parents[2] / "workflow/resources/explorer.html.jinja"
SCRIPT_TITLE = '<script>document.title="pwned"</script>'
LARGE_ID = 2**60 + 1
# pid, final SID, codes as quantized, text
ITEMS = [
    (LARGE_ID, [12, 7, 1], [12, 7, 1], f"{SCRIPT_TITLE}\nA kettle of brushed steel"),
    (11, [12, 7, 2], [12, 7, 1], "Steel kettle with a whistle\nNorrvik"),
    (12, [12, 3, 0], [12, 3, 0], "不锈钢水壶\n一升半容量"),
    (13, [4, 7, 5], [4, 7, 5], "Oak chair"),
    (14, [4, 7, 5], [4, 7, 5], "Pine chair"),
    (15, [2, 0, 0], [2, 0, 0], "<img src=x onerror=\"document.title='pwned'\">"),
]
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def explore(folder, items, quantizer=None):
    """Write the page of some items."""
    pids = pa.chunked_array([pa.array([pid for pid, _, _, _ in items], pa.int64())])
    for name, column, place in (("pid2sid", "sid", 1), ("codes", "codes", 2)):
        rows = np.array([item[place] for item in items], dtype=np.int32)
        code_files.write(folder / f"{name}.parquet", column, pids, [rows], [16] * rows.shape[1])
    table = pa.table({"pid": pids, "text": [text for _, _, _, text in items]})
    item_text.write(folder / "text.parquet", pids.type, [table])
    sources = explorer.Sources(
        TEMPLATE,
        *(folder / f"{name}.parquet" for name in ("pid2sid", "codes", "text")),
        quantizer,
    )
    settings = Explorer(title="Kettles <and> chairs", max_items=1000)
    explorer.write(folder / "page.html", sources, settings, seed=0)
    return folder / "page.html"


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    return explore(tmp_path_factory.mktemp("explorer"), ITEMS)


@pytest.fixture
def page(browser, page_path):
    """Open the page anew; afterwards no text may have run and no error been logged."""
    opened = Page(browser, page_path.as_uri())
    opened.open("")
    yield opened
    assert browser.title == "Kettles <and> chairs | SID explorer"
    assert browser.get_log("browser") == []


class Page:
    """The page as a visitor uses it."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address

    def open(self, fragment):
        self.browser.get("about:blank")
        self.browser.get(self.address + fragment)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def texts(self, selector):
        """What the visible elements read, in one look: the page may redraw between two."""
        return self.browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((one) => one.checkVisibility()).map((one) => one.innerText)",
            selector,
        )

    def titles(self):
        return self.texts("main .title")

    def click(self, selector, text):
        """Click the first visible element that reads ``text``."""
        found = [one for one in self.all(selector) if one.is_displayed() and one.text == text]
        assert found, f"nothing visible at {selector} reads {text!r}"
        found[0].click()

    def search(self, query):
        box = self.browser.find_element("id", "q")
        box.clear()
        box.send_keys(query)

    def wait(self, condition):
        """Wait until ``condition()`` holds."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 20, 0.02).until(lambda _: condition())


def test_a_title_with_a_script_is_text(page):
    assert SCRIPT_TITLE in page.titles()
    assert not page.all("main script, main img")
    assert page.browser.find_element("css selector", "h1").text == "Kettles <and> chairs"


def test_first_tokens_are_listed_by_size(page):
    links = [element.text.split() for element in page.all("#roots li a")]
    assert [(words[0], words[-1]) for words in links] == [("a12", "3"), ("a4", "2"), ("a2", "1")]


def test_a_prefix_shows_its_items_by_next_token(page):
    page.click("#roots .chip", "a12")
    page.wait(lambda: len(page.titles()) == 3)
    assert page.browser.current_url.endswith("#sid=12")
    groups = [text.split("\n")[:2] for text in page.texts("#detail .group-head")]
    assert groups == [["b7", "2 items"], ["b3", "1 item"]]
    page.click("#detail .group-head .chip", "b7")
    page.wait(lambda: page.titles() == [SCRIPT_TITLE, "Steel kettle with a whistle"])
    assert page.browser.current_url.endswith("#sid=12,7")
    page.browser.back()
    page.wait(lambda: len(page.titles()) == 3)


def test_a_whole_sid_can_be_copied(page):
    page.open("#sid=12,3,0")
    assert page.titles() == ["不锈钢水壶"]
    assert {button.get_attribute("data-copy") for button in page.all("#detail button.copy")} == {
        "<|sid_begin|><s_a_12><s_b_3><s_c_0><|sid_end|>"
    }


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("steel", [SCRIPT_TITLE, "Steel kettle with a whistle"]),
        ("KETTLE norrvik", ["Steel kettle with a whistle"]),
        ("水壶", ["不锈钢水壶"]),
        (str(LARGE_ID), [SCRIPT_TITLE]),
        ("12 7", [SCRIPT_TITLE, "Steel kettle with a whistle"]),
        ("a12 b3", ["不锈钢水壶"]),
        ("<s_b_7>", ["Oak chair", "Pine chair", SCRIPT_TITLE, "Steel kettle with a whistle"]),
        ("<|sid_begin|><s_a_2><s_b_0><s_c_0><|sid_end|>", [ITEMS[-1][3]]),
        ("no such thing", []),
    ],
)
def test_search_finds(page, query, titles):
    page.search(query)
    said = "1 item found" if len(titles) == 1 else f"{len(titles)} items found"
    page.wait(lambda: page.texts("#said") == [said])
    assert page.titles() == titles
    if not titles:
        assert "Nothing found for “no such thing”" in page.texts("#view-found")[0]


def test_an_id_is_shown_with_every_digit(page):
    page.search(str(LARGE_ID))
    page.wait(lambda: page.texts(".meta .pid") == [f"id {LARGE_ID}"])


def test_collisions_have_a_tab_of_their_own(page):
    page.click(".views a", "Collisions (3)")
    page.wait(lambda: page.all("#view-collisions:not([hidden])"))
    shared, moved = page.all("#view-collisions .block")
    assert "1 SID names more than one item, 2 items in all" in shared.text
    assert "Oak chair" in shared.text
    assert "Pine chair" in shared.text
    assert "Steel kettle with a whistle" in moved.text
    chips = moved.find_elements("css selector", ".items > li .chips")
    assert [chip.text.split() for chip in chips] == [["a12", "b7", "c1"], ["a12", "b7", "c2"]]
    assert f"the old one is now: {SCRIPT_TITLE}" in moved.text


def test_items_told_apart_by_a_suffix_did_not_change(browser, tmp_path):
    items = [(row, [4, 7, row], [4, 7], f"Chair {row}") for row in range(3)]
    page = Page(browser, explore(tmp_path, items).as_uri())
    page.open("#collisions")
    page.wait(lambda: page.titles() == ["Chair 1", "Chair 2"])
    assert page.texts(".views a")[-1] == "Collisions (2)"
    assert page.texts("#view-collisions h2") == ["Told apart by a last token"]
    page.click("#view-collisions a.flag", "all with these codes")
    page.wait(lambda: len(page.titles()) == 3)
    assert page.browser.current_url.endswith("#sid=4,7")


@pytest.mark.parametrize(
    ("fragment", "titles"),
    [
        ("#sid=4", ["Oak chair", "Pine chair"]),
        ("#q=norrvik", ["Steel kettle with a whistle"]),
        ("#q=%E6%B0%B4%E5%A3%B6", ["不锈钢水壶"]),
        ("#q=100%", []),
        ("#sid=99", []),
    ],
)
def test_an_address_leads_back(page, fragment, titles):
    page.open(fragment)
    assert page.titles() == titles


def test_the_keyboard_reaches_search_and_leaves_it(page):
    from selenium.webdriver.common.keys import Keys

    page.browser.find_element("css selector", "body").send_keys("/")
    box = page.browser.switch_to.active_element
    assert box.get_attribute("id") == "q"
    box.send_keys("oak")
    page.wait(lambda: page.titles() == ["Oak chair"])
    box.send_keys(Keys.ESCAPE)
    page.wait(lambda: len(page.titles()) == len(ITEMS))


@pytest.mark.parametrize("fragment", ["", "#sid=12,7", "#q=chair", "#collisions"])
def test_a_narrow_screen_needs_no_sideways_scrolling(page, fragment):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open(fragment)
        assert page.titles()
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_first_tokens_read_as_their_categories(browser, tmp_path):
    vectors = np.eye(6, 4, dtype=np.float32)
    names = pa.array(["Kettles & pots"] * 3 + ["Chairs"] * 2 + ["<i>Odd</i>"])
    settings = CategoryLevel(field="kind", size=3, min_load=0, max_load=9.0)
    level = category_level.fit(vectors, names, settings, {})
    quantizer_file.write(tmp_path / "quantizer.safetensors", level.quantizer)
    items = [
        (pid, [code, *sid[1:]], [code, *codes[1:]], text)
        for (pid, sid, codes, text), code in zip(ITEMS, level.codes.tolist(), strict=True)
    ]
    path = explore(tmp_path, items, tmp_path / "quantizer.safetensors")
    page = Page(browser, path.as_uri())
    page.open("")
    assert set(page.texts("#roots .category")) == {"Kettles & pots", "Chairs", "<i>Odd</i>"}
    code = level.quantizer.categories.code_names().index("Chairs")
    page.open(f"#sid={code}")
    assert page.texts("#detail .head .category") == ["Chairs"]
    page.open(f"#sid={code},7")
    assert page.texts("#detail .head .category") == ["Chairs"]
    assert browser.get_log("browser") == []
