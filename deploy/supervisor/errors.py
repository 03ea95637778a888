"""What ends a run early; the text goes to the user."""


class WrongUse(Exception):
    """Flags, configuration or run directory are not what they must be: exit code 2."""


class Failure(Exception):
    """The run was tried and failed: exit code 1."""
