from collections.abc import Callable
from typing import Any

def make_getattr(
    struct: type, open: frozenset[type], undefined: Callable[[Any, str], Any], fallback: Callable[[Any, str], Any]
) -> Callable[[Any, str], Any]: ...
def make_getitem(
    struct: type,
    undefined: Callable[[Any, str], Any],
    getattr_: Callable[[Any, str], Any],
    fallback: Callable[[Any, Any], Any],
) -> Callable[[Any, Any], Any]: ...
def make_call(plain: frozenset[Callable[..., Any]], fallback: Callable[..., Any]) -> Callable[..., Any]: ...
def finalize(value: Any) -> Any: ...
