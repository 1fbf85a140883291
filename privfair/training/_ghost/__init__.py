"""Clipped gradient sums from one forward and one backward pass, for networks of known layers."""

from privfair.training._ghost._path import GhostPath

__all__ = ["GhostPath"]
