"""The error that every failed evaluation ends with."""


class EvaluationError(ValueError):
    """An evaluation that cannot be run as asked; the message says what to change."""
