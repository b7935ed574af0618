"""CryptoNets (Gilad-Bachrach et al., ICML 2016): a network under encryption, without interaction.

The network (section 4): a convolution with 5 maps of 5 x 5 and stride 2, a square, a dense layer to
100 units, a square, and a dense layer to the logits. In the paper's own training network the
middle layer is two scaled mean pools with a convolution between and a dense layer; for inference
the paper makes them one matrix, because nothing stands between linear layers (section 4). Here that
matrix is trained as it is (`square_training`).

A ciphertext holds one pixel of N = 8,192 images, one in each slot. Weights are integers, the same
for all slots. The plaintext modulus is the product of small primes t; the server computes for each
by itself, and the client joins the results (Chinese remainder theorem, section 3).

    client                                      server
                     <-- seed --------------    drawn before it hears of the client
    for every t: a key pair
                     --- public keys ------>
    for every t:     --- Enc(pixels) ------>    conv, square, dense, square, dense
                     <-- Enc(logits) -------    with noise and encryptions of 0

What the server sees is BFV under the client's keys, and the number of images' batches. What the
client sees is the logits: `crypto.homomorphic.levelled` has the argument. The paper hides nothing
of the weights in its replies; here they are hidden, for 4 encryptions of 0 a logit.
"""

from collections.abc import Iterator

import numpy as np

from safenet_jax.crypto.homomorphic import bfv, levelled, residues
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.systems import square_network
from safenet_jax.systems.square_network import Public, SquareNetwork
from safenet_jax.transport import frames
from safenet_jax.transport.channel import Channel

_PIXELS = square_network.SIDE**2
# Polynomials of a logit: those of a square of a square.
_SIZE = 5


def client(
  channel: Channel, public: Public, images: np.ndarray, randomness: Randomness
) -> np.ndarray:
  """The logits, objects [B, 10], of images uint8 [B, 28, 28, 1], B at most 8,192.

  ValueError for other images.
  """
  pixels = square_network.pixels(images)
  if len(pixels) > levelled.DEGREE:
    raise ValueError(f'{len(pixels)} images, want at most {levelled.DEGREE}: one in each slot')
  slots = np.zeros((_PIXELS, levelled.DEGREE), np.uint64)
  slots[:, : len(pixels)] = pixels.T
  moduli = levelled.plain_moduli(public.bound)
  with channel.scope(phase='setup', layer='session', primitive='keys'):
    (seed,) = channel.receive('seed', [(bytes, (residues.SEED_BYTES,))])
    contexts = [bfv.Context(levelled.parameters(t, seed)) for t in moduli]
    secrets = [bfv.SecretKey(context) for context in contexts]
    channel.send('keys', *(secret.public_key() for secret in secrets))
  for context, secret in zip(contexts, secrets):
    with channel.scope(phase='online', layer='images', primitive='encryption'):
      coefficients = np.stack([context.to_coefficients(row) for row in slots])
      channel.send('images', secret.encrypt(coefficients, randomness))
  found = []
  for context, secret in zip(contexts, secrets):
    with channel.scope(phase='online', layer='logits', primitive='decryption'):
      shape = public.classes, _SIZE, context.degree
      size = residues.size(context.moduli, int(np.prod(shape)))
      (reply,) = channel.receive('logits', [(bytes, (size,))])
      values = frames.checked(residues.unpack, reply, context.moduli, shape)
      found.append([context.to_slots(secret.decrypt(value)) for value in values])
  return levelled.combine(np.array(found), moduli).T[: len(pixels)]


