"""The command line. One module per command group, imported when the group is used.

A module ``privfair.cli.<name>`` defines ``command``, a click command or group, and imports
what is heavy inside its functions. ``privfair.cli._common`` has what they share.
"""

__all__: list[str] = []
