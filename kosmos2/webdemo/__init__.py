"""The model in a browser: a picture, a question, and an answer whose words light their boxes.

`asking`, `sitting` and `showing` (what is asked, what a user has open, what the page is given) know
nothing of Gradio; `stage` is the picture with its text, `look` what stands around it, `app` what
happens when something is used.
"""

from kosmos2.webdemo.app import build, launch
from kosmos2.webdemo.sitting import Bounds

__all__ = ["Bounds", "build", "launch"]
