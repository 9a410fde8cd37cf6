"""The exceptions of wkvnp.

Every message says which function or file, which argument or tensor, what it must be and what it was.
"""


class WkvnpError(Exception):
    """Root of every error that wkvnp raises on purpose."""


class ArgumentError(WkvnpError, ValueError):
    """An argument has a value that the function does not take."""


class ShapeError(ArgumentError):
    """An array has the wrong shape, or does not fit the shapes of others."""


class KeywordError(ArgumentError, TypeError):
    """A function was given a keyword that it does not have; the message names those that it has."""


class DeviceError(WkvnpError, TypeError):
    """Arrays of different devices were mixed, or a device is absent."""


class CheckpointError(WkvnpError, ValueError):
    """A file is not a readable checkpoint, or not one of a supported model."""


class TokenizerError(WkvnpError, ValueError):
    """A vocabulary cannot be read, or text and token ids do not fit it."""


class StateError(WkvnpError, ValueError):
    """A state belongs to another model, or its file cannot be read."""


class UnknownFieldWarning(UserWarning):
    """A configuration has fields that no software is known to read; the message names them, and they do nothing."""


class MissingExtraError(WkvnpError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'wkvnp[{extra}]'"
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_missing_extra, (self.package, self.extra, str(self)))


def _rebuild_missing_extra(package: str, extra: str, message: str) -> MissingExtraError:
    error = MissingExtraError.__new__(MissingExtraError)
    ImportError.__init__(error, message)
    error.package, error.extra = package, extra
    return error
