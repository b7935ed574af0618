"""One network in training: its weights, its plan, its learning rate, its score.

Functions act on ONE member; populations map them over a leading member axis.
"""

import dataclasses
from typing import Any

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from safenet_jax import data
from safenet_jax.approximation import activation, importance, plans
from safenet_jax.models.network import activation_channels, BATCH_NORM_MOMENTUM, Network
from safenet_jax.search import gates as gates_
from safenet_jax.search import score
from safenet_jax.search.teacher import Teacher
from safenet_jax.search.training import compute_dtype as compute_dtype
from safenet_jax.search.training import optimizer, Training

# Images that polynomials are fitted to before they are trained.
FIT_IMAGES = 256


def check_fit(network: Network, shape: tuple[int, ...], classes: int) -> None:
  """ValueError unless the network takes images of this shape and tells so many classes apart."""
  if network.input_shape != tuple(shape):
    raise ValueError(f'images of shape {tuple(shape)}, want {network.input_shape} as the network')
  if network.output_shape != (classes,):
    raise ValueError(
      f'a network with output {network.output_shape} for images of {classes} classes, '
      f'want ({classes},)'
    )


class Task(struct.PyTreeNode, kw_only=True):
  """Everything members share: the network, the data, the channels' ranks.

  train: the training images and labels, on device.
  validation: what members are scored on.
  channel_ranks: per layer int32 [C], the rank of each channel, see `importance.ranks`.
  network: computes in the type that `training` asks for.
  training: the options of its steps.
  mean, std: statistics of the training images, one number per channel.
  teacher: the network whose soft labels are learned, or None.
  """

  train: data.Split
  validation: data.Split
  channel_ranks: tuple[jax.Array, ...]
  network: Network = struct.field(pytree_node=False)
  training: Training = struct.field(pytree_node=False)
  mean: tuple[float, ...] = struct.field(pytree_node=False)
  std: tuple[float, ...] = struct.field(pytree_node=False)
  teacher: Teacher | None = None

  @classmethod
  def of(
    cls,
    network: Network,
    images: data.Dataset,
    variables,
    training: Training,
    *,
    teacher: Teacher | None = None,
    validation_images: int | None = None,
    channel_ranks: tuple[jax.Array, ...] | None = None,
  ) -> 'Task':
    """The task of training a network on a data set.

    Args:
      network: the one to train.
      images: its training and validation images are put on the device.
      variables: of the trained all-ReLU network; they rank the channels.
      training: the options of its steps.
      teacher: the network whose soft labels are learned.
      validation_images: members are scored on the first so many of them; None is all.
      channel_ranks: where these were learned; None takes those of `variables`.
    """
    # A CPU reads an array where it is, so that images mapped from a file are not copied.
    train, validation = (
      data.Split(*(jax.device_put(part[:count]) for part in split))
      for split, count in ((images.train, None), (images.validation, validation_images))
    )
    return cls(
      train=train,
      validation=validation,
      channel_ranks=channel_ranks or importance.ranks(network, variables),
      network=network.clone(dtype=compute_dtype(training)),
      training=training,
      mean=images.mean,
      std=images.std,
      teacher=teacher,
    )

  def without_polynomials(self) -> 'Task':
    """The same task for an all-ReLU network, which trains faster so."""
    return self.replace(training=dataclasses.replace(self.training, polynomials=False))

  def normalise(self, images: jax.Array) -> jax.Array:
    """float32 [..., C] of uint8 images, by the statistics of the training set."""
    return data.normalise(images, self.mean, self.std)


class Member(struct.PyTreeNode):
  """State of one member.

  params, batch_stats: weights and batch-norm statistics of its network.
  coefficients: per activation layer float32 [4] or [C, 4].
  optimizer_state: that of `training.optimizer`.
  plan: ratio and degree of every activation layer.
  learning_rate: of its next steps, before the factor that a schedule has.
  loss: the mean over its last training steps.
  accuracy: share of the validation images that it classified right when it was last scored.
  score: Eq. 4 then, see `score.score`; -inf for a member that diverged.
  average: moving average of {'params', 'coefficients'} with its step count, or
    None. Where there is one, batch_stats and accuracy are those of the average.
  momentum: the member's own; None where it is that of its training options.
  """

  params: Any
  batch_stats: Any
  coefficients: tuple[jax.Array, ...]
  optimizer_state: Any
  plan: plans.Plan
  learning_rate: jax.Array
  loss: jax.Array
  accuracy: jax.Array
  score: jax.Array
  average: optax.EmaState | None = None
  momentum: jax.Array | None = None


