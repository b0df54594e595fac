"""Exception for input that cannot be used."""


class UserError(Exception):
    """Error in the user's input. Its message contains what is wrong, where, and what to do.

    Commands print the message and exit with status 1.
    """
