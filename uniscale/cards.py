"""Tables whose rows are cards on a phone: there a cell stands beside the name of its column."""

from collections.abc import Iterable
from html import escape

CARDS = """@media(max-width:48rem){thead{display:none}table,tbody,tr{display:block}
tr{padding:.5rem 0;border-bottom:1px solid #8884}
td{display:flex;justify-content:space-between;gap:1rem;border:0;padding:.1rem 0;text-align:right;overflow-wrap:anywhere}
td::before{content:attr(data-label);opacity:.7;font-weight:400;text-align:left;flex-shrink:0}
td[data-label=""]{justify-content:start;text-align:left}td:first-child{font-weight:600}td:empty{display:none}}
"""


def labelled(row: str, header: Iterable[str]) -> str:
    """The HTML of a row whose cells carry the names of their columns, as many as there are cells."""
    opening, *cells = row.split("<td")
    named = (f'<td data-label="{escape(name)}"{cell}' for name, cell in zip(header, cells, strict=True))
    return opening + "".join(named)
