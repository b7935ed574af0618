"""From a config to the library's arguments: config objects stop here."""

from collections.abc import Callable
import dataclasses
import os

import jax
import numpy as np

from experiments.lib import imported, launcher
from safenet_jax import data
from safenet_jax.approximation import plans
from safenet_jax.models import architectures, weights
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.protocol.estimate import activation_costs, links, serving, unit_costs
from safenet_jax.search import fit, members, phases, score
from safenet_jax.search import teacher as teachers
from safenet_jax.search.members import Member, Task, Training
from safenet_jax.search.teacher import Teacher
from safenet_jax.workdir import Workdir

# Phases that train on from the pretrained network, with the settings of section `finetune`.
TUNED = ('finetune', 'control')
# Sections of the config that a run with a plan depends on. The all-ReLU network depends on the
# first four alone.
SECTIONS = ('model', 'data', 'teacher', 'pretrain', 'search', 'finetune')


def dataset(config) -> data.Dataset:
  """The config's images; `data.limit` keeps the first of every split."""
  settings, net = config.data, imported.read(config.model)
  shape = net.network.input_shape if net else (*settings.size, 3)
  images = data.load(
    settings.name,
    settings.directory or None,
    download=settings.download,
    size=tuple(settings.size) or shape[:2] if net or settings.size else None,
    resize=settings.resize,
    channels=shape[-1],
  )
  limit = config.data.get('limit', 0) or None

  def first(split):
    return data.Split(*(part[:limit] for part in split))

  return dataclasses.replace(
    images,
    train=first(images.train),
    validation=first(images.validation),
    test=first(images.test),
    mean=tuple(settings.mean) or images.mean,
    std=tuple(settings.std) or images.std,
  )


def network(config, images: data.Dataset | None = None) -> Network:
  """The config's network; the shape of a published data set, or file, is known without images.

  ValueError if it does not take these images, as a network of one's own may not.
  """
  options = config.model.to_dict()
  name = options.pop('name')
  if images is None and (given := imported.read(config.model)):
    return given.network  # the file says its shape
  if images is None and config.data.name in data.SHAPES:
    options['classes'], options['input_shape'] = data.SHAPES[config.data.name]
  else:
    images = images or dataset(config)
    options['classes'], options['input_shape'] = images.classes, images.train.images.shape[1:]
  net = architectures.build(name, **options)
  members.check_fit(net, options['input_shape'], options['classes'])
  return net


def check_served(net: Network, plan: plans.Plan | None = None) -> None:
  """ValueError where no mode serves the network under the plan: now, and not after hours.

  Where only some modes do, lines say so. None is the plan of the all-ReLU network.
  """
  reasons = serving.refusals(net, plan)
  serving.check_any(reasons)
  if any(reasons.values()):
    print(*serving.lines(reasons), sep='\n')


def cost_model(settings, net: Network) -> score.CostModel:
  """What activations cost in a search with these settings, those of section `search`."""
  if settings.cost == 'published':
    return score.PUBLISHED
  file = settings.unit_costs
  costs = unit_costs.load(os.path.expanduser(file)) if file else unit_costs.DEFAULT
  link = links.parse(settings.link)
  return score.cost_model(activation_costs.per_activation(net, settings.mode, link, costs))


def section(config, phase: str):
  """The settings of a phase."""
  return config['finetune' if phase in TUNED else phase]


def training(settings) -> Training:
  """Training options from the keys of a section that are named like them."""
  names = [field.name for field in dataclasses.fields(Training)]
  return Training(**{name: settings[name] for name in names if name in settings})


def teacher(config, images: data.Dataset, options: Training, own=None) -> Teacher | None:
  """The network whose soft labels a phase learns: that of section `teacher`, else the run's own.

  None if the phase has no distillation.

  Args:
    config: of the run.
    images: of the run.
    options: how the phase trains.
    own: (network, member) of the run's pretrained all-ReLU network, None before there is one.

  Raises:
    ValueError: the phase has distillation, and there is neither of the two.
  """
  if not options.distillation:
    return None
  settings = config.teacher
  if not settings.weights:
    if own is None:
      raise ValueError(
        f'pretrain.distillation {options.distillation} and no teacher.weights, want the .npz of a '
        'trained network'
      )
    net, first = own
    return teachers.own(net, members.variables(first), images, options)
  net = architectures.build(
    settings.network, classes=images.classes, input_shape=images.train.images.shape[1:]
  )
  trained = weights.load(net, os.path.expanduser(settings.weights))
  # A network from elsewhere keeps the statistics of the augmented images it was trained on.
  return Teacher(
    trained,
    net.clone(dtype=members.compute_dtype(options)),
    tuple(settings.mean) or images.mean,
    tuple(settings.std) or images.std,
    by_batch=False,
  )


def start(config, net: Network, options: Training) -> Member:
  """The untrained all-ReLU member."""
  key = phases.key(config.seed, 'init')
  return members.untrained(key, config.pretrain.learning_rate, net, options)


