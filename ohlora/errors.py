"""Errors a user can mend: the entry point shows them as one line instead of a traceback."""


class OhloraError(Exception):
    """Something about the input, the configuration or the artifacts is not as it must be."""


class ConfigError(OhloraError, ValueError):
    """A setting does not fit, by itself or together with another."""


class MissingArtifactError(OhloraError, FileNotFoundError):
    """A file that another command makes is not there. The message names the file and the command."""


class FormatError(OhloraError, ValueError):
    """A file is not what it should be: truncated, of another kind, or of another layout."""


class DataError(OhloraError, ValueError):
    """Images or tables do not fit: unreadable, wrong size, wrong mode, wrong row."""


class StorageError(OhloraError, OSError):
    """A file cannot be written, as on a full disk. What was there before is untouched."""


class NonFiniteError(OhloraError, ArithmeticError):
    """A loss or gradient became NaN or infinite. The message names the step and the term."""
