"""MiniONN as a baseline: circuits are garbled, sent and evaluated after the input.

This is MiniONN (Liu et al., eprint 2017/452) as a mode of this protocol. Its dot-product triplets
are what Delphi's offline phase makes of a linear layer: the client has r and c = W r - u, the
server has u (section 4 of the paper, with the additively homomorphic encryption of this
protocol). Its products of shares, with which polynomials are evaluated (section 5.3.2), come
offline in the same way, as Delphi's. What the offline phase does not have are circuits: the paper
garbles activations and max pools for shares that it has online (sections 5.3.1 and 5.4).

           client                                       server
             --- x - r ------------------------------------>
    for every activation layer with circuits
             --- choices of labels by the bits of c -------->
             <-- garbled tables, choices p ------------------
             --- p c under pads ---------------------------->
    and for every activation layer, as in `delphi.online`
             <-- labels of s, select words, delta, d -------
             --- corrections E, masked words B ------------->
    at last
             <-- share of the logits -----------------------
    or, for the class alone, labels of s as in `class_output`

So a layer with ReLUs takes two round trips, as its first message goes with the last one of the
layer before. With a max pool there is no p c, and it takes one. The symbols are those of
`delphi.online` and `delphi.client_offline`; x is the image.

What every message shows is what it shows in Delphi, where docs/protocol.md has the arguments. The
first three messages of a layer are the flights of Delphi's stage of that layer alone, made by the
same code. The bits of c are hidden by transfers, the bits p and the tables by fresh labels, and
p c by a fresh pad. All of these are drawn as the message is made, whatever was sent before. So
what a party sees has the distribution that it has in Delphi, in another order. The tags of the
transfers have a number of the session that no image has offline. A preparation is used once, and
of what is made here nothing is kept.

What differs from the paper: its circuit adds a fresh mask to the activation, here the circuit of
a ReLU gives a sign that selects (`layers.relu`), as in all modes. Truncation is exact, by
transfers that are prepared offline. Splines in the place of smooth activations (section 5.3.2)
are left out, as no network here has smooth activations.
"""

from collections.abc import Iterator
import dataclasses

from safenet_jax.protocol.delphi import client_stage, message_shapes, online, server_stage
from safenet_jax.protocol.delphi.material import ClientLayer, ServerLayer
from safenet_jax.protocol.layers.structure import ActivationStructure


class _ClientCircuits(client_stage.ClientStage):
  """One image's circuits of one layer."""

  phase = 'online'

  def __init__(self, party, stage: message_shapes.Stage, tag, prepared: ClientLayer):
    """Takes the image's tag, and what was prepared of the layer."""
    super().__init__(party)
    (layer,) = stage.structure.activations
    self.place = layer.name
    # Lists of its own: what is made here goes when the layer is done.
    self.made = dataclasses.replace(prepared, share=None, blocks=[])
    self.inputs = {layer.name: prepared.share}
    self.begin(stage, tag, {layer.name: self.made})


class _ServerCircuits(server_stage.ServerStages):
  """The circuits of one layer, of a batch of images."""

  phase = 'online'

  def __init__(self, party, place: str):
    super().__init__(party)
    self.place = place


class ClientOnline(online.ClientOnline):
  """The client's walk through the network."""

  _tags: list[message_shapes.Tag] | None = None

  def _ready(self, layer: ActivationStructure) -> list[ClientLayer]:
    found = super()._ready(layer)
    stage = message_shapes.online_stage(self._structure, layer)
    if stage is None:
      return found
    if self._tags is None:
      self._tags = list(_tags(self._party.keys, len(found)))
    images = [
      _ClientCircuits(self._party, stage, tag.of_layer(layer.name), mine)
      for tag, mine in zip(self._tags, found, strict=True)
    ]
    client_stage.run(images)
    return [image.made for image in images]


class ServerOnline(online.ServerOnline):
  """The server's walk through the network."""

  _tags: list[message_shapes.Tag] | None = None

  def _ready(self, layer: ActivationStructure) -> list[ServerLayer]:
    found = super()._ready(layer)
    stage = message_shapes.online_stage(self._structure, layer)
    if stage is None:
      return found
    if self._tags is None:
      self._tags = list(_tags(self._party.keys, len(found)))
    circuits = _ServerCircuits(self._party, layer.name)
    choices = [circuits.receive_choices(stage) for _ in found]
    made = [
      circuits.make(stage, tag.of_layer(layer.name), *each)
      for tag, each in zip(self._tags, choices, strict=True)
    ]
    for each in made:
      each.finish()
    return [
      # Labels are those of this session, whichever made the rest.
      dataclasses.replace(mine, delta=new.delta, blocks=new.blocks)
      for mine, new in zip(found, (each.layers[layer.name] for each in made), strict=True)
    ]


def _tags(keys, images: int) -> Iterator[message_shapes.Tag]:
  """A tag for each image of a batch: each has a number of the session of its own."""
  for _ in range(images):
    yield message_shapes.Tag(keys.nonce, next(keys.numbers))
