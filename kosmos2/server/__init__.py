"""The model behind an API: one engine, many clients."""

from kosmos2.server.app import create_app
from kosmos2.server.limits import Limits

__all__ = ["Limits", "create_app"]
