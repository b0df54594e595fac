"""The one exception for input that cannot be used."""


class UserError(Exception):
    """Input that cannot be used: its text says what is wrong, where, and what to do.

    Commands print it and exit with status 1.
    """
