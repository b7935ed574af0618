"""One list of blocks as Markdown, csv, and one page that needs nothing else."""

import base64
import csv
import html.parser
import io
import re

from safenet_jax.report import document
from safenet_jax.report.document import Details, Heading, Picture, Table, Text

ROWS = [['a', 1, document.NOT_RUN], ['a', 2, '<b> & c'], ['b', 3, document.NOTHING]]
BLOCKS = [
  Heading(2, 'First & last'),
  Text('Run `x --y=<z>` again.'),
  Table('numbers', 'Numbers', ('name', 'n', 'text'), ROWS),
  Table('groups', 'Groups', ('name', 'n', 'text'), ROWS, grouped=True),
  Details('More', [Picture('line', 'A line', lambda axes: axes.plot([1, 2]) and {'y': [1, 2]})]),
]


class Tags(html.parser.HTMLParser):
  """Checks that tags are closed in order; `seen` has every tag with its attributes."""

  def __init__(self, text):
    super().__init__()
    self.open, self.seen, self.text = [], [], ''
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attributes):
    self.seen.append((tag, dict(attributes)))
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data

  def all(self, name):
    return [attributes for tag, attributes in self.seen if tag == name]


def written(tmp_path):
  document.write(tmp_path / 'out', 'A <title>', BLOCKS)
  return tmp_path / 'out'


def test_the_page_needs_no_other_file_and_no_network(tmp_path):
  out = written(tmp_path)
  text = (out / 'report.html').read_text()
  tags = Tags(text)
  (picture,) = tags.all('img')
  assert (
    base64.b64decode(picture['src'].partition(',')[2]) == (out / 'report/line.png').read_bytes()
  )
  targets = [a['href'] for a in tags.all('a')]
  assert all(target.startswith(('#', 'data:text/csv')) for target in targets)
  assert 'http' not in text and not tags.all('script') and not tags.all('link')
  # Links of the contents lead somewhere.
  identifiers = {attributes.get('id') for _, attributes in tags.seen}
  assert {t[1:] for t in targets if t.startswith('#')} == {'first-last'} <= identifiers


def test_pictures_and_scrolling_boxes_are_named_for_those_who_cannot_see_them(tmp_path):
  tags = Tags((written(tmp_path) / 'report.html').read_text())
  assert [image['alt'] for image in tags.all('img')] == ['A line']
  boxes = [a for a in tags.all('div') if a.get('class') == 'scroll']
  assert [box['aria-label'] for box in boxes] == ['Numbers', 'Groups']
  assert len(tags.all('table')) == len(boxes) and tags.all('html') == [{'lang': 'en'}]
  assert 'width=device-width' in tags.all('meta')[1]['content']


def test_text_is_escaped_and_backquotes_are_code(tmp_path):
  text = (written(tmp_path) / 'report.html').read_text()
  assert '<code>x --y=&lt;z&gt;</code>' in text and '<title>A &lt;title&gt;</title>' in text
  assert '<td>&lt;b&gt; &amp; c</td>' in text


def test_rows_that_share_their_name_are_shown_together(tmp_path):
  tags = Tags((written(tmp_path) / 'report.html').read_text())
  heads = [(a.get('rowspan'), a.get('colspan')) for a in tags.all('th') if a['scope'] != 'col']
  assert heads == [
    ('2', None),
    (None, None),
    (None, '2'),
    *[(None, None)] * 2,
    (None, '2'),
    (None, None),
  ]


def test_cells_without_a_value_are_told_from_those_with_one(tmp_path):
  text = (written(tmp_path) / 'report.html').read_text()
  assert text.count('<td class="none">not run</td>') == 2
  assert text.count('<td class="none">–</td>') == 2


def test_tables_and_figures_are_csv_too(tmp_path):
  out = written(tmp_path)
  rows = list(csv.reader(io.StringIO((out / 'report/numbers.csv').read_text())))
  assert rows == [['name', 'n', 'text'], *[list(map(str, row)) for row in ROWS]]
  assert (out / 'report/line.csv').read_text().split() == ['y', '1', '2']


def test_markdown_names_files_that_are_there(tmp_path):
  out = written(tmp_path)
  text = (out / 'report.md').read_text()
  links = re.findall(r'\]\((.*?)\)', text)
  assert 'report/line.png' in links and 'report/groups.csv' in links
  assert all((out / link).exists() for link in links)
  assert text.startswith('# A <title>\n') and '### More' in text
  assert '| a | 1 | not run |' in text