def server(channel: Channel, network: SquareNetwork, randomness: Randomness) -> None:
  """Computes the logits of one batch."""
  moduli = levelled.plain_moduli(network.bound)
  with channel.scope(phase='setup', layer='session', primitive='keys'):
    seed = randomness.bytes(residues.SEED_BYTES)
    channel.send('seed', seed)
    contexts = [bfv.Context(levelled.parameters(t, seed)) for t in moduli]
    keys = channel.receive('keys', [(bytes, (c.public_key_size(),)) for c in contexts])
    publics = [frames.checked(bfv.PublicKey, *pair) for pair in zip(contexts, keys)]
  for context, public in zip(contexts, publics):
    with channel.scope(phase='online', layer='images', primitive='encryption'):
      (upload,) = channel.receive('images', [(bytes, (context.upload_size(_PIXELS),))])
      pixels = _loaded(context, upload)
    logits = evaluate(channel, context, network, pixels)
    with channel.scope(phase='online', layer='logits', primitive='reply'):
      hidden = np.stack([levelled.hidden(public, logit, randomness) for logit in logits])
      channel.send('logits', residues.pack(hidden, context.moduli))


def _loaded(context: bfv.Context, upload: bytes) -> np.ndarray:
  """The client's ciphertexts in NTT form, signed floats [pixels, 2, moduli, N]."""
  encrypted = frames.checked(context.load, upload, _PIXELS)
  found = np.empty((_PIXELS, 2, context.moduli.size, context.degree))
  for value, each in zip(found, encrypted):
    value[:] = levelled.signed(context.polynomials(each), context.moduli)
  return found


def evaluate(
  channel: Channel, context: bfv.Context, network: SquareNetwork, pixels: np.ndarray
) -> np.ndarray:
  """The logits before they are hidden, uint64 [10, 5, moduli, N].

  Args:
    channel: its ledger counts the seconds.
    context: of one plaintext modulus.
    network: the weights.
    pixels: ciphertexts in NTT form, signed floats [784, 2, moduli, N].

  Raises:
    ValueError: weights so large that floats would round.
  """
  moduli = context.moduli
  for weights in (network.conv, network.hidden):
    levelled.check(weights.T, moduli)
  sums = np.zeros((len(network.hidden_bias), 3, moduli.size, context.degree))
  for weights, values in _conv_rows(channel, context, network, pixels):
    with channel.scope(phase='online', layer='hidden', primitive='sums'):
      sums += np.tensordot(weights.T.astype(np.float64), levelled.signed(values, moduli), 1)
  with channel.scope(phase='online', layer='hidden', primitive='squares'):
    squares = np.stack(
      [
        levelled.square(context, levelled.add_constant(context, value, int(bias)))
        for value, bias in zip(levelled.reduced(sums, moduli), network.hidden_bias)
      ]
    )
  with channel.scope(phase='online', layer='output', primitive='sums'):
    logits = levelled.linear(network.output.T, squares, moduli)
    return np.stack(
      [
        levelled.add_constant(context, value, bias)
        for value, bias in zip(logits, network.output_bias)
      ]
    )


def _conv_rows(
  channel: Channel, context: bfv.Context, network: SquareNetwork, pixels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Squares of one row of the convolution's map after another, so that few are held at once.

  Yields the rows of the hidden layer's weights that read them, and the squares [n, 3, moduli, N].
  """
  maps, conv = network.conv.shape[1], network.conv.astype(np.float64)
  start = 0
  for row in np.split(square_network.PATCHES, square_network.MAP):
    squares = []
    for patch in row:
      with channel.scope(phase='online', layer='conv', primitive='sums'):
        on_map = patch < _PIXELS
        sums = np.tensordot(conv[on_map].T, pixels[patch[on_map]], 1)
        sums = levelled.reduced(sums, context.moduli)
      with channel.scope(phase='online', layer='conv', primitive='squares'):
        for value, bias in zip(sums, network.conv_bias):
          encrypted = context.ciphertext(value, ntt=True)
          context.evaluator.transform_from_ntt_inplace(encrypted)
          value = levelled.add_constant(context, context.polynomials(encrypted), int(bias))
          squares.append(levelled.square(context, value))
    end = start + len(row) * maps
    yield network.hidden[start:end], np.stack(squares)
    start = end
