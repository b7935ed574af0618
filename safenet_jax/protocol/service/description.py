"""What a server tells its clients about the model it serves.

This is the model's public part, and how it is served. Kernels, biases and coefficients stay
with the server. So do the limb sizes of its products, since they follow from the weights.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point import consistency
from safenet_jax.fixed_point import model as models
from safenet_jax.fixed_point.model import FixedPointModel, PublicModel, RECORDS
from safenet_jax.protocol.layers.structure import OUTPUTS, outputs_of, Structure
from safenet_jax.protocol.service import sessions
from safenet_jax.transport import frames, record_codec
from safenet_jax.transport.frames import ProtocolError

# The longest that a client reads.
MAX_BYTES = 1 << 20
_ID_BYTES = 16
_MAX_BATCH = 1 << 16


@dataclasses.dataclass(frozen=True)
class Description:
  """A served model, as its clients see it.

  model_id: 16 random bytes, drawn when the server loads the model. It is no hash of the
    weights, with which clients could confirm guesses of them. The second halves of public
    keys are expanded from it (`delphi.keys`).
  model: the public part.
  mode: how it is served, a name of `sessions.MODES`.
  choices: modes among which the client may choose another one; empty where there is only `mode`.
  outputs: those of `structure.OUTPUTS` that clients may have.
  batch: the most images that a client should prepare at once. The server has room for
    that many of every client it takes at a time.
  """

  model_id: bytes
  model: PublicModel
  mode: str
  outputs: tuple[str, ...]
  batch: int
  choices: tuple[str, ...] = ()


_RECORDS = (Description, *RECORDS)


def describe(
  model: FixedPointModel,
  randomness: Randomness,
  mode: str = sessions.DEFAULT,
  outputs: Sequence[str] | None = None,
) -> Description:
  """The description of a model that a server has loaded, under a new id.

  Args:
    model: that is served.
    randomness: draws the id.
    mode: how it is served, a name of `sessions.MODES`; or `sessions.AUTO`.
    outputs: what clients may have; None for all that this model can give.

  Raises:
    ValueError: a mode or an output that does not exist, a mode that does not serve this model,
      or a model that clients would refuse.
  """
  return _describe(model, randomness.bytes(_ID_BYTES), mode, outputs)


def check(model: FixedPointModel, mode: str = sessions.AUTO) -> None:
  """ValueError where a server could not serve the model in a mode, or its clients refuse it."""
  _describe(model, bytes(_ID_BYTES), mode, None)


def _describe(
  model: FixedPointModel, model_id: bytes, mode: str, outputs: Sequence[str] | None
) -> Description:
  models.check(model)
  modes = sessions.offered(mode, model.public)
  found = outputs_of(model.public) if outputs is None else tuple(outputs)
  if not _are_outputs(found):
    raise ValueError(f'outputs {found}, want some of {", ".join(OUTPUTS)}')
  choices = modes if len(modes) > 1 else ()
  served = Description(model_id, model.public, modes[0], found, batch=1, choices=choices)
  # All that a client will do with it, now: later it could only close the connection.
  try:
    raw = encode(served)
    if len(raw) > MAX_BYTES:
      raise ValueError(f'a description of {len(raw)} bytes, want at most {MAX_BYTES}')
    seen = decode(raw)
    for each in modes:
      structure(dataclasses.replace(seen, mode=each))
  except (ProtocolError, ValueError) as error:
    raise ValueError(f'clients would refuse the model: {error}') from None
  return served


def _are_outputs(found: tuple[str, ...]) -> bool:
  return 0 < len(found) == len(set(found)) and set(found) <= set(OUTPUTS)


def encode(served: Description) -> bytes:
  """Bytes for the wire."""
  return record_codec.encode(served, _RECORDS)


def _check_service(found: Description) -> None:
  """ValueError where what a server says about how it serves makes no sense."""
  if found.mode not in sessions.MODES:
    raise ValueError(f'an unknown mode {found.mode[:20]!r}')
  choices = found.choices
  if choices and (
    len(set(choices)) < len(choices) or not {found.mode} <= set(choices) <= set(sessions.MODES)
  ):
    raise ValueError(f'choices of modes {str(choices)[:60]}')
  if not _are_outputs(found.outputs):
    raise ValueError(f'outputs {str(found.outputs)[:60]}')
  if len(found.model_id) != _ID_BYTES:
    raise ValueError(f'an id of {len(found.model_id)} bytes')
  if not 1 <= found.batch <= _MAX_BATCH:
    raise ValueError(f'batches of {found.batch} images')


def decode(raw: bytes) -> Description:
  """The description that a server sent, or ProtocolError where it makes no sense."""
  found = record_codec.decode(raw, Description, _RECORDS)
  try:
    _check_service(found)
    consistency.check(found.model)
  except ValueError as error:
    reason = frames.printable(str(error))
    raise ProtocolError(f'the description of the model: {reason}') from None
  return found


def structure(served: Description) -> Structure:
  """What a client knows of inferences by a description; ProtocolError where it refuses them."""
  try:
    found = sessions.MODES[served.mode].structure(served.model)
    for output in served.outputs:
      found.comparison_for(output)
    return found
  except ValueError as error:
    raise ProtocolError(f'the description of the model: {error}') from None


class Expectation(NamedTuple):
  """What a client insists on before it asks a server for anything.

  A field that is None accepts anything.

    client = Client(host, port, context=context, expected=Expectation(outputs=('class',)))

  model_id: the 16 bytes that the server drew when it loaded its model. The server prints
    them when it starts, and has others after each start.
  outputs: those of `structure.OUTPUTS` that the server has to offer; it may offer more.
  """

  model_id: bytes | None = None
  outputs: tuple[str, ...] | None = None

  def mismatch(self, found: Description) -> str | None:
    """The first thing that is not as expected, in one line; None if there is nothing."""
    if self.model_id is not None and self.model_id != found.model_id:
      return f'model {found.model_id.hex()}, want {self.model_id.hex()}'
    if self.outputs is not None and not set(self.outputs) <= set(found.outputs):
      return f'outputs {", ".join(found.outputs)}, want {", ".join(self.outputs)}'
    return None
