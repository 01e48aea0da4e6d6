from typing import Any

TEXT: int
CHECKED: int
ADDRESS: int
HOST: int
HWADDR: int
NAME: int
LIST: int
TAGS: int
STRUCT: int
STRUCTS: int
OTHER: int

def accepts(tree: Any, plan: dict[str, tuple[int, Any]]) -> bool: ...
