"""Small workdirs for the report's tests, as the commands would leave them."""

import json

from safenet_jax.transport import ledger as ledgers

CNN7 = (65536, 65536, 16384, 16384, 4096, 4096, 1024)
CHANNELS = (64, 64, 64, 64, 64, 64, 16)


def config(network='cnn7', dataset='cifar10', algorithm='btpbt', **model):
  return {
    'seed': {'seed': 0},
    'model': {'name': network, 'width': 1.0} | model,
    'data': {'name': dataset, 'limit': 0},
    'search': {'algorithm': algorithm, 'population': 2, 'iterations': 5, 'literal': False},
    'plan': {'source': 'search'},
  }


def plan(ratio=16, degree=2, counts=CNN7, channels=CHANNELS):
  """A plan with one ratio, in twentieths, and one degree."""
  replaced = [
    count // width * ((ratio * width + 10) // 20) for count, width in zip(counts, channels)
  ]
  return {
    'network': 'cnn7',
    'ratio': [ratio] * len(counts),
    'degree': [degree] * len(counts),
    'channels': list(channels),
    'activations': list(counts),
    'replaced': replaced,
    'validation_accuracy': {'pretrained': 0.85, 'control': 0.86, 'planned': 0.84},
    'threshold': {'accuracy': 0.83, 'feasible': True, 'images': 100},
  }


def ledger(linear=0.25, other=0.75, size=2_000_000):
  """A record with a linear step and another one in both phases, a round in each."""
  found = ledgers.Ledger()
  for phase in ('offline', 'online'):
    found.spend(phase, 'conv0', 'linear', 'client', wall=linear)
    found.spend(phase, 'activation0', 'evaluation', 'client', wall=other)
    found.count(phase, 'activation0', 'labels', 'server', size)
    found.count(phase, 'activation0', 'truncation', 'client', 0)
  return found.record()


def simulated():
  """ledger.json, as `experiments.infer` writes it."""
  return ledger() | {
    'mode': 'simulator',
    'images': 4,
    'images_per_second': 2.0,
    'agreement': 4,
    'correct': 3,
    'out_of_range': {},
    'truncation_failure': 1e-8,
  }


def cycle(*members):
  """A line of the search's log, of members (ratio, accuracy); all feasible."""
  ratios, accuracies = zip(*members)
  scores = [accuracy * (1 + ratio / 20) for ratio, accuracy in members]
  return {
    'ratio': [[ratio] * len(CNN7) for ratio in ratios],
    'accuracy': accuracies,
    'score': scores,
    'key': [1 + score for score in scores],
  }


def write(path, settings, *, metrics=None, **files):
  """Writes config.json, metrics.jsonl, and <name>.json of every other argument."""
  metrics = log() if metrics is None else metrics
  path.mkdir(parents=True, exist_ok=True)
  for name, value in ({'config': settings} | files).items():
    (path / f'{name}.json').write_text(json.dumps(value))
  (path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in metrics))
  return path


def log(accuracies=(0.7, 0.8), phase='pretrain'):
  return [
    {'phase': phase, 'step': i, 'epoch': i, 'validation_accuracy': accuracy}
    for i, accuracy in enumerate(accuracies, 1)
  ]


def searched(*cycles):
  return [{'phase': 'search', 'step': i} | line for i, line in enumerate(cycles, 1)]
