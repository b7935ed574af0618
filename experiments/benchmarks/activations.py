"""What one activation costs on this machine: a ReLU, a square or a cubic. A search can use it.

Both parties run the protocol's own steps one after the other, offline and online, on one block
of activations. For ReLUs these are oblivious transfers, garbling and evaluation; for polynomials,
products under encryption. A pruned channel costs nothing. Not counted are base transfers and
keys, which are made once a session, and what all kinds have in common: the truncation that
follows, and rounds.

`compute/<kind>` is CPU time of both parties in microseconds, and `bytes/<kind>` what they send.
`seconds_per_activation/<kind>` is the CPU time in seconds plus the time that the bytes take at
--bandwidth (bits a second). `experiments.benchmark` also writes these as
{"seconds_per_activation": {relu, degree0, degree2, degree3}}, which --config.search.cost=measured
reads from the file --config.search.cost_ledger.
"""

from collections.abc import Callable, Iterator
import functools
import itertools
import time

import numpy as np

from experiments import benchmarks
from experiments.benchmarks import ot, Row
from safenet_jax.crypto import ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.homomorphic import bfv, ole
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.crypto.randomness import Randomness, SystemRandomness
from safenet_jax.fixed_point.formats import ActivationFormat, Precision
from safenet_jax.protocol.layers import polynomial, relu
from safenet_jax.transport.ledger import Ledger

BITS = Precision().ring
# A function of the client's share, the server's share and a ledger that counts bytes. It returns
# both parties' shares of the activations.
Block = Callable[[np.ndarray, np.ndarray, Ledger], tuple[np.ndarray, np.ndarray]]


def form(degree: int | None) -> ActivationFormat:
  """The format of CNN-7's first activation on Fashion-MNIST, for one kind; None is ReLU."""
  return ActivationFormat(
    relu=int(degree is None),
    polynomial=int(degree is not None),
    degree=degree or 0,
    map_shape=(),
    window=1,
    input_fraction=15,
    sign_bits=21,
    select_bits=28,
    shift=7,
    modulus={None: 0, 2: ring.PRIME_41, 3: ring.PRIME_50}[degree],
    value_fraction={None: 0, 2: 20, 3: 39}[degree],
    output_fraction=7,
  )


def rows() -> Iterator[Row]:
  randomness = SystemRandomness()
  garbled = 1 << (10 if benchmarks.QUICK.value else 14)
  slots = bfv.slot_parameters(ring.PRIME_41).degree
  kinds = {
    'relu': (garbled_block(garbled, randomness), garbled),
    'degree2': (polynomial_block(2, randomness), slots),
    'degree3': (polynomial_block(3, randomness), slots),
  }

  def run(block: Block, count: int) -> Ledger:
    ledger = Ledger()
    # Shares of zero, because no step takes longer for other values.
    share = randomness.ring(BITS, count)
    block(share, ring.reduce(np.uint64(0) - share, BITS), ledger)
    return ledger

  found = benchmarks.best(
    {kind: functools.partial(run, *pair) for kind, pair in kinds.items()},
    repetitions=5,
    clock=time.process_time,
  )
  bandwidth = benchmarks.BANDWIDTH.value
  for kind, (block, count) in kinds.items():
    phases = run(block, count).record()['phases']
    size = sum(phase['bytes'] for phase in phases.values()) / count
    compute = found[kind] / count
    setting = f'blocks of {count:,}, both parties, offline and online'
    yield Row('activations', f'compute/{kind}', setting, 1e6 * compute, 'CPU us')
    yield Row('activations', f'bytes/{kind}', setting, size, 'bytes')
    setting += f', {bandwidth / 1e6:g} Mbit/s'
    total = compute + 8 * size / bandwidth
    yield Row('activations', f'{benchmarks.COSTS}{kind}', setting, total, 's')
  yield Row('activations', f'{benchmarks.COSTS}degree0', 'pruned: nothing to compute', 0.0, 's')


