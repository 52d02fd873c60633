"""Every picture of a folder, list, table or tar into grounded records: each once, in order.

kosmos2.sources says where the pictures are: one item each, found once and frozen as a list.

asking          an item -> questions; their answers -> a record
worker          a unit of items -> its files; what a process of a driver runs
job             the list, the units, a driver, the result; goes on where it was stopped
outputs         finished units -> the output, the errors, drawings, crops and pages
"""

from kosmos2.annotate.job import Job, Progress, Report, annotate
from kosmos2.annotate.outputs import Outputs
from kosmos2.annotate.plan import Making, Plan, Task, resolved
from kosmos2.sources.inputs import Looking

__all__ = [
    "Job",
    "Looking",
    "Making",
    "Outputs",
    "Plan",
    "Progress",
    "Report",
    "Task",
    "annotate",
    "resolved",
]
