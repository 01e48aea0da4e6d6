"""What of a template only prints: found in its syntax, so that what was made for one node can be completed for others.

The text of a template is decided by what it looks at: conditions, loops, assignments, arguments. What is only printed
decides nothing, so it stays open while a run is noted, as a function that says it for any node. Nodes for which a
template sees the same where it looks have the same text, but for the open places.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

# Expressions that look at nothing but what they are made of, and whose value depends on nothing else.
PURE = (
    nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Concat, nodes.BinExpr, nodes.UnaryExpr,
    nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword,
)  # fmt: skip
UNSTEADY = frozenset({"random"})  # filters that say something else each time


def prepare(tree: nodes.Template, fields: Mapping[str, str], methods: Collection[str]) -> nodes.Template:
    """Names of `fields` become attributes of this_node, which are looked at where they are used and not before; what is
    only tested or printed is marked for the compiler. `methods` of texts and maps are pure."""
    own = {
        each.name
        for each in walk(tree, nodes.Name, nodes.Macro)
        if not isinstance(each, nodes.Name) or each.ctx != "load"
    }
    if "this_node" not in own:
        Qualified({name: field for name, field in fields.items() if name not in own}).visit(tree)
    for found in walk(tree, nodes.If, nodes.CondExpr, nodes.For, nodes.Not, nodes.Output):
        if isinstance(found, nodes.Output):
            printed(found, methods)
        else:
            tested(found.node if isinstance(found, nodes.Not) else found.test)
    return tree


def walk(tree: nodes.Node, *kinds: type[nodes.Node]) -> list[Any]:
    """All of these kinds below `tree`, and it too, in the order of the text. Jinja2's own find_all passes each node
    through as many generators as it is deep: six of them were a twelfth of compiling."""
    found: list[Any] = []
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, kinds):
            found.append(node)
        below: list[nodes.Node] = []
        for name in node.fields:
            value = getattr(node, name, None)
            if isinstance(value, nodes.Node):
                below.append(value)
            elif isinstance(value, list):
                below += [each for each in value if isinstance(each, nodes.Node)]
        left += reversed(below)
    return found


def printed(output: nodes.Output, methods: Collection[str]) -> None:
    for child in output.nodes:
        if isinstance(child, nodes.Call) and isinstance(child.node, nodes.Name):
            child.node.straight = True  # type: ignore[attr-defined]
        elif not isinstance(child, nodes.TemplateData | nodes.Const | nodes.Name) and pure(child, methods):
            child.hole = True  # type: ignore[attr-defined]


def steady(tree: nodes.Template) -> bool:
    """Whether the same looks the same to the template each time."""
    return not any(each.name in UNSTEADY for each in walk(tree, nodes.Filter))


def tested(test: nodes.Node | None) -> None:
    if isinstance(test, nodes.Getattr):
        test.tested = True  # type: ignore[attr-defined]
    elif isinstance(test, nodes.And | nodes.Or):
        tested(test.left)
        tested(test.right)
    elif isinstance(test, nodes.CondExpr) and test.expr2 is not None:
        tested(test.expr1)
        tested(test.expr2)


def pure(node: nodes.Node, methods: Collection[str]) -> bool:
    if isinstance(node, nodes.Call):
        plain = isinstance(node.node, nodes.Getattr) and node.node.attr in methods
        if not plain or node.dyn_args is not None or node.dyn_kwargs is not None:
            return False
    elif not isinstance(node, PURE):
        return False
    return all(pure(each, methods) for each in node.iter_child_nodes())


class Qualified(NodeTransformer):
    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:
        field = self._fields.get(node.name) if node.ctx == "load" else None
        if field is None:
            return node
        whose = nodes.Name("this_node", "load", lineno=node.lineno, environment=node.environment)
        return nodes.Getattr(whose, field, "load", lineno=node.lineno, environment=node.environment)
