"""
A tree of tasks as the few lines that a terminal has room for.

Enters: the nodes of a snapshot. Leaves: one Branch a line, from the top down. Siblings of
one name are folded into one line ("resize ×312: 300 ok, 9 running, 3 failed"), and so is
what lies below them. Of a tree that is larger than a snapshot only the counts are drawn.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cq.definition.status import TERMINAL, Status
from cq.progress.publisher import Node
from cq.terminal.text import one_line
from cq.web.snapshot import Rows

FOLD_FROM = 4
"""So many siblings of one name become one line."""

WORDS = {
    name: Status[name.upper()].counted
    for name in (
        *("success", "running", "waiting", "retry", "queued", "pending"),
        *("failure", "incomplete", "lost", "revoked"),
    )
}
"""The words of a state, in the order in which counts are told."""

_MARKED_BY = (
    *("failure", "lost", "incomplete", "revoked"),
    *("retry", "running", "waiting", "queued", "pending", "success"),
)

ENDED = frozenset(status.name.lower() for status in TERMINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One line: a task, or siblings of one name. `stem` is what is drawn before its name."""

    key: str
    stem: str
    name: str
    counts: tuple[tuple[str, int], ...]
    done: float | None = None
    total: float | None = None
    message: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    is_link: bool = False

    @property
    def count(self) -> int:
        """How many tasks the line stands for."""
        return sum(count for _, count in self.counts)

    @property
    def is_over(self) -> bool:
        """Whether all of them have ended."""
        return all(state in ENDED for state, _ in self.counts)

    @property
    def part(self) -> float | None:
        """How far they have come, from 0 to 1; None when nobody knows."""
        if self.total is None or self.done is None or self.total <= 0:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)

    @property
    def state(self) -> str:
        """The state that the line is marked by: trouble first, then what goes on."""
        states = {state for state, _ in self.counts}
        return next(state for state in _MARKED_BY if state in states)

    @property
    def title(self) -> str:
        """The name, with the number of those who bear it."""
        arrow = "→ " if self.is_link else ""
        return f"{arrow}{self.name}" + (f" ×{self.count}" if self.count > 1 else "")

    @property
    def words(self) -> str:
        """The states in words: one of a single task, counts of many."""
        if self.count == 1:
            return WORDS[self.counts[0][0]]
        return ", ".join(f"{count} {WORDS[state]}" for state, count in self.counts)

    @property
    def figures(self) -> str:
        """How far it has come in figures, with what the task says about it."""
        part, texts = self.part, []
        if part is not None and self.count == 1:
            texts = [f"{part:.0%}", f"{self.done:g}/{self.total:g}"]
        elif self.done and self.count == 1:
            texts = [f"{self.done:g}"]
        return " ".join([*texts, self.message] if self.message else texts)


def branches(rows: Rows, watched: str) -> list[Branch]:
    """Return the lines for a task and everything below it, and for what is chained behind."""
    nodes = {node["id"]: node for node in rows.nodes}
    if watched not in nodes:
        return []
    if rows.counts is not None and nodes[watched]["parent"] is None:
        return [_branch([nodes[watched]], ""), *_by_name(rows.counts)]
    below: dict[str | None, list[Node]] = defaultdict(list)
    for node in sorted(nodes.values(), key=lambda node: str(node["id"])):
        below[node["parent"]].append(node)
    heads = [nodes[watched]]
    if nodes[watched]["parent"] is None:
        heads += [node for node in below[None] if node["id"] != watched and node["previous"]]
    found: list[Branch] = []
    for head in heads:
        found.append(_branch([head], "", is_link=head["id"] != watched))
        found += _grow(below[head["id"]], below, "")
    return found


def _grow(
    siblings: Sequence[Node], below: dict[str | None, list[Node]], indent: str
) -> Iterator[Branch]:
    groups = list(_folded(siblings))
    for number, group in enumerate(groups, start=1):
        is_last = number == len(groups)
        yield _branch(group, indent + ("└ " if is_last else "├ "), is_link=_is_link(group[0]))
        children = [child for node in group for child in below[node["id"]]]
        if children:
            yield from _grow(children, below, indent + ("  " if is_last else "│ "))


def _folded(siblings: Sequence[Node]) -> Iterator[list[Node]]:
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in siblings:
        groups[node["name"]].append(node)
    for group in groups.values():
        if len(group) >= FOLD_FROM:
            yield group
        else:
            yield from ([node] for node in group)


def _is_link(node: Node) -> bool:
    return node["previous"] is not None


def _branch(group: Sequence[Node], stem: str, *, is_link: bool = False) -> Branch:
    node = group[0]
    name = short(node["name"])
    counts = in_order(Counter(str(node["status"]) for node in group))
    if len(group) > 1:
        ended = sum(count for state, count in counts if state in ENDED)
        facts = {"done": float(ended), "total": float(len(group)), "message": ""}
    else:
        facts = _facts(node)
    started = [datetime.fromisoformat(node["started"]) for node in group if node["started"]]
    finished = [datetime.fromisoformat(node["finished"]) for node in group if node["finished"]]
    return Branch(
        key=f"{len(stem)} {node['name'] if len(group) > 1 else node['id']}",
        stem=stem,
        name=name,
        counts=counts,
        started=min(started, default=None),
        finished=max(finished) if len(finished) == len(group) else None,
        is_link=is_link,
        **facts,  # type: ignore[arg-type]
    )


def _facts(node: Node) -> dict[str, object]:
    """Of a single task: what it says of itself, or else how many of its children ended."""
    said = node.get("progress")
    if said and node["status"] != "waiting":
        return {
            "done": said["done"],
            "total": said["total"],
            "message": one_line(said["message"] or "", 60),
        }
    children = node.get("children")
    if children:
        return {"done": float(children - node["children_open"]), "total": float(children)}
    return {}


def _by_name(counts: Iterable[dict[str, object]]) -> Iterator[Branch]:
    by_name: dict[str, Counter[str]] = defaultdict(Counter)
    for row in counts:
        by_name[str(row["name"])][str(row["status"])] += int(str(row["count"]))
    for number, (name, states) in enumerate(by_name.items(), start=1):
        ended = sum(count for state, count in states.items() if state in ENDED)
        yield Branch(
            key=f"name {name}",
            stem="└ " if number == len(by_name) else "├ ",
            name=short(name),
            counts=in_order(states),
            done=float(ended),
            total=float(states.total()) if states.total() > 1 else None,
        )


def short(name: str) -> str:
    """Return the name of a task function without the module it is in."""
    return one_line(name, 300).rpartition(".")[2]


def in_order(states: Counter[str]) -> tuple[tuple[str, int], ...]:
    """Return counts of states in the order in which they are told."""
    return tuple((state, states[state]) for state in WORDS if states[state])
