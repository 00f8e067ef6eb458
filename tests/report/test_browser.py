"""The page in a browser: quiet, drawn, inside its window, and asking nobody for anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

OWN = r"data:|chrome|about:|https?://[a-z0-9.-]+\.(google|googleapis)\.com/"
"""What Chromium asks for by itself: its updates and the time."""

PROBE = """
<script>
addEventListener("load", () => {
  const page = document.documentElement;
  page.style.width = "WIDTHpx";
  const figures = [...document.querySelectorAll("svg.figure")].map(svg => {
    const box = svg.getBoundingClientRect();
    const marks = [...svg.querySelectorAll("path, use")].filter(mark => {
      const one = mark.getBoundingClientRect();
      return one.width + one.height > 0;
    });
    const texts = [...svg.querySelectorAll("text")];
    const out = texts.filter(text => {
      const one = text.getBoundingClientRect();
      return one.left < box.left - 1 || one.right > box.right + 1 || one.top < box.top - 1;
    }).map(text => text.textContent);
    return {width: box.width, height: box.height, marks: marks.length, out,
            colour: texts.length ? getComputedStyle(texts[0]).fill : null};
  });
  const right = [...document.body.querySelectorAll("*")]
    .filter(one => !one.closest("svg, pre, .scroll *, thead"))
    .map(one => one.getBoundingClientRect().right);
  document.body.textContent = "FOUND" + JSON.stringify({
    figures, wide: Math.max(...right),
    paper: getComputedStyle(document.body).backgroundColor,
  }) + "END";
});
</script>
"""


def browse(html: Path, tmp_path: Path, *options: str) -> tuple[str, str, list[str]]:
    """What a browser makes of a page: its document, its log, and the addresses it asked for."""
    net = tmp_path / "net.json"
    result = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr", f"--log-net-log={net}", *options, "--dump-dom",
            html.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    asked = re.findall(r'"url":"([^"]+)"', net.read_text("utf-8", errors="replace"))
    kept = [one for one in asked if not re.match(OWN, one)]
    return result.stdout, result.stderr, kept


@pytest.fixture
def html(published_html, tmp_path) -> Path:
    path = tmp_path / "index.html"
    path.write_text(published_html, encoding="utf-8")
    return path


def probed(
    html: Path, tmp_path: Path, *options: str, width: int = 1280
) -> tuple[dict, str, list[str]]:
    """What the page measures; a window is 500 wide at least, and a narrower page stands in it."""
    probe = PROBE.replace("WIDTH", str(width))
    copy = tmp_path / "probe.html"
    text = html.read_text("utf-8").replace("</body>", probe + "</body>")
    copy.write_text(text, encoding="utf-8")
    document, log, asked = browse(copy, tmp_path, *options)
    found = re.search(r"FOUND(.*)END", document, flags=re.DOTALL)
    assert found, log
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<")), log, asked


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_and_nothing_hangs_over(html, tmp_path, width):
    found, log, asked = probed(html, tmp_path, f"--window-size={width},900", width=width)
    assert "CONSOLE" not in log
    assert len(found["figures"]) == len(html.read_text("utf-8").split("<figure>")) - 1
    for figure in found["figures"]:
        assert figure["width"] > 250 and figure["height"] > 150 and figure["marks"] > 10
        assert figure["out"] == []
    assert found["wide"] <= width
    assert asked == []


def test_the_page_itself_asks_for_nothing_and_says_nothing(html, tmp_path):
    document, log, asked = browse(html, tmp_path)
    assert "svg" in document and "CONSOLE" not in log
    assert asked == []


def test_the_dark_palette_is_the_readers_choice(html, tmp_path):
    light, _, _ = probed(html, tmp_path, "--blink-settings=preferredColorScheme=1")
    dark, _, _ = probed(html, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(21, 24, 28)")
    assert light["figures"][0]["colour"] != dark["figures"][0]["colour"]
