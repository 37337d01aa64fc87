"""Agents that break exactly one rule each, by the name of the check that must catch them."""

from . import acting, capabilities, learning, masks, memory, settings
from .capabilities import Remembers
from .registry import SABOTAGE

__all__ = ["SABOTAGE", "Remembers", "acting", "capabilities", "learning", "masks", "memory", "settings"]
