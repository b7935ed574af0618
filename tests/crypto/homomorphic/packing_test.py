import contextlib
import itertools
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import map_axes, packing
from tests.support import plain_convolution

DEGREE = 64
BITS = packing.Bits(28, 84, 71, 2)


def negacyclic_product(a, b):
  """a b mod X^N + 1 on integers."""
  full = np.convolve(a, b)
  full = np.pad(full, (0, 2 * a.size - full.size))
  return full[: a.size] - full[a.size :]


def convolve_packed(layout, x, kernel):
  """What the encrypted layer computes, on plain integers."""
  inputs = layout.pack_map(x).reshape(layout.parts, layout.tiles, layout.inputs, layout.degree)
  parts = []
  for group, multipliers in enumerate(layout.pack_kernel(kernel, range(layout.outputs))):
    own = inputs[group // layout.outputs_of_part]
    sums = [sum(negacyclic_product(a, b) for a, b in zip(tile, multipliers)) for tile in own]
    parts.append(np.concatenate(sums)[layout.output_places(group)])
  return np.concatenate(parts, axis=-1)


def draw_layer(layer, seed):
  rng = np.random.default_rng(seed)
  x = rng.integers(1, 100, layer.input_shape)
  kernel = rng.integers(-100, 100, layer.kernel_shape)
  return x, kernel


shapes = st.builds(
  packing.Convolution,
  height=st.integers(1, 12),
  width=st.integers(1, 12),
  channels_in=st.integers(1, 5),
  channels_out=st.integers(1, 5),
  kernel=st.integers(1, 5),
  stride=st.integers(1, 3),
)


@st.composite
def unusual(draw):
  """Convolutions with groups, dilation and any padding; one padding may read zeros alone."""
  groups, kernel, dilation = (
    draw(st.integers(1, 40)),
    draw(st.integers(1, 3)),
    draw(st.integers(1, 3)),
  )
  padding = draw(st.none() | st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2))
  span = (kernel - 1) * dilation + 1
  around = padding or ((span, 0), (span, 0))
  height, width = (draw(st.integers(max(1, span - sum(zeros)), 9)) for zeros in around)
  channels = [groups * draw(st.integers(1, 3 if groups < 5 else 1)) for _ in range(2)]
  stride = draw(st.integers(1, 3))
  return packing.Convolution(height, width, *channels, kernel, stride, groups, dilation, padding)


@settings(deadline=None, max_examples=300)
@given(shapes, st.integers(0, 2**32))
def test_every_shape_stride_and_tiling_convolves_exactly(layer, seed):
  x, kernel = draw_layer(layer, seed)
  layout = packing.layout(layer, DEGREE, BITS)
  want = plain_convolution.convolved(x.astype(np.uint64), kernel, layer)
  np.testing.assert_array_equal(convolve_packed(layout, x, kernel), want.view(np.int64))


@settings(deadline=None, max_examples=300)
@given(unusual(), st.integers(0, 2**32))
def test_groups_dilation_and_padding_convolve_exactly(layer, seed):
  x, kernel = draw_layer(layer, seed)
  layout = packing.layout(layer, 4 * DEGREE, BITS)
  want = plain_convolution.convolved(x.astype(np.uint64), kernel, layer)
  np.testing.assert_array_equal(convolve_packed(layout, x, kernel), want.view(np.int64))


