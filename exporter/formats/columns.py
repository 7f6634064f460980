"""Wraps a long picture into columns, like a newspaper, so that it fits a page; into rows where it flows to the right.

A column may end where a single box feeds all that comes after; a numbered link leads on to the next column. Encoders
with a decoder are bent into a U instead. Sizes here are estimates in points, good enough to choose which numbers of
columns are worth being laid out. `along` is the direction in which the picture flows, `across` the other one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from exporter.formats.dot_labels import node_facts
from exporter.formats.node_style import label
from exporter.formats.repetition import Block, Node, Part
from exporter.formats.sketch import Arrow, Piece, Sketch, is_framed, title

# Pages of the same area on which text is large enough, width and height in points: a screen, and a sheet on end.
PAGES = ((1400.0, 850.0), (920.0, 1300.0))
# Numbers of columns beside the one that seems best that are tried.
TRIED = 1
# Columns end where one tensor goes on; where that leaves a group higher than this, where up to so many do.
TALLEST, MOST_TENSORS = 1100.0, 4
# Two skips and the way through the bottom.
FEWEST_SKIPS = 3
MOST_COLUMNS = 16
LINE_HEIGHT, RANK_GAP, BOX_GAP, FRAME_MARGIN, BARS = 17.0, 22.0, 18.0, 44.0, 8.0
# Of a character in the small and in the bold type of a box.
SMALL_WIDTH, BOLD_WIDTH = 5.6, 7.6
LINK = "shape=circle, fontsize=10, width=0.25, fixedsize=true, style=filled"


@dataclass(frozen=True)
class Column:
    """The pieces of one column; `arrows` are those inside it, `links` the DOT lines of its ends."""

    pieces: Sequence[Piece]
    arrows: Sequence[Arrow]
    links: Sequence[str]


def scale(width: float, height: float) -> float:
    """By how much a picture must shrink to fit the page that suits it best; 1 where it fits as it is."""
    return max(min(1.0, page[0] / width, page[1] / height) for page in PAGES)


def plans(drawing: Sketch, *, right: bool = False) -> list[list[Column]]:
    """Ways to wrap the picture that may fit a page best, the most promising first; one only for a U."""
    if not drawing.pieces:
        return [[Column((), (), ())]]
    bend = turning_point(drawing)
    if bend is not None:
        return [[Column(drawing.pieces, [bent(arrow, bend) for arrow in drawing.arrows], ())]]
    for tensors in range(1, MOST_TENSORS + 1):
        groups = inseparable(drawing, tensors)
        sizes = [size(drawing, group, right=right) for group in groups]
        if max(along for _, along in sizes) <= TALLEST:
            break
    cuts = [[*(groups[at].start for at in plan), len(drawing.pieces)] for plan in chosen(sizes, right=right)]
    return [wired(drawing, [range(start, stop) for start, stop in pairwise(places)]) for places in cuts]


def turning_point(drawing: Sketch) -> int | None:
    """The last box of the first arm of a U: an encoder and a decoder with nested skips between them (a U-Net)."""
    change = [0] * (len(drawing.boxes) + 1)
    for arrow in drawing.arrows:
        change[arrow.source] += 1
        change[max(arrow.source, arrow.target)] -= 1
    crossing = list(accumulate(change))
    most = max(crossing)
    widest = [place for place, count in enumerate(crossing) if count == most]
    bend = widest[len(widest) // 2]
    skips = [arrow for arrow in drawing.arrows if arrow.source <= bend < arrow.target]
    targets = [arrow.target for arrow in sorted(skips, key=lambda arrow: arrow.source)]
    nested = all(outer > inner for outer, inner in pairwise(targets))
    plain = not any(is_framed(block) for box in drawing.boxes for block in box.blocks) and not any(
        arrow.stub for arrow in skips
    )
    arms = len({arrow.source for arrow in skips}) == len(skips) >= FEWEST_SKIPS
    long = arms and 2 * (targets[0] - min(arrow.source for arrow in skips)) > len(drawing.boxes)
    return bend if nested and plain and long else None


def bent(arrow: Arrow, bend: int) -> Arrow:
    course = "down" if arrow.target <= bend else "up" if arrow.source > bend else "across"
    return replace(arrow, course=course)


def chosen(sizes: Sequence[tuple[float, float]], *, right: bool) -> list[list[int]]:
    """The groups with which the columns start, for the number of columns that seems best and its neighbours."""
    numbers = range(1, min(MOST_COLUMNS, len(sizes)) + 1)
    found = [balanced([along for _, along in sizes], number) for number in numbers]
    scales = [scale(*page_extent(plan, sizes, right=right)) for plan in found]
    best = max(range(len(found)), key=lambda at: (round(scales[at], 2), -at))
    near = [at for at in range(best - TRIED, best + TRIED + 1) if 0 <= at < len(found) and at != best]
    return [found[at] for at in (best, *near)]


def inseparable(drawing: Sketch, tensors: int) -> list[range]:
    """Ranges of pieces between the places where at most so many tensors go on. One sweep over the arrows."""
    starts = [piece.start for piece in drawing.pieces]
    reach: dict[int, int] = {}
    for arrow in drawing.arrows:
        if not arrow.stub:
            low, high = sorted((arrow.source, arrow.target))
            reach[low] = max(reach.get(low, 0), bisect_right(starts, high) - 1)
    open_ends: dict[int, int] = {}
    cuts = [0]
    for place, (start, stop) in enumerate(pairwise([*starts, len(drawing.boxes)])):
        open_ends = {box: end for box, end in open_ends.items() if end > place}
        open_ends |= {box: reach[box] for box in range(start, stop) if reach.get(box, 0) > place}
        if len(open_ends) <= tensors:
            cuts.append(place + 1)
    if cuts[-1] < len(starts):
        cuts.append(len(starts))
    return [range(start, stop) for start, stop in pairwise(cuts)]


def size(drawing: Sketch, pieces: range, *, right: bool) -> tuple[float, float]:
    """Estimated extent across and along of some pieces one after the other, in points."""
    first = drawing.pieces[pieces.start].start
    last = drawing.pieces[pieces.stop].start if pieces.stop < len(drawing.pieces) else len(drawing.boxes)
    rank = dict.fromkeys(range(first, last), 0)
    for arrow in drawing.arrows_into(first, last):
        if arrow.source in rank and arrow.source < arrow.target:
            rank[arrow.target] = max(rank[arrow.target], rank[arrow.source] + 1)
    ranks: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for number, level in rank.items():
        wide, high = box_size(drawing.boxes[number].part)
        ranks[level].append((high, wide) if right else (wide, high))
    titles = [frame_title(drawing.pieces[place]) for place in pieces]
    across = max(sum(wide for wide, _ in level) for level in ranks.values())
    across = across if right else max(across, BOLD_WIDTH * max(map(len, titles)))
    along = sum(max(high for _, high in level) + RANK_GAP for level in ranks.values())
    return across + FRAME_MARGIN, along + FRAME_MARGIN * sum(map(bool, titles))


def frame_title(piece: Piece) -> str:
    """What stands over a framed piece, with room for `×N` and the parameters; empty without a frame."""
    framed = piece.frame or (piece.part if isinstance(piece.part, Block) and is_framed(piece.part) else None)
    return f"{title(framed)} ×22 12.3 M params" if framed else ""


def box_size(part: Part) -> tuple[float, float]:
    """Estimated width and height of a box with the gap beside it, in points."""
    if not isinstance(part, Node):
        return 300.0, 3 * LINE_HEIGHT + BARS
    words = max(len(label(row[0])) for row in part.rows)
    width = max(SMALL_WIDTH * len(node_facts(part.rows)), BOLD_WIDTH * words)
    return width + BOX_GAP, LINE_HEIGHT * (3 + (len(part.rows) > 1) + (len(part.rows) > 2)) + BARS


def balanced(heights: Sequence[float], number: int) -> list[int]:
    """Where the columns start if there are at most `number` of them and the tallest is as low as it can be."""
    low, high = max(heights), sum(heights)
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if len(filled(heights, middle)) <= number else (middle, high)
    return filled(heights, high)


def filled(heights: Sequence[float], limit: float) -> list[int]:
    starts, used = [0], 0.0
    for place, height in enumerate(heights):
        if place and used + height > limit:
            starts.append(place)
            used = 0.0
        used += height
    return starts


def page_extent(plan: Sequence[int], sizes: Sequence[tuple[float, float]], *, right: bool) -> tuple[float, float]:
    """Estimated width and height of the picture with columns that start at the planned groups, in points."""
    pieces = [sizes[start:stop] for start, stop in pairwise([*plan, len(sizes)])]
    across = sum(max(wide for wide, _ in piece) for piece in pieces)
    along = max(sum(high for _, high in piece) for piece in pieces)
    return (along, across) if right else (across, along)


def wired(drawing: Sketch, ranges: Sequence[range]) -> list[Column]:
    """The columns with their arrows. Those into the next column go through a link, longer ones become stubs."""
    firsts = [drawing.pieces[pieces.start].start for pieces in ranges]
    inside: list[list[Arrow]] = [[] for _ in ranges]
    ends: list[dict[str, None]] = [{} for _ in ranges]
    last: dict[int, int] = {}
    for arrow in drawing.arrows:
        source, target = (bisect_right(firsts, number) - 1 for number in (arrow.source, arrow.target))
        if not arrow.stub and target == source + 1:
            last[source] = max(last.get(source, 0), arrow.source)
    for arrow in drawing.arrows:
        source, target = (bisect_right(firsts, number) - 1 for number in (arrow.source, arrow.target))
        if arrow.stub or source == target:
            inside[target].append(arrow)
        elif target == source + 1 and arrow.source == last[source]:
            ends[source][f"n{arrow.source} -> out [weight=4, arrowhead=none];"] = None
            ends[target][f"in -> n{arrow.target};"] = None
        else:
            inside[target].append(replace(arrow, stub=True))
    return [
        Column([drawing.pieces[place] for place in pieces], arrows, list(link_lines(number, lines)))
        for number, (pieces, arrows, lines) in enumerate(zip(ranges, inside, ends, strict=True))
    ]


def link_lines(number: int, lines: dict[str, None]) -> Iterator[str]:
    """The ends of a column: the link that leads in has the number of the column before, the one out its own."""
    if any(line.startswith("in ") for line in lines):
        yield f'in [id=link_in, label="{number}", {LINK}];'
        yield "{rank=min; in;}"
    if any(line.startswith("n") for line in lines):
        yield f'out [id=link_out, label="{number + 1}", {LINK}];'
        yield "{rank=max; out;}"
    yield from lines
