"""Checks every setting of a config when it is read: all faults in one message."""

from collections.abc import Iterator
import os
from typing import Any

from safenet_jax import archives, ranges
from safenet_jax.approximation import plans
from safenet_jax.models import architectures
from safenet_jax.protocol.estimate import links
from safenet_jax.protocol.service import sessions
from safenet_jax.search import strategy
from safenet_jax.search.planners import algorithms
from safenet_jax.search.training import DTYPES

# Settings with few values; in a tuple each has to be one of them.
CHOICES: dict[str, tuple[Any, ...]] = {
  'data.name': tuple(archives.SOURCES),
  'search.algorithm': algorithms.NAMES,
  'search.cost': ('published', 'measured'),
  'search.mode': tuple(sessions.MODES),
  'search.strategy': (*strategy.STRATEGIES, 'auto'),
  'search.degrees': plans.DEGREES,
}


def check(config) -> None:
  """ValueError for settings out of their ranges, alone or together; it names all of them.

  The ranges of numbers are those of `safenet_jax.ranges`. A number without one, such as an option
  of a network of your own, has to be finite.
  """
  settings = config.to_dict()
  if found := list(_faults(settings)):
    raise ValueError('; '.join(found))


def _faults(settings: dict[str, Any]) -> Iterator[str]:
  sections = {name: value for name, value in settings.items() if isinstance(value, dict)}
  others = {name: value for name, value in settings.items() if name not in sections}
  yield from ranges.faults(others)
  found = {
    section: [*ranges.faults(values, section), *_unknown(values, section)]
    for section, values in sections.items()
  }
  for section, those in found.items():
    # An option of fine-tuning has the search's value until it is set: that is one fault, not two.
    named = found.get('search', ()) if section == 'finetune' else ()
    yield from (f'{section}.{fault}' for fault in those if fault not in named)
  try:
    links.parse(sections.get('search', {}).get('link', 'lan'))
  except ValueError as error:
    yield f'search.link: {error}'
  for section in ('teacher', 'data'):
    mean, std = (sections.get(section, {}).get(name, ()) for name in ('mean', 'std'))
    if len(mean) != len(std):
      yield f'{section}.mean of {len(mean)} numbers and {section}.std of {len(std)}, want as many'
  pretrain, model = sections.get('pretrain', {}), sections.get('model', {})
  if pretrain.get('epochs') == 0 and not pretrain.get('weights') and 'onnx' not in model:
    yield 'pretrain.epochs 0, want an integer in 1.. or pretrain.weights'


def _of_one_s_own(name: str) -> bool:
  """Whether `data.name` names no published data set: nothing yet, an .npz file, or a folder."""
  return not name or name.endswith('.npz') or os.path.isdir(os.path.expanduser(name))


def _unknown(values: dict[str, Any], section: str) -> Iterator[str]:
  """The settings that are none of their choices."""
  for name, value in values.items():
    full = f'{section}.{name}'
    choices = CHOICES.get(full, DTYPES if name == 'dtype' else None)
    if full in ('model.name', 'teacher.network'):
      choices = architectures.names()  # those that the config registers are known by now
    if choices is None or (full == 'data.name' and _of_one_s_own(value)):
      continue
    each = value if isinstance(value, tuple) else (value,)
    if not each or not set(each) <= set(choices):
      more = ' or the path of an .npz file or a folder' if full == 'data.name' else ''
      yield f'{name} {value!r}, want one of {", ".join(map(str, choices))}{more}'
