"""The directive ``privfair-commands``: the help of every command, from the command tree."""

from __future__ import annotations

from collections.abc import Iterator

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from privfair.cli.main import cli


def commands(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, str]]:
    """Yield the words and the help text of a command and of all below it."""
    context: click.Context | None = None
    for word in words[:-1]:
        context = click.Context(click.Command(word), info_name=word, parent=context)
    context = click.Context(command, info_name=words[-1], parent=context)
    context.max_content_width = context.terminal_width = 90
    yield " ".join(words), command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from commands((*words, name), child)


class Commands(SphinxDirective):
    """Insert one section per command."""

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for title, text in commands(("privfair",), cli):
            section = nodes.section(ids=[nodes.make_id(title)])
            section += nodes.title(text=title)
            section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("privfair-commands", Commands)
    return {"parallel_read_safe": True}
