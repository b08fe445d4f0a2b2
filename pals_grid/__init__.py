"""PALS Grid: grid-interactive energy management for LLM inference fleets."""

__version__ = "0.1.0"
