"""The one exception for input that cannot be used."""


class UserError(Exception):
    """Input that cannot be used. Its text says what is wrong, where, and what to do; commands print it and exit with 1."""
