"""Make the pictures of README: a recording of a run, the report, the explorer.

python docs/pictures.py [FOLDER]

The demo runs in FOLDER, by default a temporary one, with the code of this checkout; FOLDER is to
hold no results. Needs chromium and chromedriver (.ci/run installs them), a font with Chinese
letters (Debian's fonts-wqy-microhei), and the packages of ``make test``. The pictures are of a real
run, so times differ from run to run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
WORKFLOW = ("Snakefile", "config.yaml", "workflow", "profiles", "envs", "src")
COMMANDS = (
    ("snakemake", "--cores", "2"),
    ("sidmill", "inspect", "results/pid2sid.parquet"),
    ("sidmill", "check"),
)
# Lines of Snakemake that tell of the machine and not of the run.
OF_MACHINE = ("  Platform: ", "  Host: ", "  User: ", "  Command: ", "  Workflow ID: ")
REPORT = ("snakemake", "--report", "results/report.html")

# The terminal: letters and lines that fit, their size in pixels, seconds of the recording.
COLUMNS, ROWS = 104, 26
LETTER, LINE, EDGE = 7.23, 17, 14
SECONDS, PAUSE = 20, 5
STYLE = (
    "text{font:12px/17px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "fill:#d0d7de;white-space:pre}.p{fill:#7ee787;font-weight:bold}.m{fill:#79c0ff}"
)
# The window of the browser in pixels, and colours of a picture of it.
WINDOW = (1200, 760)
COLOURS = 64
SETTLED = 1.5  # seconds in which a page draws itself


class Line(NamedTuple):
    """A line of the recording: seconds since its begin, text, and class of its style."""

    at: float
    text: str
    style: str


def main() -> None:
    """Run the demo, and write all pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        prepare(folder)
        lines = record(folder)
        subprocess.run(words_of(REPORT), cwd=folder, env=environment(folder), check=True)
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / "run.svg").write_text(animate(lines), encoding="utf-8")
        photograph(folder / "results")
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


def prepare(folder: Path) -> None:
    """Copy what a run needs, without results of another run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WORKFLOW:
        if (ROOT / name).is_dir():
            hidden = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=hidden, dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / name, folder / name)


def environment(folder: Path) -> dict[str, str]:
    """Variables of a command in the folder: its own library, and lines as they are written."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(folder / "src"), "PATH": path, "PYTHONUNBUFFERED": "1"}


def words_of(command: tuple[str, ...]) -> list[str]:
    """A command with the Python that runs this file."""
    return [sys.executable, "-m", *command]


def record(folder: Path) -> list[Line]:
    """Run the commands and note when each line comes."""
    lines, begin = [], time.monotonic()
    for command in COMMANDS:
        lines.append(Line(time.monotonic() - begin, f"$ {' '.join(command)}", "p"))
        process = subprocess.Popen(
            words_of(command),
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith(OF_MACHINE):
                continue
            text = text.rstrip().replace(str(folder), "~/sidmill")
            style = "m" if text.startswith(("Job ", "localrule ")) else ""
            lines.append(Line(time.monotonic() - begin, text, style))
        if process.wait():
            said = "\n".join(line.text for line in lines[-20:])
            raise SystemExit(f"{' '.join(command)} failed in {folder}:\n{said}")
        lines.append(Line(time.monotonic() - begin, "", ""))
    return lines[:-1]


def animate(lines: list[Line]) -> str:
    """An SVG in which the lines scroll by as they came, in ``SECONDS``, again and again."""
    # Rows of the terminal: long lines go on in the next row.
    rows = [
        line._replace(text=line.text[start : start + COLUMNS])
        for line in lines
        for start in range(0, max(len(line.text), 1), COLUMNS)
    ]
    total, end = SECONDS + PAUSE, max(rows[-1].at, 1e-9)

    # The newest row is the lowest; a step for each moment at which rows come.
    height, steps = ROWS * LINE, {}
    for number, row in enumerate(rows, start=1):
        share = 100 * row.at / end * SECONDS / total
        steps[f"{share:.2f}"] = height - max(number, 1) * LINE
    frames = "".join(f"{share}%{{transform:translateY({y}px)}}" for share, y in steps.items())
    last = height - len(rows) * LINE
    frames += f"100%{{transform:translateY({last}px)}}"

    # Who wants no motion sees the end.
    texts = "".join(
        f'<text x="0" y="{number * LINE - 4}"{style}>{escape(row.text)}</text>'
        for number, row in enumerate(rows, start=1)
        if row.text
        for style in [f' class="{row.style}"' if row.style else ""]
    )
    wide, tall = round(COLUMNS * LETTER) + 2 * EDGE, height + 2 * EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" '
        f'height="{tall}" role="img"><title>A run of SIDMill in a terminal</title><style>{STYLE}'
        f"@keyframes scroll{{0%{{transform:translateY({height}px)}}{frames}}}"
        f"#rows{{transform:translateY({last}px)}}@media(prefers-reduced-motion:no-preference)"
        f"{{#rows{{animation:scroll {total}s steps(1,end) infinite}}}}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>'
        f'<svg x="{EDGE}" y="{EDGE}" width="{wide - 2 * EDGE}" height="{height}">'
        f'<g id="rows">{texts}</g></svg></svg>\n'
    )


def photograph(results: Path) -> None:
    """Pictures of the report and of the explorer, as a browser shows them."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    # A browser without a window, and without services of its own.
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        for flag in (*flags, f"--window-size={WINDOW[0]},{WINDOW[1]}"):
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={profile}")
        service = Service(executable_path=shutil.which("chromedriver"))
        browser = webdriver.Chrome(options=options, service=service)
        try:
            browser.get((results / "explorer.html").as_uri())
            browser.find_element("css selector", "#roots li a").click()
            keep(browser, "explorer.png")
            browser.get((results / "report.html").as_uri())
            wait_for(browser, "//span[text()='Quality']").click()
            for link in (1, 2):  # the plot, and what is said of it
                wait_for(browser, f"(//tr[td[text()='code usage']]//a)[{link}]").click()
                time.sleep(SETTLED)
            keep(browser, "report.png")
        finally:
            browser.quit()


def wait_for(browser: Any, path: str) -> Any:
    """The first element of an XPath, when the page has drawn it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda page: page.find_element("xpath", path))


def keep(browser: Any, name: str) -> None:
    """Save what the browser shows, with few colours."""
    time.sleep(SETTLED)
    path = IMAGES / name
    browser.save_screenshot(str(path))
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