class Gated(Member, kw_only=True):
  """A member whose plan and ranks of channels are those of its gates, see `gates`.

  It is a type of its own so that checkpoints of other members hold no gates.
  """

  gates: gates_.Gates

  @classmethod
  def of(cls, member: Member, gates: gates_.Gates) -> 'Gated':
    """The member with gates."""
    return cls(**vars(member), gates=gates)


def gates_of(member: Member) -> gates_.Gates | None:
  """Its gates, if it has some."""
  return member.gates if isinstance(member, Gated) else None


def settled(member: Member, task: Task) -> tuple[Member, tuple[jax.Array, ...]]:
  """The member without gates, and the ranks of its channels: its gates' or the task's."""
  if not isinstance(member, Gated):
    return member, task.channel_ranks
  plain = {name: value for name, value in vars(member).items() if name != 'gates'}
  return Member(**plain), gates_.ranks(member.gates)


def untrained(
  key: jax.Array, learning_rate: float, network: Network, training: Training, given=None
) -> Member:
  """The all-ReLU member with the weights that are given, else with random ones."""
  variables = jax.jit(network.init)(key) if given is None else given
  return all_relu(variables, learning_rate, network, training)


def all_relu(variables, learning_rate: float, network: Network, training: Training) -> Member:
  """The member with given weights that replaces no ReLU."""
  plan = plans.all_relu(len(activation_channels(network)))
  return create(variables, plan, learning_rate, network, training)


def create(
  variables, plan: plans.Plan, learning_rate: float, network: Network, training: Training
) -> Member:
  """A member with given weights and plan, fresh coefficients and momentum."""
  zero = jnp.zeros((), jnp.float32)
  member = Member(
    variables['params'],
    variables.get('batch_stats', {}),
    activation.initial_coefficients(activation_channels(network)),
    None,
    plan,
    *(zero,) * 4,
  )
  return restart(member, learning_rate, network, training)


def restart(
  member: Member, learning_rate: float | jax.Array, network: Network, training: Training
) -> Member:
  """The member at the start of a new training, its optimiser without memory.

  Its weights are those that are scored: the average where it keeps one. With
  `training.per_channel` every channel of a layer starts from the layer's polynomial.

  Raises:
    ValueError: coefficients per channel, which a training per layer cannot take.
  """
  member = averaged(member)
  if training.per_channel:
    member = member.replace(
      coefficients=tuple(
        jnp.broadcast_to(c, (channels, c.shape[-1]))
        for c, channels in zip(member.coefficients, activation_channels(network))
      )
    )
  elif any(c.ndim > 1 for c in member.coefficients):
    raise ValueError('per_channel False, want True: the coefficients are per channel already')
  trainable = _trainable(member)
  average = optax.EmaState(jnp.zeros((), jnp.int32), trainable) if training.ema else None
  return member.replace(
    optimizer_state=optimizer(training).init(trainable),
    learning_rate=jnp.asarray(learning_rate, jnp.float32),
    average=average,
    momentum=None,
  )


def fitted(member: Member, network: Network, images: data.Dataset) -> Member:
  """The all-ReLU member with polynomials fitted to the inputs of its activations."""
  some = data.normalise(jnp.asarray(images.train.images[:FIT_IMAGES]), images.mean, images.std)
  coefficients = activation.fitted_coefficients(network, variables(member), some)
  return member.replace(coefficients=coefficients)


def variables(member: Member) -> dict[str, Any]:
  """Its weights and batch-norm statistics, as its network takes them."""
  return {'params': member.params, 'batch_stats': member.batch_stats}