def trained(config, net: Network, workdir: Workdir, phase: str) -> Member:
  """The member that a finished phase left behind; FileNotFoundError if there is none."""
  lines, steps = workdir.metrics(phase), workdir.steps(phase)
  if not steps and not lines:
    raise FileNotFoundError(f'no {phase} checkpoint in {workdir.path}: run {phase} first')
  epochs = section(config, phase).epochs
  # By the checkpoint: the last line of a log may have been cut off.
  done = steps * lines[0]['epoch'] // lines[0]['step'] if lines and steps else epochs
  if done < epochs:
    raise ValueError(
      f'{phase} in {workdir.path} stopped after {done} of {epochs} epochs: '
      'run the same command again to finish it'
    )
  like = jax.eval_shape(lambda: start(config, net, training(section(config, phase))))
  checkpoints = workdir.checkpoints(phase)
  found = checkpoints.restore({'member': like})
  checkpoints.close()
  if found is None:  # removed meanwhile
    raise FileNotFoundError(f'no {phase} checkpoint in {workdir.path}: run {phase} first')
  return found[1]['member']


def pretrain(
  config, net: Network, images: data.Dataset, taught: Teacher | None, workdir: Workdir
) -> phases.Trained:
  """Trains the all-ReLU network, from scratch or from the weights that the config names."""
  settings = config.pretrain
  with launcher.progress_bar('pretrain') as report:
    return phases.train(
      net,
      images,
      start=imported.start(config, net),
      epochs=settings.epochs,
      learning_rate=settings.learning_rate,
      warmup_epochs=settings.warmup_epochs,
      training=training(settings),
      teacher=taught,
      seed=config.seed,
      workdir=workdir,
      progress=report,
    )


def planned_task(
  net: Network, images: data.Dataset, pretrained: Member, options: Training, workdir: Workdir
) -> Task:
  """The task of a finished run's plan: its channels have the ranks of its plan.json.

  FileNotFoundError if there is none.
  """
  workdir.read_json('plan.json', 'search or finetune')
  ranks = plans.load_ranks(workdir / 'plan.json', activation_channels(net))
  return Task.of(net, images, members.variables(pretrained), options, channel_ranks=ranks)


def tune(config, phase: str, member: Member, task: Task, workdir: Workdir, epochs: int) -> Member:
  """Trains a member on with the settings of fine-tuning."""
  settings = config.finetune
  with launcher.progress_bar(phase) as report:
    return phases.tune(
      phases.key(config.seed, phase),
      member,
      task,
      workdir,
      phase=phase,
      epochs=epochs,
      learning_rate=settings.learning_rate,
      warmup_epochs=settings.warmup_epochs,
      anneal_epochs=settings.anneal_epochs,
      progress=report,
    )


def finish(
  config,
  images: data.Dataset,
  net: Network,
  first: Member,
  planned: Member,
  workdir: Workdir,
  *,
  searched: int,
  ranks: tuple[jax.Array, ...] | None = None,
  lend: Callable[[int], None] = lambda steps: None,
) -> None:
  """Fine-tunes `planned`, trains the all-ReLU `first` for as many steps, and saves the plan.

  A_t, the accuracy threshold of the plan, is checked again on all validation images: the search
  scores only the first of them, and fine-tuning changes the network.

  Args:
    config: of the run.
    images: of the run.
    net: the network.
    first: the pretrained all-ReLU member; trained on, it is the control.
    planned: the member with the plan.
    workdir: of the run; gets plan.json.
    searched: how many mini-batches `planned` was trained on since `first`. The control gets them
      in addition.
    ranks: of the channels; None takes those of the pretrained weights.
    lend: called with the steps of the control; may put a finished one into the workdir.
  """
  options = training(config.finetune)
  taught = teacher(config, images, options, (net, first))
  shared = Task.of(
    net, images, members.variables(first), options, teacher=taught, channel_ranks=ranks
  )
  epochs = config.finetune.epochs
  planned = tune(config, 'finetune', planned, shared, workdir, epochs)
  epoch_steps = fit.steps_per_epoch(shared.train.labels.size, options.batch_size)
  epochs += round(searched / epoch_steps)
  lend(epochs * epoch_steps)
  control = tune(config, 'control', first, shared.without_polynomials(), workdir, epochs)
  sizes = score.activations(net)
  accuracies = {
    'pretrained': float(first.accuracy),
    'control': float(control.accuracy),
    'planned': float(planned.accuracy),
  }
  threshold = accuracies['pretrained'] - config.search.accuracy_drop
  feasible = accuracies['planned'] >= threshold
  replaced = np.asarray(score.replaced(planned.plan, sizes))
  workdir.write_json(
    'plan.json',
    plans.record(
      planned.plan,
      config.model.name,
      channels=sizes.channels,
      activations=sizes.counts,
      replaced=replaced.tolist(),
      **({} if ranks is None else {'ranks': [rank.tolist() for rank in ranks]}),
      validation_accuracy=accuracies,
      threshold={
        'accuracy': threshold,
        'feasible': feasible,
        'images': len(images.validation.labels),
      },
    ),
  )
  print(
    f'plan: {replaced.sum() / sum(sizes.counts):.1%} of {sum(sizes.counts)} ReLUs replaced, '
    f'validation accuracy {accuracies["planned"]:.2%}, all-ReLU {accuracies["control"]:.2%}; '
    f'A_t {threshold:.2%} is {"met" if feasible else "MISSED"} after fine-tuning'
  )
