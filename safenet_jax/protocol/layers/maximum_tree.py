"""Max pools without garbling: a tree of comparisons, each a sign test and a select.

The larger of two values is b + ReLU(a - b). The parties have shares of a and b, and so of a - b;
`millionaires` makes shares of the ReLU, to which each party adds its own share of b. The client has
to know its share of what the next level compares offline. So it draws a mask r for every maximum,
which is that share, and tells the server the rest:

             client                                   server
  online       <-- messages of `millionaires`, word ---
             v = its share of ReLU(a - b)             rho = the server's
               -- B = v + b_c - r ------------------->
                                                      m = B + rho + b_s

b_c and b_s are the shares of b. The next level has r and m as shares of the maximum. After the last
level comes `truncation` instead, which does the same and changes the ring. So a level takes two
round trips, as a ReLU layer does, and a maximum in the middle one word more.

Windows are reduced along their columns first and then along their rows, as neighbours share the
maxima of rows. Along an axis the values of a window are put together in pairs, which windows share
too where they have the same ones. ReLU(max) is the maximum of one value more: zero, of which both
parties' shares are zero, is a row of each window. For an odd number of rows it costs no level. What
a window takes where the map is large:

    window               comparisons    levels
    2 x 2, stride 2        3 + 1         2 + 1    with + where it has a ReLU
    3 x 3, stride 2        6 + 1         4
    3 x 3, stride 1        4 + 1         4
    all of 8 x 8          63 + 1         6 + 1

Values are words of w = k - t bits, as in `max_pool`: the low k bits of a share without the lowest
t, and one for the server, as two roundings down lose one unit on average. Differences take a bit
more. So all is done in the ring of w + 1 bits, the format's `select_bits`, and k + 1 bits of the
inputs' shares are used. The result is at most one unit from the largest value.

What the client sees is what it sees of a ReLU (`millionaires`). It gets nothing else.

What the server sees: B is under r, which is uniform, fresh, and a mask here only. Where r is a
share of what is compared, it enters choices of transfers and factors under pads, which hide it.
"""

from collections.abc import Generator
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.fixed_point.formats import ActivationFormat
from safenet_jax.models.windows import Axis, Windows

# Axes of a map [B, H, W, C], in the order in which they are reduced.
_COLUMNS, _ROWS = 2, 1


class _Level(NamedTuple):
  """Along an axis, the places of the values that are compared: `left[i]` with `right[i]`.

  Places count the values of the map, a zero behind them if there is one, and then the maxima of
  each level.
  """

  left: np.ndarray
  right: np.ndarray


@functools.lru_cache(maxsize=64)
def _along(axis: Axis, zero: bool) -> tuple[_Level, ...]:
  """The levels of an axis; the last one gives the maxima of the windows in order."""
  places, total = np.clip(axis.places, 0, axis.length - 1), axis.length
  if zero:
    places, total = np.pad(places, ((0, 0), (0, 1)), constant_values=total), total + 1
  if places.shape[1] == 1:
    places = places.repeat(2, 1)  # each is compared with itself, so that there is a level
  found = []
  while places.shape[1] > 2:
    paired = places.shape[1] // 2 * 2
    left, right = places[:, :paired:2], places[:, 1:paired:2]
    # In the padding a value is compared with itself, which needs no comparison.
    open_ = left != right
    pairs, which = np.unique(left[open_] * total + right[open_], return_inverse=True)
    maxima = left.copy()
    maxima[open_] = total + which.reshape(-1)
    found.append(_Level(pairs // total, pairs % total))
    places, total = np.concatenate([maxima, places[:, paired:]], 1), total + pairs.size
  return *found, _Level(*places.T)


def _windows(form: ActivationFormat) -> Windows:
  if form.windows is None or not form.maximum:
    raise ValueError(f'{form.pool}, want a max pool')
  return form.windows


def levels(form: ActivationFormat) -> list[ActivationFormat]:
  """The format of each level of a layer with a max pool: that of a ReLU layer of differences.

  The map of a level's format has one value for every comparison.
  """
  rows, columns = _windows(form)
  shapes = [(rows.length, level.left.size) for level in _along(columns, False)]
  shapes += [(level.left.size, columns.count) for level in _along(rows, form.rectified)]
  return [
    dataclasses.replace(
      form,
      pool=None,
      map_shape=shape,
      input_fraction=form.output_fraction,
      sign_bits=form.select_bits,
    )
    for shape in shapes
  ]


def compared(
  share: np.ndarray, form: ActivationFormat, *, server: bool
) -> Generator[tuple[np.ndarray, np.ndarray], np.ndarray, None]:
  """A party's walk through the levels of a layer.

  Gives for each level the party's share of a - b, and of b; takes its share of the maxima, but for
  the last level. All are uint64 [B, H', W', C] with the map of the level, in the ring of
  `select_bits`.

  Args:
    share: of the layer's inputs, uint64 [B, H, W, C], with k + 1 bits at least.
    form: of the layer.
    server: whose share it is: the server's gets the one for both roundings.
  """
  rows, columns = _windows(form)
  values = ring.reduce(share, form.sign_bits + 1) >> np.uint64(form.dropped)
  values = values + np.uint64(server and form.dropped > 0)
  for axis, found in ((_COLUMNS, _along(columns, False)), (_ROWS, _along(rows, form.rectified))):
    if axis == _ROWS and form.rectified:
      values = np.pad(values, ((0, 0), (0, 1), (0, 0), (0, 0)))
    for level in found:
      a, b = (np.take(values, places, axis) for places in level)
      maxima = yield ring.reduce(a - b, form.select_bits), b
      values = np.concatenate([values, maxima], axis) if level is not found[-1] else maxima
