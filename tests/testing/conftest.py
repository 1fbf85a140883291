"""The demo plugin, importable as an installed package would be."""

import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[1] / "plugin"


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
