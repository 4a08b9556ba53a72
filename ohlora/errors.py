"""Errors that users can correct: the command line shows them as one line instead of a traceback."""


class OhloraError(Exception):
    """Base class: the input, the configuration or an artifact is not as it must be."""


class ConfigError(OhloraError, ValueError):
    """A setting is invalid, by itself or in combination with another one."""


class MissingArtifactError(OhloraError, FileNotFoundError):
    """A file that another command makes does not exist. The message names the file and the command."""


class FormatError(OhloraError, ValueError):
    """A file cannot be used: it is truncated, of another kind, or of another layout than expected."""


class DataError(OhloraError, ValueError):
    """An image or a table cannot be used: it is unreadable, or has a wrong size, mode, column or row."""


class SizeError(DataError):
    """An image has another size than expected."""


class TransparencyError(DataError):
    """An image is transparent in places, and no colour is known to lie behind it."""


class StorageError(OhloraError, OSError):
    """A file cannot be written, for example on a full disk. A file of that name that existed before is unchanged."""


class NonFiniteError(OhloraError, ArithmeticError):
    """A loss or gradient became NaN or infinite. The message names the step and the term."""
