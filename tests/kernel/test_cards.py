"""Rows of a page's tables whose cells name their column."""

import pytest

from uniscale.cards import labelled


def test_each_cell_names_its_column_and_keeps_what_it_had():
    row = '<tr><td class="n">1</td><td></td></tr>'
    assert labelled(row, ['a "b" & c', ""]) == (
        '<tr><td data-label="a &quot;b&quot; &amp; c" class="n">1</td><td data-label=""></td></tr>'
    )


@pytest.mark.parametrize("header", [["one"], ["one", "two", "three"]])
def test_a_row_has_as_many_cells_as_there_are_columns(header):
    with pytest.raises(ValueError, match="zip"):
        labelled("<tr><td>1</td><td>2</td></tr>", header)
