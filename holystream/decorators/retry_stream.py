"""The decorator: which functions it takes, and what it makes of them.

A generator function becomes one that returns a `RetriedStream` (retried.py). A plain
function is handed to tenacity with the policy's strategies. What could not keep its
promise is refused here, when it is decorated.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

import tenacity
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from holystream.decorators.retried import ResumePoint, Retrial, RetriedStream
from holystream.errors import ConfigurationError, InvalidRequest, StreamError, Verdict
from holystream.resilience.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tenacity import BaseRetrying, RetryCallState
    from tenacity.retry import RetryBaseT
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

P = ParamSpec("P")
Item = TypeVar("Item")
Sent = TypeVar("Sent")
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)  # noqa: PLC0105 - of a protocol

_PARAMETER = "resume"
_KEEP = 1


class RetriedFunction(Protocol[P, ResultOut]):
    """A plain function that tenacity retries, with tenacity's attributes."""

    retry: BaseRetrying
    statistics: dict[str, Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ResultOut:
        """Call the function, as often as it takes."""

    def retry_with(self, *args: Any, **kwargs: Any) -> RetriedFunction[P, ResultOut]:
        """Return the function with other options of `tenacity.Retrying`."""

    @overload
    def __get__(self, instance: None, owner: type) -> RetriedFunction[P, ResultOut]: ...
    @overload
    def __get__(
        self, instance: object, owner: type | None = None
    ) -> RetriedFunction[..., ResultOut]: ...


# What returns a generator is told from what returns anything else.
@overload
def retry_stream(  # type: ignore[overload-overlap]
    function: Callable[P, Generator[Item, Sent, Result]], /
) -> Callable[P, RetriedStream[Item, Sent, Result]]: ...
@overload
def retry_stream(  # type: ignore[overload-overlap]
    function: Callable[P, Iterator[Item]], /
) -> Callable[P, RetriedStream[Item, Any, Any]]: ...
@overload
def retry_stream(function: Callable[P, Result], /) -> RetriedFunction[P, Result]: ...
@overload
def retry_stream(
    *,
    policy: RetryPolicy | None = None,
    wait: WaitBaseT | None = None,
    stop: StopBaseT | None = None,
    retry: RetryBaseT | None = None,
    parameter: str = _PARAMETER,
    id_of: Callable[[Any], object] | None = None,
    keep: int | None = _KEEP,
) -> Decorator: ...
def retry_stream(
    function: Callable[..., Any] | None = None,
    /,
    *,
    policy: RetryPolicy | None = None,
    wait: WaitBaseT | None = None,
    stop: StopBaseT | None = None,
    retry: RetryBaseT | None = None,
    parameter: str = _PARAMETER,
    id_of: Callable[[Any], object] | None = None,
    keep: int | None = _KEEP,
) -> Any:
    """Try a generator function again when it fails, and let it go on, not start over.

    The function declares a parameter ``resume``. It is called with a `ResumePoint`
    there, anew after each failure, and yields what comes behind that point::

        @holystream.retry_stream
        def rows(url, *, resume=ResumePoint()):
            with requests.get(url, params={"after": resume.count}, stream=True) as r:
                r.raise_for_status()
                yield from r.iter_lines()

    The caller gets a `RetriedStream`: a generator with ``cancel()``. Each item it
    yields sets the count of attempts back, as new text does in a `RetryPolicy`. Given
    up, it raises the function's own exception. docs/retry_stream.md has the contract.

    A plain function becomes what ``tenacity.retry`` makes of it, `tenacity.RetryError`,
    ``statistics`` and ``retry_with()`` included; only the strategies are the policy's.

    Decorated functions are thread-safe: each call has a state of its own.

    Args:
        function: What to decorate; left out where options are given.
        policy: When to try again. Its default tries again what is a `StreamError` by
            its verdict, and errors of the network by whatever library.
        wait: A tenacity wait in place of the policy's.
        stop: A tenacity stop in place of the policy's.
        retry: A tenacity predicate in place of the policy's. It is asked only about an
            `Exception`, and not about a cancellation.
        parameter: The name of the parameter that takes the `ResumePoint`.
        id_of: Returns the id of an item, for ``ResumePoint.last_id``, or None if it
            has none. By default it is the item's ``id`` attribute.
        keep: How many of the last items a `ResumePoint` holds; None for all.

    Raises:
        ConfigurationError: An option is wrong, or the function cannot be retried:
            it is async, or a generator function without the parameter.
    """
    decorator = Decorator(
        policy=_policy(policy, wait=wait, stop=stop, retry=retry),
        parameter=parameter,
        id_of=id_of,
        keep=keep,
    )
    return decorator if function is None else decorator(function)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decorator:
    """What ``retry_stream(...)`` returns; can be used for many functions.

    The attributes are the arguments of `retry_stream`. Thread-safe.
    """

    policy: RetryPolicy
    parameter: str
    id_of: Callable[[Any], object] | None
    keep: int | None

    def __post_init__(self) -> None:
        if not str(self.parameter).isidentifier():
            raise ConfigurationError(
                "retry_stream(parameter=) must be the name of a parameter, not "
                f"{self.parameter!r}"
            )
        if self.id_of is not None and not callable(self.id_of):
            raise ConfigurationError(
                "retry_stream(id_of=) must be a function of an item, not "
                f"{self.id_of!r}"
            )
        keep = self.keep
        if keep is not None and (type(keep) is not int or keep < 0):
            raise ConfigurationError(
                f"retry_stream(keep=) must be a number of items, or None for all, not "
                f"{keep!r}"
            )

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Generator[Item, Sent, Result]], /
    ) -> Callable[P, RetriedStream[Item, Sent, Result]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Iterator[Item]], /
    ) -> Callable[P, RetriedStream[Item, Any, Any]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Result], /
    ) -> RetriedFunction[P, Result]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        """Decorate a function.

        Raises:
            ConfigurationError: It cannot be retried.
        """
        _check_function(function)
        if _is(inspect.isgeneratorfunction, function):
            return self._retried_generator(function)
        return self._retried_by_tenacity(function)

    def _retried_generator(
        self, function: Callable[..., Generator[Item, Sent, Result]]
    ) -> Callable[..., RetriedStream[Item, Sent, Result]]:
        name = self.parameter
        _check_parameter(function, name)
        retrial = Retrial(
            # tenacity's own way to ask for another attempt, whatever the predicate.
            policy=dataclasses.replace(
                self.policy,
                retry=tenacity.retry_any(
                    self.policy.retry,
                    tenacity.retry_if_exception_type(tenacity.TryAgain),
                ),
            ),
            id_of=self.id_of or _id_of,
            keep=self.keep,
        )

        @functools.wraps(function)
        def begin(*args: Any, **kwargs: Any) -> RetriedStream[Item, Sent, Result]:
            start = kwargs.pop(name, None)
            if start is None:
                start = ResumePoint()
            elif not isinstance(start, ResumePoint):
                raise InvalidRequest(
                    f"{name}= must be a ResumePoint to begin at, or left out, not "
                    f"{start!r}"
                )
            return RetriedStream(
                lambda point: function(*args, **kwargs, **{name: point}),
                retrial,
                start,
            )

        return begin

    def _retried_by_tenacity(
        self, function: Callable[P, Result]
    ) -> RetriedFunction[P, Result]:
        _check_plain(function, self)
        retrying = _Retrying(
            wait=self.policy.wait,
            stop=self.policy.stop,
            retry=_ExceptionsOnly(self.policy.retry),
        )
        return cast("RetriedFunction[P, Result]", retrying.wraps(function))


