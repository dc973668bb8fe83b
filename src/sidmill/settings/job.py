"""The settings of one job, as its script reads them."""

from typing import Any

from sidmill.settings import base
from sidmill.settings.base import Section


def of_job(snakemake: Any, cls: type[Section], param: str | None = None) -> Section:
    """Make the settings section that a rule names in its params.

    Science comes from the rule's params, so that a change of it reruns the rule; a science setting
    that the rule leaves out has its default here, whatever the configuration says, so that a job
    cannot read what its rule does not name. Machine settings come from the configuration.

    Args:
        snakemake: the object that Snakemake puts in a script's namespace.
        cls: the class of the section.
        param: name of the rule's param that holds the section; None: the section's name.
            Snakemake reserves a few names, such as ``items``.
    """
    name = base.section_name(cls)
    science = dict(snakemake.params[param or name])
    configured = snakemake.config[name]
    machine = {key: configured[key] for key in base.machine_keys(cls)}
    return base.read(cls, science | machine)
