"""Many pictures: running any number of requests here or on Ray.

`run(requests, out, engine="local")` is all that most need; `read_tasks` makes them of a folder or a manifest.
"""

from paintback.batch.job import run_job
from paintback.batch.run import Progress, Report, run
from paintback.batch.tasks import Task, read_tasks
from paintback.painting.request import Request

__all__ = ["Progress", "Report", "Request", "Task", "read_tasks", "run", "run_job"]
