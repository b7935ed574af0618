"""Records: walking order, shapes, producers."""

import gc
import weakref

import pytest

from safenet_jax.models import layers

BLOCK = (layers.Conv(4), layers.Activation(), layers.Conv(4))


class Names:
  """Operations that note the names they are called with."""

  def __init__(self):
    self.seen = []

  def _note(self, name, layer, value):
    self.seen.append(name)
    return value

  conv = activation = pad_shortcut = _note

  def add(self, branch, shortcut):
    self.seen.append('+')
    return branch + shortcut


def test_names_count_in_walking_order_across_nested_tuples():
  names = Names()
  inner = layers.Residual((layers.Conv(4),), (layers.PadShortcut(4),))
  outer = layers.Residual((*BLOCK, inner), (layers.Conv(4),))
  assert layers.run((outer, layers.Conv(4)), names, 1) == 3
  assert names.seen == [
    'conv0',
    'activation0',
    'conv1',
    'conv2',
    'pad_shortcut0',
    '+',
    'conv3',
    '+',
    'conv4',
  ]


def test_records_without_a_method_are_refused_before_their_branch_runs():
  names = Names()
  with pytest.raises(ValueError, match='^MaxPool is not served yet$'):
    layers.run((layers.MaxPool(),), names, 1)
  names.add = None
  with pytest.raises(ValueError, match='^Residual is not served yet$'):
    layers.run((layers.Residual(BLOCK),), names, 1)
  assert names.seen == []


def test_shapes_of_every_kind():
  found = layers.shapes(
    (
      layers.Conv(4, stride=2),
      layers.MaxPool(2),
      layers.Residual((layers.Conv(6, kernel=5),), (layers.PadShortcut(6),)),
      layers.AveragePool(None),
      layers.Flatten(),
      layers.Dense(3),
    ),
    (11, 11, 2),
  )
  assert [(shape.name, shape.output_shape) for shape in found] == [
    ('conv0', (6, 6, 4)),
    ('max_pool0', (3, 3, 4)),
    ('conv1', (3, 3, 6)),
    ('pad_shortcut0', (3, 3, 6)),
    ('average_pool0', (1, 1, 6)),
    ('flatten0', (6,)),
    ('dense0', (3,)),
  ]


def test_macs_count_every_product():
  shapes = layers.shapes(
    (layers.Conv(8, kernel=3, stride=2), layers.Flatten(), layers.Dense(10)), (5, 5, 3)
  )
  assert [shape.macs for shape in shapes] == [3 * 3 * 8 * 9 * 3, 0, 72 * 10]


@pytest.mark.parametrize(
  'record, given, field',
  [
    (layers.Conv, {'features': 0}, 'features'),
    (layers.Conv, {'features': '64'}, 'features'),
    (layers.Conv, {'features': 4, 'kernel': (3, 1)}, 'kernel'),
    (layers.Conv, {'features': 4, 'kernel': -3}, 'kernel'),
    (layers.Conv, {'features': 4, 'stride': 0}, 'stride'),
    (layers.Dense, {'features': 2.5}, 'features'),
    (layers.Dense, {'features': 2**40}, 'features'),
    (layers.AveragePool, {'window': 0}, 'window'),
    (layers.MaxPool, {'window': None}, 'window'),
    (layers.MaxPool, {'window': True}, 'window'),
    (layers.PadShortcut, {'features': 4, 'stride': -1}, 'stride'),
  ],
)
def test_a_record_is_refused_where_it_is_made(record, given, field):
  with pytest.raises(ValueError) as found:
    record(**given)
  wanted = f'{record.__name__} with {field} {given[field]!r}, want an integer in 1..1048576'
  assert str(found.value) == wanted


@pytest.mark.parametrize(
  'record, given, message',
  [
    (layers.Conv, {'groups': 0}, 'Conv with groups 0, want an integer in 1'),
    (layers.Conv, {'groups': 3}, 'Conv with features 4, want a multiple of its 3 groups'),
    (layers.Conv, {'dilation': 1.5}, 'Conv with dilation 1.5, want an integer'),
    (layers.Conv, {'padding': 1}, r'Conv with padding 1, want \(\(top, bottom\), \(left'),
    (layers.Conv, {'padding': ((1, 1), (1, -1))}, r'Conv with padding \(\(1, 1\), \(1, -1\)\)'),
    (layers.Conv, {'padding': ((1, 1), (1, True))}, r'Conv with padding'),
    (layers.Conv, {'epsilon': 0}, 'Conv with epsilon 0, want a number between 0 and 1'),
    (layers.Dense, {'epsilon': '1e-3'}, "Dense with epsilon '1e-3'"),
    (layers.Dense, {'epsilon': float('nan')}, 'Dense with epsilon nan'),
  ],
)
def test_a_convolution_of_another_form_is_refused_where_it_is_made(record, given, message):
  with pytest.raises(ValueError, match=message):
    record(4, **given)
  with pytest.raises(ValueError, match='BatchNorm with epsilon -1'):
    layers.BatchNorm(-1)


