"""What workdirs hold, finished or not, as the report's tables and figures read it."""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from safenet_jax.approximation import plans
from safenet_jax.search import score
from safenet_jax.workdir import Workdir

# ReLUs of the paper's networks; CNN-7 with its pools after the activations.
FULL_SIZE = {'cnn7': 173_056, 'vgg16': 276_992, 'resnet32': 303_104}
# What `experiments.infer` leaves in the workdir; with --simulate it leaves ledger.json.
CLIENT_LEDGER = 'client_ledger.json'


@dataclasses.dataclass(frozen=True)
class Run:
  """One workdir; what is None or empty has not been run.

  config: the recorded settings by section.
  plan, ledger, thin: contents of the JSON files of these names.
  client: the client's ledger of an inference by two real processes.
  fixed_point: scores of all test images in fixed point.
  evaluations: accuracies of its networks, those on the test images among them.
  metrics: lines of the log.
  overrides: the settings that a sweep gave this run.
  """

  name: str
  config: dict[str, Any]
  plan: dict[str, Any] | None = None
  ledger: dict[str, Any] | None = None
  client: dict[str, Any] | None = None
  thin: dict[str, Any] | None = None
  fixed_point: dict[str, Any] | None = None
  evaluations: Sequence[dict[str, Any]] = ()
  metrics: Sequence[dict[str, Any]] = ()
  overrides: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def network(self) -> str:
    """Name of the architecture."""
    return self.config['model']['name']

  @property
  def dataset(self) -> str:
    """Name of the images."""
    return self.config['data']['name']

  @property
  def algorithm(self) -> str:
    """What found the plan; 'given' if it was written by hand, 'all-ReLU' if there is none."""
    if self.plan is None:
      return 'all-ReLU'
    if self.config.get('plan', {'source': 'search'}).get('source') != 'search':
      return 'given'
    return self.config['search']['algorithm']

  @property
  def title(self) -> str:
    """Network, width and images, as a heading."""
    width = self.config['model'].get('width', 1.0)
    narrow = '' if width == 1 else f' at width {width:g}'
    return f'{self.network}{narrow} on {self.dataset}'

  def is_full_size(self, network: str, dataset: str) -> bool:
    """Whether the run has this network of the paper, equally wide and on the same images."""
    if (self.network, self.dataset) != (network, dataset) or self.config['data'].get('limit'):
      return False
    if self.plan is None:
      model = self.config['model']
      return model.get('width', 1.0) == 1 and not model.get('pool_before_activation')
    return sum(self.plan['activations']) == FULL_SIZE[network]

  def log(self, phase: str) -> list[dict[str, Any]]:
    """The lines of one phase."""
    return [line for line in self.metrics if line['phase'] == phase]


def replaced_share(plan: dict[str, Any]) -> float:
  """The share of a plan's activations that it replaces."""
  return sum(plan['replaced']) / sum(plan['activations'])


def seconds_of(plan: dict[str, Any], cost: score.CostModel = score.PUBLISHED) -> float:
  """The seconds that, by a cost model, the activations of a plan take."""
  by_degree = dict(zip(plans.DEGREES, (cost.degree0, cost.degree2, cost.degree3)))
  replaced = sum(
    count * by_degree[degree] for count, degree in zip(plan['replaced'], plan['degree'])
  )
  kept = (sum(plan['activations']) - sum(plan['replaced'])) * cost.relu
  return 1e-6 * (kept + replaced)


def all_relu(activations: Sequence[int]) -> dict[str, Any]:
  """A plan that replaces nothing, as plan.json would hold it."""
  zeros = [0] * len(activations)
  return {'activations': list(activations), 'replaced': zeros, 'degree': zeros, 'ratio': zeros}


def accuracy(run: Run, phase: str) -> tuple[float, str] | None:
  """A phase's accuracy and the split it is of: 'test' if those images were scored."""
  scored = [r for r in run.evaluations if (r['phase'], r['split']) == (phase, 'test')]
  if scored:
    return scored[-1]['accuracy'], 'test'
  if phase == 'finetune' and run.plan:
    return run.plan['validation_accuracy']['planned'], 'validation'
  lines = [line for line in run.log(phase) if 'validation_accuracy' in line]
  return (lines[-1]['validation_accuracy'], 'validation') if lines else None


def best_accuracy(run: Run) -> tuple[float, str] | None:
  """The accuracy of what the run ends with: its planned network, or the all-ReLU one."""
  return accuracy(run, 'finetune' if run.plan else 'pretrain')


def result(run: Run) -> str:
  """What a run achieved, in a few words."""
  found = best_accuracy(run)
  reached = f'{found[0]:.1%} {found[1]}' if found else 'unfinished'
  if run.plan is None:
    return f'{run.title}: {reached}'
  share = f'{replaced_share(run.plan):.1%} replaced'
  return f'{run.title}, {run.algorithm}: {share}, {reached}'


def load(path: str | pathlib.Path) -> list[Run]:
  """The run of a workdir, or all those of a sweep, the finished ones first.

  Raises:
    FileNotFoundError: nothing was run there.
  """
  workdir = Workdir(path)
  config = workdir.read_json('config.json', 'pretrain')
  if 'sweep' not in config:
    return [_load(workdir, config)]
  found = []
  for overrides, child in _children(workdir, config['sweep']['settings']):
    own = child.read_json('config.json', 'pretrain')
    found.append(dataclasses.replace(_load(child, own), overrides=overrides))
  if not found:
    raise FileNotFoundError(f'no search of the sweep in {workdir.path} has begun')
  return sorted(found, key=lambda run: run.plan is None)


def distinct(runs: Sequence[Run]) -> list[Run]:
  """The runs, renamed where workdirs in several places have the same name."""
  seen: dict[str, int] = {}
  found = []
  for run in runs:
    count = seen[run.name] = seen.get(run.name, 0) + 1
    found.append(dataclasses.replace(run, name=f'{run.name} {count}') if count > 1 else run)
  return found


def _children(workdir: Workdir, settings: Sequence[dict[str, Any]]):
  """For each setting of a sweep, the folder whose recorded settings agree with it."""
  for overrides in settings:
    for path in sorted(workdir.path.glob('*/config.json')):
      config = Workdir(path.parent).read_json('config.json', 'pretrain')
      flat = {'seed': config.get('seed', {}).get('seed')} | {
        f'{section}.{key}': value
        for section, values in config.items()
        for key, value in values.items()
      }
      if 'search' in config and all(flat.get(key) == value for key, value in overrides.items()):
        yield overrides, Workdir(path.parent)
        break


def _load(workdir: Workdir, config: dict[str, Any]) -> Run:
  if missing := [name for name in ('model', 'data') if not config.get(name, {}).get('name')]:
    raise ValueError(
      f'{workdir / "config.json"} has no {" and no ".join(missing)}, want the workdir of '
      'experiments.pretrain'
    )

  def read(name: str, phase: str) -> Any:
    return workdir.read_json(name, phase) if (workdir / name).exists() else None

  run = Run(
    workdir.path.name,
    config,
    read('plan.json', 'search or finetune'),
    read('ledger.json', 'infer'),
    read(CLIENT_LEDGER, 'infer --two_processes'),
    read('thin/thin.json', 'thin'),
    read('fixed_point.json', 'fixed_point'),
    read('evaluations.json', 'evaluate') or (),
    workdir.metrics(),
  )
  if run.plan is None and not run.metrics:
    raise FileNotFoundError(f'nothing has been trained in {workdir.path}: run pretrain first')
  return run