def averaged(member: Member) -> Member:
  """The member with the average of its weights and coefficients, if it keeps one."""
  return member if member.average is None else member.replace(**member.average.ema)


def _trainable(member: Member) -> dict[str, Any]:
  return {'params': member.params, 'coefficients': member.coefficients}


def _advance(average: optax.EmaState, trainable, decay: float) -> optax.EmaState:
  # At first the average forgets faster, or it would keep the weights that training began with.
  young = (1.0 + average.count) / (10.0 + average.count)
  step = 1.0 - jnp.minimum(decay, young)
  return optax.EmaState(average.count + 1, optax.incremental_update(trainable, average.ema, step))


def approximation(member: Member, task: Task, blend=0.0, bound: float | None = None):
  """What the network takes as `approximation` for this member; None in all-ReLU training."""
  if not task.training.polynomials:
    return None
  gates = gates_of(member)
  order = task.channel_ranks if gates is None else gates_.ranks(gates)
  return activation.approximate(
    member.plan, order, member.coefficients, blend, task.training.leading_floor, bound
  )


class Batch(struct.PyTreeNode):
  """What members learn from in one step.

  images: uint8 [B, H, W, C], augmented.
  labels: int32 [B].
  taught: float32 [B, classes], the teacher's logits; None without distillation.
  """

  images: jax.Array
  labels: jax.Array
  taught: jax.Array | None


def draw(key: jax.Array, indices: jax.Array, task: Task) -> Batch:
  """The batch of the training images with these indices, int32 [B]; the key augments them."""
  images, labels = (part[indices] for part in task.train)
  if task.training.augment:
    images = data.augment(key, images)
  taught = None
  if task.teacher and task.training.distillation:
    taught = task.teacher.logits(images)
  return Batch(images, labels, taught)


def train(
  key: jax.Array,
  member: Member,
  task: Task,
  batches: jax.Array,
  *,
  rates: jax.Array | float = 1.0,
  blends: jax.Array | float = 0.0,
) -> tuple[Member, jax.Array]:
  """Trains on given batches. The plan does not change; the key is consumed.

  Args:
    key: for augmentation.
    member: at the start.
    task: the shared data.
    batches: int32 [steps, batch_size], indices into the training set.
    rates: factors on the learning rate, [] or [steps].
    blends: the share of ReLU in replaced channels, [] or [steps]; 0 is the polynomial alone.

  Returns:
    The member after the steps, and the losses float32 [steps].
  """
  undrawn = jax.random.split(key, batches.shape[0]), batches
  return _train(lambda keyed: draw(keyed[0], keyed[1], task), undrawn, member, task, rates, blends)


def train_on(member: Member, task: Task, batches: Batch) -> Member:
  """As `train`, on batches that were drawn before, with a leading axis [steps]."""
  return _train(lambda batch: batch, batches, member, task, 1.0, 0.0)[0]


def _train(drawn, batches, member, task, rates, blends):
  """The steps of `train`; `drawn` makes a `Batch` of what `batches` has for a step."""
  steps = jax.tree.leaves(batches)[0].shape[0]
  sizes = score.activations(task.network)
  update = optimizer(task.training, member.momentum).update

  def step(member, inputs):
    batch, rate, blend = inputs
    trainable = _trainable(member)
    (loss, batch_stats), (gradients, of_gates) = jax.value_and_grad(_loss, (0, 1), has_aux=True)(
      trainable, gates_.learned(gates_of(member)), member, task, drawn(batch), blend
    )
    updates, state = update(gradients, member.optimizer_state, trainable)
    scale = -member.learning_rate * rate
    trainable = jax.tree.map(lambda a, u: a + scale * u, trainable, updates)
    member = member.replace(**trainable, batch_stats=batch_stats, optimizer_state=state)
    if member.average is not None:
      member = member.replace(average=_advance(member.average, trainable, task.training.ema))
    if isinstance(member, Gated):
      member = member.replace(gates=gates_.advance(member.gates, of_gates, sizes))
    return member, loss

  inputs = batches, jnp.broadcast_to(rates, steps), jnp.broadcast_to(blends, steps)
  member, losses = lax.scan(step, member, inputs)
  return member.replace(loss=losses.mean()), losses


