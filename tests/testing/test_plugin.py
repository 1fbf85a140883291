"""docs/interface.md, run as a new author would: its package installed, its examples executed."""

import doctest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugin"


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
