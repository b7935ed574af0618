"""The code of CONTRIBUTING.md does what is said there, and each piece is under 20 lines."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plans
from safenet_jax.models import architectures
from safenet_jax.models import network as networks
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.mode import DELPHI
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions
from safenet_jax.search import pbt, schedule, score
from safenet_jax.search.planners import algorithms, proposer
from safenet_jax.workdir import Workdir
from tests.support import models, small_search

# What the code of that page may name, beside the names of architectures.py.
NAMES = {
  'algorithms': algorithms,
  'dataclasses': dataclasses,
  'jnp': jnp,
  'DELPHI': DELPHI,
  'online': online,
  'pbt': pbt,
  'plans': plans,
  'proposer': proposer,
}
TEXT = (pathlib.Path(__file__).parents[2] / 'CONTRIBUTING.md').read_text()


def code(title):
  """The names that the code under a title defines, in the module that it is written for."""
  (section,) = re.findall(rf'^## {title}\n(.*?)(?=^## |\Z)', TEXT, re.DOTALL | re.MULTILINE)
  (source,) = re.findall(r'```python\n(.*?)```', section, re.DOTALL)
  assert len([line for line in source.splitlines() if line.strip()]) < 20
  names = vars(architectures) | NAMES
  exec(compile(source, 'CONTRIBUTING.md', 'exec'), names)
  return names


def test_a_network_has_the_relus_of_its_paper_and_ten_logits():
  network = code('A network')['lenet5']()
  # Same padding keeps the maps that LeNet's 32 x 32 images with valid padding have first.
  assert networks.relu_counts(network) == (28 * 28 * 6, 14 * 14 * 16, 120, 84)
  logits = jax.eval_shape(
    lambda key, images: network.apply(network.init(key), images),
    jax.random.key(0),
    jnp.zeros((2, 28, 28, 1)),
  )
  assert logits.shape == (2, 10)


def test_a_planner_proposes_runs_and_repeats_itself(tmp_path):
  every_other = code('A planner')['every_other']
  task, first = small_search.task()
  assert score.activations(task.network).channels == (4, 8, 8)
  found = []
  for run in range(2):
    search = every_other(small_search.LAYERS, 2, small_search.evolution())
    workdir = Workdir(tmp_path / str(run))
    workdir.path.mkdir()
    winner, _ = schedule.run(
      jax.random.key(0),
      first,
      task,
      search.steps,
      search.evolution,
      workdir,
      proposer=search.proposer,
    )
    found.append(winner)
    ratios = [line['ratio'] for line in workdir.metrics('search')]
    assert ratios == [[[20, 0, 20], [0, 20, 0]] * 2] * 2
  assert found[0].score == found[1].score
  np.testing.assert_array_equal(found[0].plan.ratio, found[1].plan.ratio)


def test_a_protocol_is_served_and_its_message_is_in_the_ledger(monkeypatch):
  receipt = code('A protocol')['RECEIPT']
  monkeypatch.setitem(sessions.MODES, receipt.name, receipt)
  model = models.calibrated()
  images = np.random.default_rng(0).integers(0, 256, (2, *model.public.input_shape), dtype=np.uint8)
  with (
    servers.Server(model, context=None, options=servers.ServerOptions(mode='receipt')) as server,
    clients.Client(*server.address, context=None) as client,
  ):
    logits = client.infer(images)
    rows = client.ledger.record()['rows']
  assert np.abs(logits - model.logits(images)).max() < 0.05
  (row,) = (r for r in rows if r['primitive'] == 'receipt' and r['bytes'])
  assert row['party'] == 'client' and row['phase'] == 'online' and row['messages'] == 1
