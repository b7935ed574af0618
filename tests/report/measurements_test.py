"""Files of the benchmark, shown."""

import json

import pytest

from safenet_jax.report import measurements
from safenet_jax.report.document import Table


def test_inference_is_a_row_for_each_plan_and_the_rest_as_it_is():
  rows = [
    {
      'suite': 'inference',
      'name': f'cnn7/{plan}/{name}',
      'setting': plan,
      'value': value,
      'unit': 's',
      'floor': None,
      'ratio': None,
    }
    for plan in ('a', 'b')
    for name, value in (('offline_s', 0.5), ('online_mb', 35.16))
  ] + [
    {
      'suite': 'training',
      'name': 'step',
      'setting': 'x',
      'value': 12345.6,
      'unit': 'images/s',
      'floor': 2.0,
      'ratio': 6172.8,
    }
  ]
  file = {'machine': {}, 'versions': {}, 'rows': rows}
  tables = {b.name: b for b in measurements.blocks({'f': file}) if isinstance(b, Table)}
  found = tables['benchmark_inference']
  assert [row[0] for row in found.rows] == ['cnn7/a', 'cnn7/b']
  values = dict(zip(found.header, found.rows[0]))
  assert values['offline (s)'] == '0.5' and values['online (MB)'] == '35.2'
  assert values['online (s)'] == '–' and values['setting'] == 'a'
  assert tables['benchmark'].rows == [
    ['step', 'training', '12,346', 'images/s', '2', '6.17e+03', 'x']
  ]
  assert tables['benchmark_machines'].rows[0][3] == 'unknown'


@pytest.mark.parametrize('text', ['[]', '{"rows": []}', 'no json'])
def test_other_files_are_refused(tmp_path, text):
  path = tmp_path / 'file.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=str(path)):
    measurements.load(path)
  path.write_text(json.dumps({'machine': {}, 'versions': {}, 'rows': []}))
  assert measurements.load(path)['rows'] == []
