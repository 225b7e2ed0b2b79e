"""Horseshoe: sim-to-real control for robots that manipulate together."""

__version__ = "0.1.0"
