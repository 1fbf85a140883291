"""Make docs/_static/report.png: the report of ``privfair audit adult``, as a browser shows it.

    python docs/_static/make_report_picture.py --browser chromium

Uses the real Adult files where they are found, and the embedded synthetic edition otherwise (the
picture then says so, as the report does). Needs Chromium or Chrome, and Pillow.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from privfair.cli.main import run
from privfair.report import from_json

HERE = Path(__file__).resolve().parent
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-prefers-reduced-motion",
    "--blink-settings=preferredColorScheme=1",
)  # fmt: skip
WIDTH, HEIGHT, SHOWN = 1280, 1800, 1300
LIMIT = 300_000


def photograph(browser: str, page: str, target: Path, profile: Path) -> Image.Image:
    """Return what the browser shows of a page."""
    size = f"--window-size={WIDTH},{HEIGHT}"
    command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--screenshot={target}", size, page]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return Image.open(target).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--output", type=Path, default=HERE / "report.png")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if run(["--seed", "0", "--quiet", "audit", "adult", "--output", str(root)]) != 0:
            raise SystemExit("the audit did not succeed")
        result = from_json((root / "adult.json").read_text("utf-8"))
        parts = []
        for name, shown in (
            ("top", result),
            ("groups", result.with_sections(result.section("groups"))),
        ):
            page = root / f"{name}.html"
            page.write_text(shown.to_html(), encoding="utf-8")
            picture = root / f"{name}.png"
            parts.append(photograph(given.browser, page.as_uri(), picture, root / f"p-{name}"))
    # Side by side: the top of the page, and the section on groups without the contents.
    left, right = (
        parts[0].crop((0, 0, WIDTH, SHOWN)),
        parts[1].crop((300, 295, WIDTH, 295 + SHOWN)),
    )
    gap = 24
    sheet = Image.new("RGB", (left.width + gap + right.width, SHOWN), "#c9ced4")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + gap, 0))
    for colours in (128, 64, 32):
        sheet.quantize(colours).save(given.output, optimize=True)
        if given.output.stat().st_size < LIMIT:
            break
    print(given.output, given.output.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