def _loss(trainable, gates, member, task, batch, blend):
  training = task.training
  member = member.replace(**trainable)
  bound = training.range_clip or None
  if gates is None:
    layers = approximation(member, task, blend, bound)
  else:
    layers = gates_.relaxed(
      member.gates.replace(**gates),
      member.coefficients,
      score.activations(task.network),
      training.leading_floor,
      bound,
    )
  logits, state = task.network.apply(
    variables(member),
    task.normalise(batch.images),
    layers,
    train=True,
    mutable=['batch_stats', 'preactivations'],
  )
  one_hot = jax.nn.one_hot(batch.labels, logits.shape[-1])
  targets = optax.smooth_labels(one_hot, training.label_smoothing)
  loss = optax.softmax_cross_entropy(logits, targets).mean()
  if training.distillation:
    soft = jax.nn.softmax(batch.taught / training.temperature)
    matched = optax.softmax_cross_entropy(logits / training.temperature, soft).mean()
    weight = training.distillation
    loss = (1 - weight) * loss + weight * training.temperature**2 * matched
  if training.range_penalty and layers is not None:
    inputs = tuple(state['preactivations'][f'activation{t}'][0] for t in range(len(layers)))
    loss += training.range_penalty * activation.range_penalty(inputs, layers, training.range_limit)
  return loss, state.get('batch_stats', {})


def recalibrate(key: jax.Array, member: Member, task: Task) -> Member:
  """Replaces the batch-norm statistics by their median over fresh training batches.

  Running averages would still remember the activations of an earlier plan. It is the median
  because of images far out in the tail of the polynomials: one of them makes the variance of
  its batch many times that of the others, and a mean over batches with it.

  Where training clips the inputs of polynomials (`range_clip`), so does recalibration. Then
  even such a batch has statistics like the rest.
  """
  if not member.batch_stats:
    return member  # a network without batch norm
  count = task.training.recalibration_batches
  batches = jax.random.randint(key, (count, task.training.batch_size), 0, task.train.labels.size)
  scored = averaged(member)
  layers = approximation(scored, task, bound=task.training.range_clip or None)
  # From zero statistics one update leaves (1 - momentum) times the batch's own.
  empty = jax.tree.map(jnp.zeros_like, member.batch_stats)

  def one(_, batch):
    _, state = task.network.apply(
      {'params': scored.params, 'batch_stats': empty},
      task.normalise(task.train.images[batch]),
      layers,
      train=True,
      mutable=['batch_stats'],
    )
    return None, state['batch_stats']

  _, found = lax.scan(one, None, batches)
  scale = 1.0 / (1 - BATCH_NORM_MOMENTUM)
  return member.replace(batch_stats=jax.tree.map(lambda a: scale * jnp.median(a, 0), found))


def accuracy(
  member: Member, task: Task, images: np.ndarray | jax.Array, labels: np.ndarray | jax.Array
) -> jax.Array:
  """Share of images [N, H, W, C] that the member classifies right, float []."""
  size = min(task.training.evaluation_batch, labels.size)
  count = -(-labels.size // size)
  # The last batch is filled up with label -1, which no prediction equals.
  short = count * size - labels.size
  images = jnp.pad(images, ((0, short), (0, 0), (0, 0), (0, 0)))
  padded = jnp.pad(labels, (0, short), constant_values=-1)
  member = averaged(member)
  layers = approximation(member, task)

  def correct(batch):
    logits = task.network.apply(variables(member), task.normalise(batch[0]), layers)
    return jnp.sum(jnp.argmax(jnp.asarray(logits), -1) == batch[1])

  batches = images.reshape(count, size, *images.shape[1:]), padded.reshape(count, size)
  return lax.map(correct, batches).sum() / labels.size


def is_finite(member: Member) -> jax.Array:
  """False once any weight, statistic, coefficient or the loss is NaN or infinite."""
  leaves = jax.tree.leaves((member.params, member.batch_stats, member.coefficients, member.loss))
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))