class _Retrying(tenacity.Retrying):
    """Lets each call count for itself, and publishes its count as it goes.

    tenacity has the calls of all threads count in the one ``statistics`` of the
    function, which each clears as it begins: another then fails with a KeyError.
    """

    def begin(self) -> None:
        self._local.published, self._local.statistics = self.statistics, {}
        super().begin()

    def iter(self, retry_state: RetryCallState) -> Any:
        try:
            return super().iter(retry_state)
        finally:
            self._local.published.update(self.statistics)


@dataclasses.dataclass(frozen=True, slots=True)
class _ExceptionsOnly(retry_base):
    """Asks about no KeyboardInterrupt and the like, nor about what was cancelled.

    tenacity asks about any BaseException, and a predicate that says what not to retry
    would retry a Ctrl-C.
    """

    retry: RetryBaseT

    def __call__(self, retry_state: RetryCallState) -> bool:
        outcome = retry_state.outcome
        error = outcome.exception() if outcome is not None else None
        if error is not None and not isinstance(error, Exception):
            return False
        if isinstance(error, StreamError) and error.verdict is Verdict.CANCELLED:
            return False
        return bool(self.retry(retry_state))


def _policy(policy: RetryPolicy | None, **given: object) -> RetryPolicy:
    if policy is None:
        policy = RetryPolicy()
    if not isinstance(policy, RetryPolicy):
        raise ConfigurationError(
            f"retry_stream(policy=) must be a RetryPolicy, not {policy!r}; tenacity's "
            "objects go to wait=, stop= and retry="
        )
    changes: dict[str, Any] = {
        name: strategy for name, strategy in given.items() if strategy is not None
    }
    return dataclasses.replace(policy, **changes) if changes else policy


def _id_of(item: object) -> object:
    return getattr(item, "id", None)


def _is(kind: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Ask it of a function, or of the ``__call__`` of an object."""
    called = getattr(function, "__call__", None)  # noqa: B004 - of what kind is it?
    return kind(function) or kind(called)


def _check_function(function: object) -> None:
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function).__name__
        raise ConfigurationError(f"put @retry_stream under @{kind}, not over it")
    if not callable(function) or isinstance(
        function, (retry_base, stop_base, wait_base)
    ):
        raise ConfigurationError(
            f"retry_stream decorates a function, not {function!r}; its options go by "
            "name, such as @retry_stream(policy=RetryPolicy(attempts=3))"
        )
    if _is(inspect.iscoroutinefunction, function) or _is(
        inspect.isasyncgenfunction, function
    ):
        raise ConfigurationError(
            f"{_name(function)} is async, and retry_stream is for blocking functions"
        )


def _check_parameter(function: Callable[..., Any], name: str) -> None:
    parameter = inspect.signature(function).parameters.get(name)
    if parameter is not None and parameter.kind in {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }:
        return
    raise ConfigurationError(
        f"{_name(function)} is a generator function without a parameter {name!r}, so "
        "it could only start over and yield again what it has yielded: declare "
        f"'{name}: ResumePoint = ResumePoint()' and go on behind that point"
    )


def _check_plain(function: Callable[..., Any], decorator: Decorator) -> None:
    inner = inspect.unwrap(function)
    if inspect.isgeneratorfunction(inner) and (
        decorator.parameter in inspect.signature(inner).parameters
    ):
        raise ConfigurationError(
            f"{_name(function)} is a generator function in another decorator: put "
            "@retry_stream directly over the function, and the other one over it"
        )
    if decorator.id_of is not None or decorator.keep != _KEEP:
        raise ConfigurationError(
            f"{_name(function)} is no generator function: id_of= and keep= say nothing "
            "about it"
        )


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))
