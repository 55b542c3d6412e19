"""Many pictures: the job, and running any number of them here or on Ray.

`run(jobs, out, engine="local")` is all that most need; `read_tasks` makes jobs of a folder or a manifest.
"""

from paintback.batch.job import Job, run_job
from paintback.batch.run import Progress, Report, run
from paintback.batch.tasks import Task, read_tasks

__all__ = ["Job", "Progress", "Report", "Task", "read_tasks", "run", "run_job"]
