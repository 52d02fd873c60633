"""What a client may ask for, and what it costs at most."""

from __future__ import annotations

from dataclasses import dataclass

from kosmos2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    max_body: int = 32 << 20
    """Bytes of a request; a larger one is answered with 413 before it is read to its end."""
    max_pixels: int = 50_000_000
    """Of a picture; a larger one is refused before it is decoded."""
    max_pictures: int = 8
    """Of one request."""
    max_questions: int = 32
    """Phrases or boxes of one request."""
    max_text: int = 4_000
    """Characters of a question, a caption or a phrase."""
    max_new_tokens: int = 1_024
    max_waiting: int = 64
    """Requests that are worked at or wait; one more is answered with 503."""
    max_per_client: int = 32
    """Of these, requests of one address or key; one more is answered with 429."""
    seconds: float = 120.0
    """For a request, waiting included; then it is given up with 503."""
    allow_urls: bool = False
    """Whether pictures may be named by their URL; private addresses are refused always."""
    api_keys: tuple[str, ...] = ()
    """Where there are any, a request must bring one."""

    def __post_init__(self) -> None:
        for name in (
            "max_body", "max_pixels", "max_pictures", "max_questions", "max_text",
            "max_new_tokens", "max_waiting", "max_per_client",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.seconds > 0:
            raise ConfigError(f"seconds must be above 0, got {self.seconds}")
        if any(not key or not key.isascii() for key in self.api_keys):
            raise ConfigError("an API key must be ASCII and not empty")
