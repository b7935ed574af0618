"""The range of every setting that is a number, in one table.

Configs, records such as `Training` and functions such as `train` check what they are given against
it, so that a value is refused by the same words wherever it is written.
"""

from collections.abc import Iterator, Mapping
import math
import numbers
from typing import Any, NamedTuple

# Steps, images and indices are int32 on a device.
_MOST = 2**31 - 1
# Far above any sensible setting, and its square is still a float32.
_LARGE = 1e6


class Range(NamedTuple):
  """The values of one setting; a setting that is a tuple has it for each of its numbers.

  least, most: the ends. Both belong to the range, if `open` does not name them.
  kind: int or float; an int is taken for a float, but no float for an int.
  open: the ends that do not belong to the range, 'least' or 'most'.
  """

  least: float
  most: float
  kind: type = float
  open: tuple[str, ...] = ()

  def holds(self, value: Any) -> bool:
    """Whether it is a number of this kind in the range; False for NaN and for anything else."""
    wanted = numbers.Integral if self.kind is int else numbers.Real
    if not isinstance(value, wanted) or isinstance(value, bool):
      return False
    low = value > self.least if 'least' in self.open else value >= self.least  # type: ignore
    return bool(low and (value < self.most if 'most' in self.open else value <= self.most))

  def wanted(self) -> str:
    """The range in words."""
    if self.kind is int:
      return f'an integer in {self.least}..{self.most}'
    low = 'above' if 'least' in self.open else 'of at least'
    high = 'below' if 'most' in self.open else 'at most'
    return f'a number {low} {self.least:g} and {high} {self.most:g}'


def _count(least: int, most: int = _MOST) -> Range:
  return Range(least, most, int)


_SHARE = Range(0, 1)
_DECAY = Range(0, 1, open=('most',))
_WEIGHT = Range(0, _LARGE)
_POSITIVE = Range(0, _LARGE, open=('least',))
# Far below the longest times that a socket takes.
_SECONDS = Range(0, 1e9, open=('least',))
_PATIENCE = Range(0, 1e9)

# By the name of the setting, or by section and name where a section has a range of its own.
RANGES = {
  'seed': _count(0, 2**64 - 1),
  'limit': _count(0),
  'size': _count(1, 1 << 14),
  'resize': _count(0, 1 << 14),
  'width': Range(0, 64, open=('least',)),
  'mean': _SHARE,
  'std': Range(0, 1, open=('least',)),
  # Training.
  'epochs': _count(0),
  'learning_rate': _POSITIVE,
  'warmup_epochs': _WEIGHT,
  'anneal_epochs': _WEIGHT,
  'batch_size': _count(1),
  'momentum': _DECAY,
  'weight_decay': _WEIGHT,
  'clip_norm': _WEIGHT,
  'coefficient_rate': _WEIGHT,
  'leading_floor': _WEIGHT,
  'range_limit': _POSITIVE,
  'range_penalty': _WEIGHT,
  'range_clip': _WEIGHT,
  'label_smoothing': _DECAY,
  'distillation': _SHARE,
  'temperature': _POSITIVE,
  'ema': _DECAY,
  'recalibration_batches': _count(1),
  'evaluation_batch': _count(1),
  # Search.
  'population': _count(1),
  'iterations': _count(1),
  'node_cycles': _count(1),
  'joint_cycles': _count(1),
  'node_patience': _count(0),
  'supernet_draws': _count(1),
  'accuracy_drop': Range(-1, 1),
  'degrees': _count(0, 3),
  'partial_ratio': _SHARE,
  'subset_layers': _count(0),
  'relu_budget': _count(0),
  'validation_images': _count(1),
  # Fixed point.
  'ring': _count(1, 64),
  'select_ring': _count(1, 64),
  'activation': _count(0, 32),
  'weight': _count(0, 32),
  'activation_bits': _count(0, 32),
  'weight_bits': _count(0, 32),
  'square': _count(0, 32),
  'cubic': _count(0, 32),
  'margin': Range(1, _LARGE),
  # Client and server.
  'workers': _count(0, 1024),
  'sessions': _count(1, 1 << 16),
  'memory_bytes': _count(1, 1 << 50),
  'weights_bytes': _count(1, 1 << 50),
  'keep_prepared': _count(0, 1 << 16),
  'keep_seconds': _PATIENCE,
  'timeout': _SECONDS,
  'idle_seconds': _PATIENCE,
  'handshake_timeout': _SECONDS,
  'session_seconds': _SECONDS,
  'first_command_seconds': _SECONDS,
  'place_seconds': Range(0, 1e9),
  'connections': _count(1, 1 << 16),
  # Private inference.
  'batch': _count(1),
  'images': _count(1),
  'calibration_images': _count(1),
  'report_images': _count(1),
}


def faults(settings: Mapping[str, Any], section: str = '') -> Iterator[str]:
  """What is wrong with settings, one by one and together: 'name value, want range' for each.

  Settings without a range are passed over, but for numbers that are not finite.

  Args:
    settings: by name.
    section: where they are from, for settings whose range depends on it.
  """
  good = set()
  for name, value in settings.items():
    wanted = RANGES.get(f'{section}.{name}', RANGES.get(name))
    each = value if isinstance(value, tuple | list) else (value,)
    if wanted is None:
      if any(isinstance(item, float) and not math.isfinite(item) for item in each):
        yield f'{name} {value}, want a finite number'
    elif all(map(wanted.holds, each)):
      good.add(name)
    else:
      yield f'{name} {value!r}, want {wanted.wanted()}'
  if 'epochs' in good:
    epochs = settings['epochs']
    # Without epochs there is nothing to warm up.
    if epochs and 'warmup_epochs' in good and settings['warmup_epochs'] >= epochs:
      yield f'warmup_epochs {settings["warmup_epochs"]}, want fewer than the {epochs} epochs'
    if 'anneal_epochs' in good and settings['anneal_epochs'] > epochs:
      yield f'anneal_epochs {settings["anneal_epochs"]}, want at most the {epochs} epochs'


def check_type(name: str, value: Any, wanted: type) -> None:
  """Raises a ValueError unless the value is of this class."""
  if not isinstance(value, wanted):
    raise ValueError(f'{name} of type {type(value).__name__}, want a {wanted.__name__}')


def check(settings: Mapping[str, Any], section: str = '') -> None:
  """Raises a ValueError that names everything that is wrong, see `faults`."""
  found = list(faults(settings, section))
  if found:
    raise ValueError('; '.join(found))
