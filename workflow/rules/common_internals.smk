"""
What SIDMill asks of Snakemake beyond its documented interface. No other file does.

Two promises need it. An output of a job that failed, or was killed, never passes for finished in the next
run: each output that a run is going to make counts as incomplete from the start of the run. And a file that
no run made is never replaced: Snakemake's record of an output says whether a run made it.

The attributes below are private. They were seen with the version that tests/workflow/test_internals.py
names; that test fails with another version until somebody has looked at them again.
"""

TO_MAKE = {}  # outputs of this run, by path


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


onstart:
    or_stop(locks.hold_folder, STATE)
    or_stop(demo_guard.begin, STATE, outputs_to_make(), is_recorded)
    demo_guard.note(STATE, config["items"]["path"] or config["given"]["path"])
    mark_incomplete()


onsuccess:
    demo_guard.end(STATE, is_recorded)


onerror:
    demo_guard.end(STATE, is_recorded)
