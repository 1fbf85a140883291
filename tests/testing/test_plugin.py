"""docs/interface.md, run as a new author would: its package installed, its examples executed."""

import doctest
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugin"


@pytest.fixture
def installed_plugin(tmp_path, monkeypatch):
    """Make the demo package importable with the metadata that an installer would write."""
    info = tmp_path / "privfair_demo-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: privfair-demo\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text((PLUGIN / "entry_points.txt").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(PLUGIN))
    yield
    for name in [m for m in sys.modules if m.partition(".")[0] == "privfair_demo"]:
        del sys.modules[name]


def test_every_example_of_the_page_runs(installed_plugin):
    page = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
    parser = doctest.DocTestParser()
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) >= 5
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    namespace = {}
    for number, block in enumerate(blocks):
        test = parser.get_doctest(block, namespace, f"interface.md[{number}]", None, None)
        runner.run(test, clear_globs=False)
        namespace = test.globs
    assert runner.summarize(verbose=False).failed == 0


def test_the_page_shows_the_files_that_are_tested():
    page = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
    for name in ("mechanism", "metric", "penalty", "estimator"):
        assert f"../tests/plugin/privfair_demo/{name}.py" in page
        assert (PLUGIN / "privfair_demo" / f"{name}.py").is_file()


def test_entry_points_are_found_and_loaded_on_demand(installed_plugin):
    from privfair.core import available, load

    assert "sticky_coin" in available("mechanisms")
    assert load("mechanisms", "sticky_coin").__name__ == "StickyCoin"
