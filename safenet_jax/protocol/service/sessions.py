"""The modes in which a network is served, and both sides of one connection in any of them."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from typing import Any

from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.protocol.delphi import client_offline, message_shapes, progress, server_offline
from safenet_jax.protocol.delphi.material import ClientMaterial, ServerMaterial
from safenet_jax.protocol.delphi.mode import DELPHI, Mode
from safenet_jax.protocol.delphi.party import ClientParty, ServerParty
from safenet_jax.protocol.gazelle.mode import GAZELLE
from safenet_jax.protocol.minionn.mode import MINIONN
from safenet_jax.protocol.ot.mode import OT
from safenet_jax.transport.frames import ProtocolError

# The one registry of modes. A new mode is a folder beside `delphi`, and one more name here.
MODES = {mode.name: mode for mode in (OT, DELPHI, GAZELLE, MINIONN)}
# The fewest bytes, and for CNN-7 on no measured link more seconds than the others
# (docs/measurements.md).
DEFAULT = OT.name
# Makes the mapping where finished activation layers of one image are kept.
Keep = Callable[[], client_offline.Layers]
# Not a mode: the client chooses among `_CHOICES`, those of them that serve the model.
AUTO = 'auto'
# MiniONN's bytes are Delphi's, with more round trips and more of them online: it never is better.
_CHOICES = OT, DELPHI, GAZELLE


def mode_of(name: str) -> Mode:
  """The mode of that name; ValueError where there is none."""
  if name not in MODES:
    raise ValueError(f'mode {name!r}, want one of {", ".join(MODES)}')
  return MODES[name]


def offered(name: str, model: PublicModel) -> tuple[str, ...]:
  """The modes in which a model is served under a name: that mode, or for `AUTO` all to choose from.

  Raises:
    ValueError: there is no such mode, or it does not serve this model.
  """
  if name != AUTO:
    mode_of(name).structure(model)
    return (name,)
  found = []
  for mode in _CHOICES:
    with contextlib.suppress(ValueError):
      mode.structure(model)
      found.append(mode.name)
  return tuple(found) or offered(DEFAULT, model)  # which then says why not


class ClientSession:
  """The client's side of one connection, for the outputs that are served."""

  def __init__(self, mode: Mode, party: ClientParty, outputs: Sequence[str]):
    self._mode, self._party, self._outputs = mode, party, outputs
    self._phases: dict[str, client_offline.ClientOffline] = {}

  def prepare(self, count: int, output: str, keep: Keep | None = None) -> Iterator[ClientMaterial]:
    """As `ClientOffline.prepare`, after the command that asks the server for it."""
    return self._offline(output).prepare(count, keep)

  def resume(
    self, images: Sequence, output: str, keep: Keep | None = None
  ) -> Iterator[ClientMaterial]:
    """As `ClientOffline.resume`, after the command that asks the server for it."""
    return self._offline(output).resume(images, keep)

  def unfinished(self, output: str) -> list[Any]:
    """Images whose offline phase was begun in this session, and is not done."""
    return self._offline(output).unfinished

  def _offline(self, output: str) -> client_offline.ClientOffline:
    if output not in self._phases:
      self._phases[output] = self._mode.client_offline(self._party, output)
    return self._phases[output]

  def infer(self, materials: Sequence, images, output: str) -> Any:
    """As `ClientOnline.run`, after the command that asks the server for it."""
    return self._mode.client_online(self._party, output, materials).run(images)

  @property
  def lot(self) -> int:
    """How many images share the flights of their offline phase, whatever the output is."""
    party = self._party
    return min(
      message_shapes.lot(party.structure, output, party.contexts) for output in self._outputs
    )


class ServerSession:
  """The server's side of one connection; `outputs` as for `ClientSession`."""

  def __init__(self, mode: Mode, party: ServerParty, outputs: Sequence[str]):
    self._mode, self._party, self._outputs = mode, party, outputs
    self._phases: dict[str, server_offline.ServerOffline] = {}

  def prepare(self, count: int, output: str) -> Iterator[ServerMaterial]:
    """As `ServerOffline.prepare`; ProtocolError for an output that is not served."""
    yield from self._moded(self._offline(output).prepare(count))

  def resume(
    self, images: Sequence, told: Sequence[progress.Begun], output: str
  ) -> Iterator[ServerMaterial]:
    """Goes on with images that another session left unfinished (`delphi.progress`).

    Args:
      images: of that session; None for those that are not known.
      told: how far the client is with each of them.
      output: what they are for.

    Raises:
      ProtocolError: it is not served.
    """
    found, agreed = [], []
    for image, theirs in zip(images, told, strict=True):
      known = image is not None and image.served == (self._mode.name, output)
      # A preparation that is ready has no steps to go back to.
      if known and image.material is not None and theirs.progress != image.begun.progress:
        known = False
      found.append(image if known else None)
      agreed.append(image.begun.least(theirs) if known else theirs._replace(anew=True))
    yield from self._moded(self._offline(output).resume(found, agreed))

  def unfinished(self, output: str) -> list[Any]:
    """Images whose offline phase was begun in this session, and is not done."""
    images = self._offline(output).unfinished
    for image in images:
      image.served = self._mode.name, output
    return images

  def _offline(self, output: str) -> server_offline.ServerOffline:
    self.check(output)
    if output not in self._phases:
      self._phases[output] = self._mode.server_offline(self._party, output)
    return self._phases[output]

  def _moded(self, materials: Iterator[ServerMaterial]) -> Iterator[ServerMaterial]:
    for material in materials:
      material.mode = self._mode.name
      yield material

  def infer(self, materials: Sequence, output: str) -> None:
    """As `ServerOnline.run`; ProtocolError for materials of another output or mode."""
    self.check(output)
    for each in materials:
      if (each.output, each.mode) != (output, self._mode.name):
        raise ProtocolError(
          f'a preparation for {each.output} in mode {each.mode}, '
          f'want one for {output} in mode {self._mode.name}'
        )
    self._mode.server_online(self._party, output, materials).run()

  def check(self, output: str) -> None:
    """Refuses an output that is not served: ProtocolError."""
    if output not in self._outputs:
      raise ProtocolError(f'output {output}, want {" or ".join(self._outputs)}')
