"""Tables in plain text, for terminals and files."""

from collections.abc import Iterator, Sequence


def lines(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
  """A header, a rule and the rows.

  Args:
    header: names of the columns.
    rows: one text for each column.
    left: how many columns, from the first, are aligned to the left. The others are to the right.
  """
  widths = [max(map(len, column)) for column in zip(header, *rows)]
  for row in (header, ['-' * width for width in widths], *rows):
    cells = (
      text.ljust(width) if n < left else text.rjust(width)
      for n, (text, width) in enumerate(zip(row, widths))
    )
    yield '  '.join(cells).rstrip()
