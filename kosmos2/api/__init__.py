"""Pictures and questions in, grounded answers out: the only place that joins all the parts.

model = Kosmos2.load()
print(model.caption("photo.jpg").text)
view = model.look("photo.jpg")             # encoded once
view.find("a red cup").boxes
"""

from kosmos2.api.model import Kosmos2, View
from kosmos2.api.questions import Question
from kosmos2.api.replies import Answer, Caption, Description, Found, Reply
from kosmos2.api.settings import Settings

__all__ = [
    "Answer",
    "Caption",
    "Description",
    "Found",
    "Kosmos2",
    "Question",
    "Reply",
    "Settings",
    "View",
]
