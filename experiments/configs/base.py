"""The settings that all configs share. A config names its network and changes some of them."""

import dataclasses
from typing import Any

from ml_collections import config_dict

from experiments.lib import launcher
from safenet_jax.search.training import Training

# Options of polynomials. Section `pretrain` lacks them: the all-ReLU network has no polynomials.
POLYNOMIAL = (
  'coefficient_rate',
  'per_channel',
  'leading_floor',
  'range_limit',
  'range_penalty',
  'range_clip',
)


def create(
  model: dict[str, Any],
  data: str,
  pretrain: dict[str, Any],
  search: dict[str, Any],
  finetune: dict[str, Any] | None = None,
) -> config_dict.ConfigDict:
  """A config with every setting there is, unlocked.

  Sections `search` and `finetune` have every option of `search.training.Training`
  but `polynomials`; `pretrain` also lacks those of POLYNOMIAL. An option of
  `finetune` has the value of the same option of `search` until it is set itself.

  Args:
    model: `name` and options of the architecture.
    data: name of the images.
    pretrain: what differs in the training of the all-ReLU network.
    search: what differs in the search.
    finetune: what differs in the training of the plan that it finds.

  Raises:
    ValueError: a name in `pretrain`, `search` or `finetune` is no setting.
  """
  options = {field.name: field.default for field in dataclasses.fields(Training)}
  del options['polynomials']  # the phase decides
  of_pretrain = {name: value for name, value in options.items() if name not in POLYNOMIAL} | {
    # An .npz or .onnx file with the weights that training starts with. Without one they are drawn,
    # or those of model.onnx.
    'weights': '',
    'epochs': 200,
    'warmup_epochs': 5.0,
    'learning_rate': 0.1,
  }
  of_search = options | {
    'algorithm': 'btpbt',
    'population': 50,
    'iterations': 20,
    # Algorithm 1 trains 20 epochs a node and 40 jointly. An epoch has 351 batches, so with 20
    # iterations a cycle these are as many batches.
    'node_cycles': 351,
    'joint_cycles': 702,
    # Cheaper trees, see docs/search.md.
    'node_patience': 0,  # a node ends after so many cycles without a better member; 0 is never
    'supernet_draws': 1,  # plans drawn for every member, the best of which it starts with
    'fresh_nodes': False,  # True: a node's optimisers start anew
    # The accuracy threshold A_t of plans is this much below the all-ReLU network's accuracy.
    'accuracy_drop': 0.02,
    'literal': False,  # True: members are sorted by the score (Eq. 4) alone, without A_t
    'degrees': (0, 2, 3),  # of the polynomials in plans
    # Or measured: what activations of this network cost in the mode, and over the link, in which
    # its plan will be served; on the machines of unit_costs, a file of benchmark --suite=units.
    'cost': 'published',
    'mode': 'delphi',
    'link': 'lan',  # or wan, or RATE,RTT: bits a second, seconds
    'unit_costs': '',
    'partial_ratio': 0.5,  # algorithm partial: the share of every layer's channels replaced
    'subset_layers': 0,  # layerwise_released: how many layers are replaced, 0 tries every number
    'relu_budget': 50000,  # algorithms budget and gates_budget: ReLUs that may be left per image
    'strategy': 'map',  # or vmap, unroll, auto: how a device runs its members
    'mesh': True,  # members are spread over all devices of all processes
    'validation_images': 2000,
    'learning_rate': 0.02,
    'distillation': 0.5,
  }
  of_finetune = {
    'epochs': 40,
    'learning_rate': 0.02,
    'warmup_epochs': 0.0,
    'anneal_epochs': 0.0,  # over which replaced channels go from ReLU to the polynomial
  }
  config = config_dict.ConfigDict(
    {
      'seed': 0,
      'model': model,
      'data': {
        'name': data,
        'directory': '',
        'download': False,
        'limit': 0,
        # Of a folder's images: (H, W) that is cut out of the middle, by default as the imported
        # network wants it, and pixels of the shorter side before that; 0 is just enough.
        'size': (),
        'resize': 0,
        # What images are normalised with. By default of published data and .npz files their own,
        # of folders those of ImageNet.
        'mean': (),
        'std': (),
      },
      # The network whose soft labels are learned, in every phase with `distillation`. `weights` is
      # an .npz as of `models.weights` or of a PyTorch ResNet, `mean` and `std` are what its images
      # are normalised with. Without weights the run's own all-ReLU network teaches once it is
      # trained.
      'teacher': {'network': 'resnet32', 'weights': '', 'mean': (), 'std': ()},
      'pretrain': of_pretrain,
      'search': of_search,
      'finetune': of_finetune,
      'secure': {
        'images': 32,
        'calibration_images': 200,
        'report_images': 500,  # the last of the validation set, for accuracy in fixed point
        'activation_bits': 7,  # fraction bits of activations
        'weight_bits': 8,  # the fewest fraction bits of weights; small ones get more
      },
    }
  )
  for name in options:
    config.finetune[name] = config.search.get_oneway_ref(name)
  for section, changes in (('pretrain', pretrain), ('search', search), ('finetune', finetune)):
    for name, value in (changes or {}).items():
      if name not in config[section]:
        known = ', '.join(config[section])
        raise ValueError(f'{section}.{name} is no setting, want one of: {known}')
      config[section][name] = value
  return config


def cifar(
  preset: str,
  data: str,
  model: dict[str, Any],
  pretrain: dict[str, Any] | None = None,
) -> config_dict.ConfigDict:
  """The locked config of a network, with the search as long as the paper's.

  Args:
    preset: '' or 'smoke', a narrow network on a few images.
    data: 'cifar10' or 'cifar100'.
    model: `name` and options of the architecture.
    pretrain: what differs in the training of the all-ReLU network.
  """
  smoke = launcher.preset(preset, ('smoke',)) == 'smoke'
  config = create({'width': 1.0} | model, data, pretrain or {}, {})
  if smoke:
    config.model.update({'width': 0.125})
    config.data.update({'limit': 256})
    config.pretrain.update({'epochs': 1, 'warmup_epochs': 0.0, 'batch_size': 32})
    config.search.update(
      {
        'population': 2,
        'iterations': 2,
        'node_cycles': 1,
        'joint_cycles': 1,
        'validation_images': 100,
        'batch_size': 32,
      }
    )
    config.finetune.update({'epochs': 1})
    config.secure.update({'images': 2, 'calibration_images': 50})
  return config.lock()
