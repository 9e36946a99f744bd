"""The errors and warnings of the package.

    HMatrixError
    ├── ArgumentError (ValueError)   an argument has a value that cannot be used
    ├── FormatError                  a file is not what it should be
    ├── OutputError                  a result cannot be written
    ├── BackendError                 the requested kernel is not available
    ├── NetworkError                 a network, its weights or its layer cannot be used
    ├── DataError                    a data set cannot be used
    └── StudyError                   a study file is malformed

    AccuracyWarning (UserWarning)    a stated accuracy was not reached
    CacheWarning (UserWarning)       a file of a cache is damaged, and is made anew

Every message has three parts: what it is about, what came, and how to mend it.
"""


class HMatrixError(Exception):
    """Base of all errors that the package raises on purpose.

    Parameters
    ----------
    subject
        The argument, file or key that is wrong.
    came
        Value that was found there.
    mend
        Remedy.

    Examples
    --------
    >>> try:
    ...     hm.Truncation(max_rank=0)
    ... except hm.HMatrixError as error:
    ...     print(error)
    max_rank: got 0; give an integer of at least 1
    """

    def __init__(self, subject: str, came: str, mend: str) -> None:
        super().__init__(subject, came, mend)
        self.subject = subject
        self.came = came
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.subject}: {self.came}; {self.mend}"


class ArgumentError(HMatrixError, ValueError):
    """An argument has a value that cannot be used."""


class FormatError(HMatrixError):
    """A file is missing, truncated, or not what it should be."""


class OutputError(HMatrixError):
    """A result cannot be written where it was asked for."""


class BackendError(HMatrixError):
    """The requested kernel is not available on this machine."""


class NetworkError(HMatrixError):
    """A network, its weights or its layer cannot be used."""


class DataError(HMatrixError):
    """A data set cannot be used."""


class StudyError(HMatrixError):
    """A study file is malformed."""


class AccuracyWarning(UserWarning):
    """A stated accuracy was not reached, because the rank was capped.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     H = hm.build(np.eye(400)[::-1], truncation=hm.Truncation(max_rank=1, rtol=0.1))
    >>> caught[0].category.__name__
    'AccuracyWarning'
    """


class CacheWarning(UserWarning):
    """A file of a cache is damaged, and its content is computed again.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", hm.CacheWarning)
    ...     found = hm.allocate(np.eye(64), hm.Budget(storage=0.5))
    """
