"""A browser without a window, which measures pages as a phone, a desktop or paper shows them."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")

_MEASURE = """<!doctype html><body style="margin:0">FRAMES<pre id="found"></pre><script>
addEventListener("load", () => {
  const measure = frame => {
    const page = frame.contentDocument, all = query => [...page.querySelectorAll(query)];
    const seen = one => one.getBoundingClientRect().height > 0;
    const letters = text => parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b);
    const style = getComputedStyle(page.body);
    return {
      scroll: page.documentElement.scrollWidth,
      headings: all("h1, h2, h3").filter(seen).map(one => one.textContent),
      plots: all("svg").map(one => [one.getBoundingClientRect().width, one.getBoundingClientRect().right]),
      letters: all("svg text").map(letters),
      cut: all("svg text").filter(text => {
        const outer = text.ownerSVGElement.getBoundingClientRect(), inner = text.getBoundingClientRect();
        return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1;
      }).map(text => text.textContent),
      small: all("p, td, th, li, summary, footer, small").filter(seen).map(one => parseFloat(getComputedStyle(one).fontSize)),
      tables: all(".scroll").map(one => [one.clientWidth, one.checkVisibility({contentVisibilityAuto: true}) ? one.scrollWidth : 0]),
      ink: style.color, paper: style.backgroundColor,
      plotInk: all("svg text").map(text => getComputedStyle(text).fill),
    };
  };
  console.log("measured");
  document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
});
</script></body>"""


def require_browser() -> str:
    """The path of a browser; the test is skipped where none is installed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser, one of {', '.join(NAMES)}")
    return found


def browse(browser: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a browser that sees no network, in a profile of its own in `folder`."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"]
    command += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True)


def measure(browser: str, folder: Path, pages: dict[Path, int], *arguments: str) -> dict[Path, dict[str, Any]]:
    """Show each page in a frame of its width, CSS pixels, and measure it; no page may write to the console."""
    frames = (
        f'<iframe src="{path.as_uri()}" style="width:{width}px;height:844px;border:0"></iframe>'
        for path, width in pages.items()
    )
    file = folder / "measure.html"
    file.write_text(_MEASURE.replace("FRAMES", "".join(frames)), encoding="utf-8")
    shown = browse(
        browser, folder, "--window-size=1400,900", "--hide-scrollbars", *arguments, "--dump-dom", file.as_uri()
    )
    said = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert len(said) == 1, said  # ours alone, which shows that we would have seen others
    assert "measured" in said[0]
    found = re.search(r'<pre id="found">(.*?)</pre>', shown.stdout, re.S)
    assert found is not None
    return dict(zip(pages, json.loads(html.unescape(found[1])), strict=True))
