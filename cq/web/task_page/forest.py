"""
The tree of a task in the order people read it, with many siblings of one function as one entry.

Nodes of a snapshot enter; what leaves are entries with their depth, the failed path open.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cq.definition.status import Status
from cq.progress.publisher import Node

FOLD_ABOVE = 20
FAILED_SHOWN = 5

_FAILED = frozenset({"failure", "incomplete", "lost"})


@dataclass(slots=True)
class Entry:
    """One line of the tree: a task, or many siblings of one function."""

    depth: int
    node: Node | None = None
    name: str = ""
    many: list[Node] = field(default_factory=list)

    @property
    def tally(self) -> str:
        """How many of them are in which status, in words; what ended comes first, as in `cq.js`."""
        counts = Counter(node["status"] for node in self.many)
        known = ((counts[status.name.lower()], status) for status in reversed(Status))
        return " · ".join(f"{count} {status.counted}" for count, status in known if count)


def below(nodes: Sequence[Node], top: str) -> list[Node]:
    """The nodes at and below one of them; all for the root."""
    parents = {node["id"]: node.get("parent") for node in nodes}
    return [node for node in nodes if top in _lineage(node["id"], parents)]


def lineage(nodes: Sequence[Node], id: str) -> list[Node]:
    """The known ancestors of a node, from the top down."""
    by_id = {node["id"]: node for node in nodes}
    parents = {node["id"]: node.get("parent") for node in nodes}
    above = [by_id[one] for one in _lineage(id, parents) if one in by_id and one != id]
    return above[::-1]


def _lineage(id: str | None, parents: dict[str, Any]) -> Iterator[str]:
    while id is not None and id in parents:
        yield id
        id = parents[id]


def entries(nodes: Sequence[Node], top: str) -> list[Entry]:
    """Every node below `top` in the order of the tree, siblings folded where they are many."""
    children: dict[str, list[Node]] = defaultdict(list)
    known = {node["id"] for node in nodes}
    for node in nodes:
        if node["id"] != top:
            parent = str(node.get("parent"))
            children[parent if parent in known else top].append(node)
    found: list[Entry] = []
    waiting = [iter(_folded(children[top], 0))]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        found.append(entry)
        if entry.node is not None:
            waiting.append(iter(_folded(children[entry.node["id"]], entry.depth + 1)))
    return found


def _folded(siblings: Sequence[Node], depth: int) -> list[Entry]:
    """The siblings in order; what follows a predecessor stands behind the others."""
    ordered = sorted(siblings, key=lambda node: node.get("previous") is not None)
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in ordered:
        groups[node["name"]].append(node)
    found: list[Entry] = []
    for node in ordered:
        many = groups[node["name"]]
        if len(many) <= FOLD_ABOVE:
            found.append(Entry(depth, node))
        elif many[0] is node:
            found.append(Entry(depth, name=node["name"], many=many))
            failed = [one for one in many if one["status"] in _FAILED]
            found += [Entry(depth + 1, one) for one in failed[:FAILED_SHOWN]]
    return found