@pytest.mark.parametrize('size, shared, gathered', [(1, 32, 2), (4, 4, 2), (7, 3, 1), (15, 1, 2)])
def test_channels_of_a_depthwise_convolution_share_polynomials(size, shared, gathered):
  """Of 512 coefficients; channels at places that are no two others' middle."""
  layer = packing.Convolution(size, size, 64, 64, 3, groups=64)
  layout = packing.layout(layer, 512, BITS)
  assert (layout.shared, layout.gathered) == (shared, gathered)
  assert layout.uploaded == layout.parts * gathered and layout.outputs == layout.parts
  assert layout.parts == -(-64 // (shared * gathered))


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('kernel_size', [1, 3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_padding_is_symmetric_for_odd_kernels(size, kernel_size, stride):
  layer = packing.Convolution(size, size + 2, 2, 3, kernel_size, stride)
  x, kernel = draw_layer(layer, 0)
  want = lax.conv_general_dilated(
    x[None].astype(np.float32),
    kernel.astype(np.float32),
    (stride, stride),
    [(kernel_size // 2, kernel_size // 2)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=lax.Precision.HIGHEST,
  )[0]
  layout = packing.layout(layer, 512, BITS)
  assert layer.output_shape == want.shape
  np.testing.assert_array_equal(convolve_packed(layout, x, kernel), want)


@settings(deadline=None, max_examples=50)
@given(shapes | unusual(), st.integers(0, 2**32))
def test_parts_of_the_groups_are_parts_of_the_whole(layer, seed):
  _, kernel = draw_layer(layer, seed)
  layout = packing.layout(layer, DEGREE, BITS)
  whole = list(layout.pack_kernel(kernel, range(layout.outputs)))
  middle = layout.outputs // 2
  parts = [range(middle), range(middle, layout.outputs)]
  split = [packed for part in parts for packed in layout.pack_kernel(kernel, part)]
  np.testing.assert_array_equal(split, whole)


def test_a_one_by_one_stride_two_layer_uploads_only_what_it_reads():
  layer = packing.Convolution(8, 8, 4, 1, kernel=1, stride=2)
  layout = packing.layout(layer, DEGREE, BITS)
  assert (layout.tiles, layout.inputs) == (1, 1)  # 4 channels of 16 pixels read


def test_taps_that_meet_only_padding_take_no_room():
  layer = packing.Convolution(1, 1, DEGREE, 1, kernel=3)
  assert packing.layout(layer, DEGREE, BITS).inputs == 1


def test_a_map_beyond_the_degree_is_tiled():
  assert packing.layout(packing.Convolution(20, 20, 1, 1, 3), DEGREE, BITS).tiles > 1


@pytest.mark.parametrize('shape', [(99, 99, 1, 1, 9), (1, 4 * DEGREE, 1, 1, 4 * DEGREE + 1)])
def test_a_kernel_beyond_the_degree_raises(shape):
  """Together with its rows, or its columns alone."""
  with pytest.raises(ValueError, match='coefficients'):
    packing.layout(packing.Convolution(*shape), DEGREE, BITS)


def test_an_empty_shape_raises():
  with pytest.raises(ValueError, match='from 1'):
    packing.Convolution(8, 8, 0, 4, 3)


def test_taps_are_those_that_some_output_reads():
  """Against the definition, for every small axis."""
  for size, kernel, stride in itertools.product(range(1, 8), range(1, 20), range(1, 9)):
    before = (kernel - 1) // 2
    pixels = np.arange(-(-size // stride))[:, None] * stride + np.arange(kernel) - before
    wanted = np.flatnonzero(((pixels >= 0) & (pixels < size)).any(axis=0))
    axis, *_ = map_axes.axes(packing.Convolution(size, 1, 1, 1, kernel, stride), 0)
    assert sorted(axis.taps[axis.taps < kernel]) == wanted.tolist()


@settings(deadline=None, max_examples=100)
@given(shapes | unusual(), st.integers(0, 2**32))
def test_a_map_is_drawn_where_it_lies_first(layer, seed):
  """What `draw_map` fills in is the map of which `pack_map` makes the same polynomials."""
  x, _ = draw_layer(layer, seed)
  layout = packing.layout(layer, DEGREE, BITS)
  packed, drawn = layout.pack_map(x), []

  def draw(polynomial, free):
    given = packed[len(drawn) : len(drawn) + len(free)]
    np.testing.assert_array_equal(polynomial[~free], given[~free])
    assert not polynomial[free].any()  # nobody has told it these
    drawn.extend(given)
    return given

  read = np.unique(layout._source)
  found = layout.draw_map(draw, np.zeros_like(x)).reshape(-1)
  np.testing.assert_array_equal(np.flatnonzero(found), read[read >= 0])
  np.testing.assert_array_equal(found[found != 0], x.reshape(-1)[found != 0])
  assert len(drawn) == len(packed) == len(layout.free)
  assert np.count_nonzero(layout.free) == np.count_nonzero(found) == layout.drawn


def test_pixels_that_no_polynomial_holds_stay_as_they_are():
  layer = packing.Convolution(8, 8, 4, 1, kernel=1, stride=2)
  x, _ = draw_layer(layer, 0)
  layout = packing.layout(layer, DEGREE, BITS)
  drawn = layout.draw_map(lambda _, free: np.where(free, -1, 0), x)
  assert (drawn[::2, ::2] == -1).all()
  drawn[::2, ::2] = x[::2, ::2]
  np.testing.assert_array_equal(drawn, x)


def test_the_dearer_direction_gets_fewer_polynomials():
  layer = packing.Convolution(8, 8, 16, 16, 3)
  found = [
    packing.layout(layer, 512, packing.Bits(1, up, down, 2)) for up, down in ((1, 99), (99, 1))
  ]
  assert found[0].outputs < found[1].outputs and found[0].inputs > found[1].inputs


def test_axes_are_cut_into_all_equal_parts():
  for whole, most in itertools.product(range(1, 60), (1, 7, 60)):
    wanted = {-(-whole // n) for n in range(1, whole + 1)}
    assert map_axes.parts(whole, most) == sorted(part for part in wanted if part <= most)


@pytest.mark.parametrize(
  'shape',
  [
    (65536, 16, 16, 16, 65536, 1),
    (65536, 16, 16, 16, 65536, 65536),
    (4096, 4096, 1, 1, 61, 1),
    (16, 16, 65536, 65536, 33, 16),
  ],
)
def test_a_layout_takes_little_memory_however_large_the_layer_is(shape):
  """The kernel of 65536 once took 32 GiB, on a map of as many rows."""
  tracemalloc.start()
  try:
    with contextlib.suppress(ValueError):
      packing.layout(packing.Convolution(*shape), 4096, BITS)
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
  finally:
    tracemalloc.stop()
