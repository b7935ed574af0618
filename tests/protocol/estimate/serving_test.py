"""Whether a network can be served is said before training, as serving it says later."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.approximation import plans
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.protocol.estimate import serving
from safenet_jax.protocol.service import description, server, sessions
from safenet_jax.quantization import quantize
from tests.support import models
from tests.support import networks as small

ACT, END = layers.Activation(), (layers.Flatten(), layers.Dense(4))
# Each was refused only after training, at some time.
NETWORKS = {
  'a mean of odd windows': (layers.Conv(4, stride=2), ACT, layers.AveragePool(None), *END),
  'maxima of whatever': (layers.Conv(4), ACT, layers.MaxPool(), *END),
  'maxima before an activation': (layers.Conv(4), layers.MaxPool(), ACT, *END),
  'a stem without activation': (
    layers.Conv(4),
    layers.Residual((layers.Conv(4), ACT, layers.Conv(4))),
    ACT,
    *END,
  ),
  'two convolutions in a row': (layers.Conv(4), layers.Conv(4), ACT, *END),
  'means of many kinds of windows': (
    layers.Conv(4),
    ACT,
    layers.AveragePool(5, 1, ((2, 2), (2, 2)), count_padding=False),
    *END,
  ),
}


@pytest.mark.parametrize('ratio, degree', [(0, 2), (10, 2), (20, 0)])
@pytest.mark.parametrize('name', NETWORKS)
def test_the_early_answer_is_that_of_serving(name, ratio, degree):
  net, variables = small.trained(NETWORKS[name])
  count = len(networks.activation_channels(net))
  early = serving.refusals(net, plans.from_twentieths([ratio] * count, [degree] * count))
  assert early.keys() == sessions.MODES.keys()
  approximation = small.planned(net, variables, [ratio] * count, [degree] * count)
  try:
    model = small.quantised(net, variables, approximation)
  except ValueError as error:
    assert early == dict.fromkeys(sessions.MODES, str(error))
    with pytest.raises(ValueError, match='the network cannot be served: average_pool0: '):
      serving.check_any(early)
    return
  serving.check_any(early)
  for mode, reason in early.items():
    options = server.ServerOptions(mode=mode)
    if reason is None:
      with server.Server(model, context=None, options=options):
        pass
    else:
      with pytest.raises(ValueError) as refused:
        server.Server(model, context=None, options=options)
      assert str(refused.value) == reason


def test_lines_name_a_reason_once():
  some = {'delphi': None, 'gazelle': 'no such layer', 'ot': 'no such layer'}
  assert serving.lines(some) == [
    'served in modes: delphi',
    'not served, gazelle, ot: no such layer',
  ]
  serving.check_any(some)
  none = dict.fromkeys(sessions.MODES, 'no such layer')
  assert serving.lines(none) == ['served in modes: none', 'not served, no such layer']


@pytest.mark.parametrize(
  'kind',
  [np.float32, lambda values: tuple(map(np.float32, values)), networks.jnp.asarray, list],
)
def test_statistics_of_any_type_are_served(kind):
  net, variables = small.trained(NETWORKS['maxima of whatever'])
  given = {name: kind(values) for name, values in small.STATISTICS.items()}
  model = quantize.quantize(net, variables, None, small.IMAGES, **given)
  assert model.public.mean == pytest.approx(small.STATISTICS['mean'])
  assert {type(value) for value in model.public.mean + model.public.std} == {float}
  description.check(model)


@pytest.mark.parametrize(
  'changes',
  [
    {'mean': (np.float32(0.5), 0.25)},
    {'mean': (0.5,)},
    {'std': (0.3, -0.2)},
    {'truncation_bits': -1},
  ],
)
def test_a_server_refuses_what_its_clients_would_refuse(changes):
  public = dataclasses.replace(models.model().public, **changes)
  model = dataclasses.replace(models.model(), public=public)
  for mode in (*sessions.MODES, sessions.AUTO):
    with pytest.raises(ValueError, match='clients would refuse the model: '):
      server.Server(model, context=None, options=server.ServerOptions(mode=mode))