def garbled_block(count: int, randomness: Randomness) -> Block:
  """ReLUs of `count` values, at most 2^14, a multiple of 64."""
  layer = form(None)
  circuit = relu.circuit(layer)
  width = dict(circuit.inputs)['client']
  garbler = garbling.Garbler(circuit, count, randomness)
  evaluator = garbling.Evaluator(circuit, count)
  label_sender, label_receiver = ot.session(garbler.delta, randomness)
  delta = garbling.fresh_delta(randomness)
  product_sender, product_receiver = ot.session(delta, randomness)  # the client sends these
  tags = (number.to_bytes(16, 'little') for number in itertools.count())

  def block(c, s, ledger):
    def send(phase, sender, message, bits=None):
      ledger.send(phase, '', 'relu', sender, message, bits)

    tag = next(tags)
    choices = relu.entering(c, layer, count)
    message, labels = label_receiver.extend(tag, choices.reshape(-1), width * count)
    send('offline', 'client', message)
    zeros = label_sender.extend(tag, message, width * count)
    garbled, encoding = garbler.garble({'client': zeros.reshape(width, count, 2)})
    send('offline', 'server', garbled)

    colours = encoding.decoding[0]
    message, theirs = product_receiver.extend(tag, colours, count)
    send('offline', 'server', message)
    ours = product_sender.extend(tag, message, count)
    keys = word_transfer.hash_keys(count, randomness)
    pads = word_transfer.sender_pads(ours, delta, keys)
    factors = ring.reduce(c, layer.select_bits)
    message, client_product = word_transfer.send_products(factors, pads, bits=layer.select_bits)
    send('offline', 'client', keys)
    send('offline', 'client', message.identifier)
    send('offline', 'client', message.words, layer.select_bits)
    server_product = word_transfer.receive_products(
      message, colours, word_transfer.receiver_pads(theirs, keys), bits=layer.select_bits
    )

    key = relu.word_key(randomness)
    send('offline', 'server', key)
    server = relu.ServerBlock(encoding, server_product, key)
    online, words, rho = relu.online_server(server, s, garbler.delta, layer)
    send('online', 'server', online)
    send('online', 'server', words, layer.select_bits)
    labels = labels.reshape(width, count, 2)
    client = relu.ClientBlock(garbled, labels, c, client_product, key)
    return relu.online_client(client, evaluator, online, words, layer), rho

  return block


def polynomial_block(degree: int, randomness: Randomness, coefficients=(3, 0, 1, 1)) -> Block:
  """Polynomials of degree 2 or 3, constant term first; degree 2 is monic."""
  layer = form(degree)
  context = bfv.Context(bfv.slot_parameters(layer.modulus))
  secret = bfv.SecretKey(context)
  public = bfv.PublicKey(context, secret.public_key())
  tags = (number.to_bytes(16, 'little') for number in itertools.count())
  integers = np.asarray(coefficients[: degree + 1], np.int64)[:, None]

  def block(c, s, ledger):
    def send(phase, sender, message, bits=None):
      ledger.send(phase, '', 'polynomial', sender, message, bits)

    count = polynomial.products(layer)
    powers = polynomial.offline_client(np, c, layer, BITS)
    tag = next(tags)
    request = ole.request(secret, powers[:count], randomness, tag)
    send('offline', 'client', request)
    pads = randomness.residues(layer.modulus, (count, s.size))
    reply, beta = ole.reply(public, request, pads, randomness, tag)
    send('offline', 'server', reply)
    alpha = ole.finish(secret, reply, s.size, tag)
    # Only the sum of the shares of all products is needed.
    deltas, rho = polynomial.online_server(np, s, integers, pads, beta[None], layer, BITS)
    send('online', 'server', deltas, layer.modulus.bit_length())
    return polynomial.online_client(np, powers, alpha[None], deltas, layer), rho

  return block
