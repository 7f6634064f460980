"""Minimum cuts, by Dinic's algorithm (E. A. Dinic 1970): shortest augmenting paths, many in each phase.

In the graphs of layouts capacities are small and paths between source and sink short and alike, so that a few phases
do, each linear in the edges.
"""

from __future__ import annotations

from collections import deque

SOURCE, SINK = 0, 1


class FlowNetwork:
    """Nodes are numbers: `SOURCE`, `SINK`, and what `add_node` gives."""

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]
        # Edge `i` and its reverse `i ^ 1`.
        self._head: list[int] = []
        self._capacity: list[int] = []

    def add_node(self) -> int:
        self._edges.append([])
        return len(self._edges) - 1

    def add_edge(self, tail: int, head: int, capacity: int, back: int = 0) -> None:
        """It is cut, at the cost of `capacity`, when `tail` is on the source's side and `head` on the sink's.

        `back` is the cost of the other way round.
        """
        for start, end, cost in ((tail, head, capacity), (head, tail, back)):
            self._edges[start].append(len(self._head))
            self._head.append(end)
            self._capacity.append(cost)

    def sink_side(self) -> list[bool]:
        """For each node whether it is on the sink's side of a minimum cut: of all such cuts the one nearest to it."""
        while (level := self._levels())[SINK] >= 0:
            self._augment(level)
        side = [False] * len(self._edges)
        side[SINK] = True
        waiting = [SINK]
        while waiting:
            for edge in self._edges[waiting.pop()]:
                before = self._head[edge]
                if not side[before] and self._capacity[edge ^ 1]:
                    side[before] = True
                    waiting.append(before)
        return side

    def _levels(self) -> list[int]:
        """The distance of each node from the source, -1 when it cannot be reached."""
        level = [-1] * len(self._edges)
        level[SOURCE] = 0
        waiting = deque([SOURCE])
        while waiting:
            node = waiting.popleft()
            for edge in self._edges[node]:
                if self._capacity[edge] and level[self._head[edge]] < 0:
                    level[self._head[edge]] = level[node] + 1
                    waiting.append(self._head[edge])
        return level

    def _augment(self, level: list[int]) -> None:
        """Send all flow that fits along shortest paths (a blocking flow). `path` has the edges walked so far."""
        following = [0] * len(self._edges)
        path: list[int] = []
        node = SOURCE
        while True:
            if node == SINK:
                node = self._push(path)
            edges = self._edges[node]
            while following[node] < len(edges) and not self._leads_on(edges[following[node]], level, node):
                following[node] += 1
            if following[node] < len(edges):
                path.append(edges[following[node]])
                node = self._head[path[-1]]
            elif path:
                node = self._head[path.pop() ^ 1]
                following[node] += 1
            else:
                return

    def _leads_on(self, edge: int, level: list[int], node: int) -> bool:
        return self._capacity[edge] > 0 and level[self._head[edge]] == level[node] + 1

    def _push(self, path: list[int]) -> int:
        """Send what the narrowest edge lets through; back to where it is full."""
        amount = min(self._capacity[edge] for edge in path)
        for edge in path:
            self._capacity[edge] -= amount
            self._capacity[edge ^ 1] += amount
        full = next(place for place, edge in enumerate(path) if not self._capacity[edge])
        node = self._head[path[full] ^ 1]
        del path[full:]
        return node
