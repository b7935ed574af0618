"""All-ReLU controls that runs share, so that each of them is trained once."""

import json
import shutil
from typing import Any

from absl import flags, logging
import jax

from experiments.configs import base
from experiments.lib import imported, launcher
from safenet_jax.workdir import Workdir

CONTROLS = flags.DEFINE_multi(
  launcher.Path(),
  flags.ArgumentSerializer(),
  'controls',
  [],
  'Workdir of a finished run, may be repeated. The first one with the same all-ReLU control as '
  'this run lends it, so that it is not trained again.',
)
# Settings of fine-tuning that an all-ReLU network knows nothing of; its epochs are counted apart.
_IRRELEVANT = {*base.POLYNOMIAL, 'anneal_epochs', 'epochs'}


def lend(config, workdir: Workdir, steps: int) -> None:
  """Copies the control of a workdir in --controls, if one has the same.

  It is the same if the all-ReLU network was trained with the same settings and seed, and then on
  for as many steps with the same settings of fine-tuning. Its lines of the log are copied too.
  Nothing happens if this run has begun to train its own, or trains none, nor on several hosts.

  Args:
    config: of the run.
    workdir: of the run, claimed.
    steps: for how many steps its control trains.
  """
  if not steps or workdir.steps('control') or jax.process_count() > 1:
    return
  wanted = _of(
    {'seed': {'seed': config.seed}}
    | {
      name: imported.recorded(name, config[name].to_dict())
      for name in ('model', 'data', 'teacher', 'pretrain', 'finetune')
    }
  )
  for path in CONTROLS.value:
    lender = Workdir(path)
    if not (lender / 'plan.json').exists():
      continue  # not finished, so its control may not be either
    if _of(lender.read_json('config.json', 'pretrain')) != wanted:
      continue
    if lender.steps('control') == steps:
      _copy(lender, workdir)
      logging.info('the control is that of %s', lender.path)
      return


def _of(recorded: dict[str, Any]) -> dict[str, Any]:
  """The settings that a control depends on."""
  found = {
    name: recorded.get(name, {}) for name in ('seed', 'model', 'data', 'teacher', 'pretrain')
  }
  tuned = recorded.get('finetune', {})
  found['finetune'] = {k: v for k, v in tuned.items() if k not in _IRRELEVANT}
  # Recorded settings were JSON, which knows no tuples.
  return json.loads(json.dumps(found))


def _copy(lender: Workdir, workdir: Workdir) -> None:
  """Copies log and checkpoints; `control` itself comes last, and whole or not at all."""
  workdir.rewind('control', 0)
  for line in lender.metrics('control'):
    workdir.log(**line)
  for phase in ('control_best', 'control'):
    to = workdir / 'checkpoints' / phase
    beside = to.with_name(f'.{phase}')
    for old in (to, beside):
      shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(lender / 'checkpoints' / phase, beside)
    beside.replace(to)
