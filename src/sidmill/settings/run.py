"""Settings of run."""

from sidmill.settings.base import science, section


@section("run")
class Run:
    """What holds for the whole run."""

    seed: int = science(42, "seed of all random draws", minimum=0, maximum=4294967295)
