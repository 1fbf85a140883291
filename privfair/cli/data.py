"""``privfair data``: which data sets there are, where they come from, whether they are intact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import ExitCode, clean, example, finish, note, output

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["command"]

_HOME = click.option(
    "--data-home",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder searched before PRIVFAIR_DATA_DIR and the user's cache.",
)


@click.group()
def command() -> None:
    """List, find, fetch and verify data sets.

    Files are sought in --data-home, in the folder of PRIVFAIR_DATA_DIR and in the user's cache
    (PRIVFAIR_CACHE_DIR), as FOLDER/<set>/<file> or FOLDER/<file>. Nothing is read before its
    checksum was compared with the registry's.
    """


def _state(name: str, data_home: Path | None) -> str:
    from privfair.datasets import dataset_info, is_available
    from privfair.datasets._embedded import has_embedded

    if is_available(name, data_home):
        return "found"
    if dataset_info(name)["embedded"] and has_embedded(name):
        return "embedded only"
    return "absent"


@command.command("list")
@_HOME
@example("privfair data list")
def list_(data_home: Path | None) -> None:
    """List the data sets, their licences, and whether their files are here."""
    from privfair.datasets import available_datasets, dataset_info
    from privfair.datasets._files import search_path

    rows = []
    for name in available_datasets():
        info = dataset_info(name)
        rows.append(
            {key: info[key] for key in ("name", "title", "rows", "license")}
            | {"state": _state(name, data_home)}
        )
    folders = [str(folder) for folder in search_path(data_home)]

    def human(console: Console) -> None:
        from rich.table import Table

        table = Table("name", "what", "licence", "here")
        for row in rows:
            table.add_row(row["name"], f"{row['title']}\n{row['rows']}", row["license"],
                          row["state"])  # fmt: skip
        console.print(table)
        console.print("Searched: " + clean(", ".join(folders)))

    output({"datasets": rows, "searched": folders}, human)


def _lines(info: dict[str, Any]) -> list[str]:
    lines = [
        f"{info['name']}: {info['title']}",
        f"  {info['rows']}",
        f"  licence: {info['license']}",
        f"  source: {info['source']}" + (f" (DOI {info['doi']})" if info["doi"] else ""),
        f"  reference: {info['citation']}",
        "Files:",
    ]
    for file in info["files"]:
        optional = ", optional" if file["optional"] else ""
        lines.append(f"  {file['folder']}/{file['name']}  {file['size']:,} bytes{optional}")
        lines.append(f"    sha256 {file['sha256']}")
        lines += [f"    {url}" for url in file["urls"]]
        lines.append(f"    {file['status']}" + (f": {file['path']}" if file["path"] else ""))
    if info["manual"]:
        lines.append(info["manual"])
    if info["certificate"]:
        promise = info["certificate"]["guarantee"]
        lines.append(
            f"Embedded synthetic edition: epsilon {promise['epsilon']:.6g}, "
            f"delta {promise['delta']:.3g} per record."
        )
    lines.append("Caveats:")
    lines += [f"  * {caveat}" for caveat in info["caveats"]]
    return lines


@command.command()
@click.argument("name")
@_HOME
@click.option("--schema", "schema_only", is_flag=True, help="Print the public schema as TOML.")
@example("privfair data info adult")
def info(name: str, data_home: Path | None, schema_only: bool) -> None:
    """Tell source, licence, files, hashes and caveats of a data set."""
    from privfair.datasets import dataset_info
    from privfair.datasets._embedded import certificate, has_embedded
    from privfair.datasets._files import file_state, search_path
    from privfair.datasets._registry import get_spec

    facts = dataset_info(name)
    if schema_only:
        from privfair.datasets._schemas import schema_of

        schema = schema_of(name)
        output({"name": name, "schema": schema.to_dict()}, schema.to_toml())
        return
    spec = get_spec(name)
    folders = search_path(data_home)
    for entry, file in zip(facts["files"], spec.files.values(), strict=True):
        found = file_state(spec, file, folders)
        entry.update(status=found["status"], path=found["path"])
    facts["certificate"] = certificate(name) if facts["embedded"] and has_embedded(name) else None
    output(facts, "\n".join(_lines(facts)))


@command.command()
@click.argument("name")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for the files, in the layout of PRIVFAIR_DATA_DIR. Default: the user's cache.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be downloaded, and stop.")
@example("privfair data fetch adult --to data --dry-run")
def fetch(name: str, to: Path | None, dry_run: bool) -> None:
    """Download the files of a data set, verified, and print their paths.

    Needs the extra privfair[data]. Files that are already there are verified and kept.
    """
    from privfair.datasets import dataset_info, download_dataset
    from privfair.datasets._files import cache_dir

    facts = dataset_info(name)
    target = to if to is not None else cache_dir()
    if dry_run:
        plan = [
            {"file": f["name"], "size": f["size"], "sha256": f["sha256"], "urls": f["urls"]}
            for f in facts["files"]
        ]
        human = [f"To {target / facts['files'][0]['folder']}:"]
        for f in plan:
            where = f["urls"][0] if f["urls"] else "not offered for download"
            human.append(f"  {f['file']}  {f['size']:,} bytes  {where}")
        output({"name": name, "to": str(target), "files": plan}, "\n".join(human))
        return
    note(f"Fetching {name} ({facts['license']}) from {facts['source']}")
    paths = download_dataset(name, to)
    output({"name": name, "to": str(target), "paths": paths}, "\n".join(paths))
    if to is not None:
        note(f"Use them with PRIVFAIR_DATA_DIR={to} or data_home={to}.")


@command.command()
@click.argument("name", required=False)
@_HOME
@example("privfair data verify")
def verify(name: str | None, data_home: Path | None) -> None:
    """Compare the files found with the registered checksums.

    Ends with 4 if a file differs, with 3 if a file of the NAME asked for is absent or cannot
    be read.
    """
    from privfair.datasets import verify_datasets

    states = verify_datasets(name, data_home)
    wrong = [entry for entry in states if entry["status"] == "mismatch"]
    gone = [
        entry
        for entry in states
        if entry["status"] == "unreadable"
        or (entry["status"] == "absent" and name is not None and not entry["optional"])
    ]
    lines = [
        f"{entry['status']:<10} {entry['dataset']}/{entry['file']}"
        + (f"  {entry['path']}" if entry["path"] else "")
        for entry in states
    ]
    output({"files": states, "ok": not (wrong or gone)}, "\n".join(lines))
    for entry in [*wrong, *gone]:
        note(entry["message"] or f"{entry['dataset']}/{entry['file']} was not found.")
    if wrong or gone:
        codes = [int(ExitCode.INTEGRITY)] * bool(wrong) + [int(ExitCode.DATA)] * bool(gone)
        finish(*codes)
