"""A session of both parties in this process, with every message that each of them sees."""

import dataclasses

import numpy as np

from safenet_jax.protocol.delphi import keys
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import sessions
from tests.support import parties, peers


@dataclasses.dataclass
class Views:
  """What a session leaves.

  sent: (party, tag, values) of every message, in the order in which a party sends.
  s, m: by layer, of all images: what the server keeps of W x, and what it has of x.
  v: by layer, of all images: the client's share of what its circuits give.
  ready: by party, (name, material) of activation layers as they are used, layer by layer and
    there image by image.
  """

  structure: Structure | None = None
  sent: list = dataclasses.field(default_factory=list)
  client_keys: keys.ClientKeys | None = None
  server_keys: keys.ServerKeys | None = None
  client: list = dataclasses.field(default_factory=list)
  server: list = dataclasses.field(default_factory=list)
  logits: np.ndarray | None = None
  s: dict = dataclasses.field(default_factory=dict)
  m: dict = dataclasses.field(default_factory=dict)
  v: dict = dataclasses.field(default_factory=dict)
  ready: dict = dataclasses.field(default_factory=lambda: {'client': [], 'server': []})
  ledgers: tuple = ()

  def blocks(self, party):
    """A party's blocks of garbled instances, in the order in which they are used."""
    return [block for _, layer in self.ready[party] for block in layer.blocks]

  def messages(self, party, tag):
    """Values of all messages of that name."""
    return [values for sender, name, values in self.sent if (sender, name) == (party, tag)]

  def lengths(self):
    """Of every part of every message, in order, by party."""
    return {
      party: [
        (tag, [len(v) if isinstance(v, bytes) else (v.dtype.name, v.shape) for v in values])
        for sender, tag, values in self.sent
        if sender == party
      ]
      for party in ('client', 'server')
    }


def run(
  model,
  images,
  *,
  mode='delphi',
  prepares=None,
  client=None,
  server=None,
  lie=None,
  serve=None,
  views=None,
  output='logits',
):
  """Prepares for a batch of images and infers it.

  Args:
    model: of the server.
    images: uint8 [B, H, W, C]; None ends after the offline phase.
    mode: of `sessions.MODES`.
    prepares: counts of images per offline phase; all at once by default.
    client, server: randomness of the parties.
    lie: function of (party, tag, values) that gives the values to send instead.
    serve: the server's online phase, by default that of the mode.
    views: filled from the start on, for a `lie` that depends on them.
    output: of `structure.OUTPUTS`.

  Raises:
    Exception: what ended the party that failed first.
  """
  structure, contexts = parties.set_up(model, mode)
  phases = sessions.MODES[mode]
  views = views or Views()
  views.structure = structure
  counts = [len(images)] if prepares is None else prepares
  errors = []
  with peers.channels() as ends:
    for end in ends:
      _tap(end, views, lie)
    ours, theirs = ends

    def run_client():
      party = parties.client_party(ours, model, structure, contexts, client)
      views.client_keys = party.keys
      phase = phases.client_offline(party, output)
      for count in counts:
        views.client += phase.prepare(count)
      if images is not None:
        walk = _opened(phases.client_online, views)(party, output, views.client)
        views.logits = walk.run(images)

    def run_server():
      party = parties.server_party(theirs, model, structure, contexts, server)
      views.server_keys = party.keys
      phase = phases.server_offline(party, output)
      for count in counts:
        views.server += phase.prepare(count)
      if images is not None:
        walk = _recorded(serve or phases.server_online, views)
        walk(party, output, views.server).run()

    def guarded(run_party):
      try:
        run_party()
      except BaseException as error:
        errors.append(error)
        for end in ends:
          end.abort('the other party failed')

    peers.both(lambda: guarded(run_client), lambda: guarded(run_server))
    views.ledgers = ours.ledger, theirs.ledger
  if errors:
    raise errors[0]
  return views


def _tap(end, views, lie):
  send = end.send

  def record(tag, *values):
    if lie is not None:
      values = lie(end.party, tag, values)
    kept = tuple(v if isinstance(v, bytes) else np.array(v) for v in values)
    views.sent.append((end.party, tag, kept))
    send(tag, *values)

  end.send = record


def _recorded(serve, views):
  class Recorded(serve):
    """Keeps what the server has before and after each linear layer."""

    def conv(self, name, layer, m):
      views.m[name] = m
      views.s[name] = super().conv(name, layer, m)
      return views.s[name]

    dense = conv

    def _ready(self, layer):
      found = super()._ready(layer)
      views.ready['server'] += [(layer.name, each) for each in found]
      return found

  return Recorded


def _opened(infer, views):
  class Opened(infer):
    """Keeps what the client has after each garbled layer."""

    def _garbled(self, layer, *args):
      views.v[layer.name] = super()._garbled(layer, *args)
      return views.v[layer.name]

    def _ready(self, layer):
      found = super()._ready(layer)
      views.ready['client'] += [(layer.name, each) for each in found]
      return found

  return Opened