def test_padding_may_be_lists():
  assert layers.Conv(4, padding=[[0, 1], [2, 3]]) == layers.Conv(4, padding=((0, 1), (2, 3)))


def test_what_is_no_record_is_refused_in_a_block_and_alone():
  with pytest.raises(ValueError, match="^unknown layer 'conv', want one of Conv, Dense"):
    layers.Residual((layers.Conv(3),), ('conv',))
  with pytest.raises(ValueError, match=r'^layers Flatten\(\), want a tuple of records'):
    layers.shapes(layers.Flatten(), (8, 8, 3))


@pytest.mark.parametrize(
  'records, message',
  [
    ((layers.Dense(3),), 'Flatten'),
    ((layers.AveragePool(3),), 'divide'),
    ((layers.MaxPool(3),), 'divide'),
    ((layers.Conv(2), layers.PadShortcut(1)), 'at most 1'),
    ((layers.Residual((layers.Conv(4),)),), 'residual branch'),
    ((layers.Residual((layers.Conv(3, stride=2),)),), 'residual branch'),
    ((layers.Flatten(), layers.Conv(3)), 'map'),
    ((layers.Conv(4, groups=2),), 'conv0 got 3 channels, want a multiple of its 2 groups'),
    ((layers.Conv(4, dilation=5, padding=((1, 1), (1, 1))),), '11 x 11 window fits'),
    (('conv',), 'unknown layer'),
  ],
)
def test_layers_that_do_not_fit_are_refused(records, message):
  with pytest.raises(ValueError, match=message):
    layers.shapes(records, (8, 8, 3))


def test_windows_lie_where_the_fields_say():
  shape = layers.shapes((layers.MaxPool(3, 2, ((1, 1), (1, 1))),), (6, 7, 2))[0].output_shape
  assert shape == (3, 4, 2)
  # A stride drops what is left, as PyTorch does.
  assert layers.shapes((layers.AveragePool(2, 2),), (5, 7, 1))[0].output_shape == (2, 3, 1)
  assert layers.shapes((layers.AveragePool(None),), (5, 7, 1))[0].output_shape == (1, 1, 1)
  with pytest.raises(ValueError, match='a pool of window 3 on a 2 x 8 map, want a larger map'):
    layers.shapes((layers.MaxPool(3, 1),), (2, 8, 1))


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: layers.AveragePool(2, 0), 'AveragePool with stride 0'),
    (lambda: layers.MaxPool(2, padding=((1, 1), (0, 2))), 'want less than the window of 2'),
    (lambda: layers.MaxPool(2, padding=(1, 1)), 'want \\(\\(top, bottom\\), \\(left, right'),
    (lambda: layers.AveragePool(None, 1), 'over the whole map with a stride'),
    (lambda: layers.Activation(limit=0), 'Activation with limit 0, want a positive number or None'),
    (lambda: layers.Activation(slope=True), 'Activation with slope True, want a number in -1..1'),
    (lambda: layers.Activation(slope=float('nan')), 'Activation with slope nan'),
    (lambda: layers.Concat(()), 'Concat without branches'),
  ],
)
def test_fields_that_mean_nothing_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_sides_of_a_concatenation_have_one_size():
  two = layers.Concat(((layers.Conv(1),), (layers.AveragePool(2),)))
  with pytest.raises(ValueError, match='a Concat of .* and .*, want maps of one size'):
    layers.shapes((two,), (4, 4, 3))
  assert layers.shapes((layers.Concat(((), ())), layers.Conv(1)), (4, 4, 3))[0].input_shape[-1] == 6


def test_a_walk_leaves_nothing_to_the_collector_of_cycles():
  """Operations hold what a party prepared: megabytes of every inference."""
  names = Names()
  held = weakref.ref(names)
  gc.disable()
  try:
    layers.run((layers.Residual(BLOCK, (layers.Conv(4),)),), names, 1)
    del names
    assert held() is None
  finally:
    gc.enable()
