"""A table that fits its terminal: ids stay whole; a row's note moves below it where there is no room beside it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

NOTE_COLUMNS = 24
"""A note that is cut shorter says nothing."""
GAP = 2
_LEAVE_OUT = (3, 1, 4)
"""What a narrow terminal does without, the first first: when it started, its workflow, how long it took."""

Row = tuple[Sequence[str], str]
"""Cells, as markup, and a note."""


def listing(rows: Sequence[Row], headings: Sequence[str], note: str, width: int) -> RenderableType:
    """One line for each row where `width` columns allow; else a second, indented one with the note, if it has one."""
    widths = [
        max(len(heading), *(Text.from_markup(cells[index]).cell_len for cells, _ in rows))
        for index, heading in enumerate(headings)
    ]
    shown = _shown(widths, width)
    first, *others = shown
    widths[first] = max(GAP, min(widths[first], width - sum(widths[index] + GAP for index in others)))
    room = width - sum(widths[index] + GAP for index in shown)
    if room >= NOTE_COLUMNS:
        table = _table(headings, widths, shown, header=True)
        table.add_column(note, no_wrap=True, overflow="ellipsis", max_width=room)
        for cells, text in rows:
            table.add_row(*(cells[index] for index in shown), Text(text))
        return table
    parts: list[RenderableType] = []
    for number, (cells, text) in enumerate(rows):
        table = _table(headings, widths, shown, header=number == 0)
        table.add_row(*(cells[index] for index in shown))
        parts.append(table)
        if text:
            parts.append(Padding(Text(text, style="dim", no_wrap=True, overflow="ellipsis"), (0, 0, 0, GAP)))
    return Group(*parts)


def _shown(widths: Sequence[int], width: int) -> list[int]:
    """The columns that fit."""
    shown = list(range(len(widths)))
    for index in _LEAVE_OUT:
        if sum(widths[each] + GAP for each in shown) - GAP <= width:
            break
        shown.remove(index)
    return shown


def _table(headings: Sequence[str], widths: Sequence[int], shown: Sequence[int], *, header: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0), show_header=header)
    for index in shown:
        table.add_column(headings[index], overflow="fold", width=widths[index])
    return table
