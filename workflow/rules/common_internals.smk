"""
What SIDMill asks of Snakemake beyond its documented interface. No other file does.

Three promises need it. An output of a job that failed, or was killed, never passes for finished in the next
run: each output that a run is going to make counts as incomplete from the start of the run. A file that no
run made is never replaced: Snakemake's record of an output says whether a run made it. And a run ends when
its last job has. Besides, Snakemake's process imports no pandas, which is a quarter of a second and 50 MiB.

The attributes below are private. They were seen with the version that tests/workflow/test_internals.py
names; that test fails with another version until somebody has looked at them again.
"""

from snakemake.iocontainers import Snakemake
from snakemake.persistence import PersistenceBase

from sidmill.core.no_pandas import hidden

STORE_PARAMS = Snakemake._safely_store_params
SERIALIZE_PARAM = PersistenceBase._serialize_param_pandas
TO_MAKE = {}  # outputs of this run, by path
# Jobs and seconds: the default of --max-jobs-per-timespan.
USUAL_LIMIT = (100, 1)


def outputs_to_make():
    """What this run is going to make, by path."""
    jobs = workflow.dag.needrun_jobs()
    TO_MAKE.update((str(file), file) for job in jobs for file in job.output)
    return list(TO_MAKE)


def is_recorded(path):
    """Whether Snakemake has a record of making an output of this run."""
    # A record that was missing at the start of the run may be there now.
    workflow.persistence.deactivate_cache()
    return path in TO_MAKE and bool(workflow.persistence.metadata(TO_MAKE[path]))


def mark_incomplete():
    """Let each output that this run is going to make count as incomplete until it is made."""
    for job in workflow.dag.needrun_jobs():
        workflow.persistence.started(job)


def store_params(job, params):
    """Store the params of a job that runs a script; see `serialize_param`."""
    with hidden("pandas", "polars"):
        STORE_PARAMS(job, params)


def serialize_param(persistence, value):
    """Serialize a value of params, without importing pandas to ask whether it is a table.

    Where pandas is not imported, no value can be one of its tables.
    """
    if "pandas" in sys.modules:
        return SERIALIZE_PARAM(persistence, value)
    return persistence._serialize_param_builtin(value)


def select_when_jobs_end():
    """Let jobs of this machine start whenever others end, and at no other time.

    For its limit of jobs per second Snakemake looks for jobs again a second after each time that it started some,
    and again a second after that while any wait for a core: in a run of many jobs hundreds of times a second. And
    its process ends a second after the last job has started, however short it was.
    """
    limit = workflow.scheduler.job_rate_limiter
    if (
        limit
        and workflow.local_exec
        and (limit.max_jobs, limit.timespan) == USUAL_LIMIT
    ):
        workflow.scheduler.job_rate_limiter = None


Snakemake._safely_store_params = store_params
PersistenceBase._serialize_param_pandas = serialize_param


onstart:
    select_when_jobs_end()
    or_stop(locks.hold_folder, STATE)
    or_stop(demo_guard.begin, STATE, outputs_to_make(), is_recorded)
    demo_guard.note(STATE, config["items"]["path"] or config["given"]["path"])
    mark_incomplete()


onsuccess:
    demo_guard.end(STATE, is_recorded)


onerror:
    demo_guard.end(STATE, is_recorded)
