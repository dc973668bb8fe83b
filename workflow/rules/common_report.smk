"""Inputs of the rules that report on a run. No rule is defined here."""


def of_workflow(name):
    """The path of a file of the workflow: the same text for every run in one folder, and never in a bucket."""
    return local(os.path.relpath(ROOT / name))


def default_target(wildcards):
    """What a plain run makes."""
    return list(rules.all.input)
