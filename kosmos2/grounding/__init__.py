"""Grounded text as a value: read it, write it, draw it. No torch, no network."""

from kosmos2.grounding.spans import GroundedText, Malformed, Phrase, mark

__all__ = ["GroundedText", "Malformed", "Phrase", "mark"]
