"""`safenet ask`: asks a server to classify images that it does not see."""

import argparse
from collections.abc import Iterator
import dataclasses
import pathlib
import ssl
import sys
from typing import Any

import numpy as np
from numpy.lib import format as npy

from safenet_jax import image_folders
from safenet_jax.console import directories, options, process_memory, progress, tables
from safenet_jax.fixed_point.model import OUT_OF_RANGE
from safenet_jax.protocol.estimate import choice
from safenet_jax.protocol.layers import structure
from safenet_jax.protocol.service import client as clients
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport import tls

USAGE = '--host=NAME --images=FILE [options]'
DESCRIPTION = 'Prints the class of every image, which the server does not see, and what it cost.'


@dataclasses.dataclass(frozen=True)
class Asking:
  """What is asked of which server; the help of every field says what it is."""

  host: str = options.option(
    'name or address of the server, as in its certificate', metavar='NAME', required=True
  )
  port: int = options.option('port of the server (7341)', 7341, metavar='N', low=1, high=65535)
  images: str = options.option(
    '.npy file of uint8 [N, H, W, C], PNG, JPEG, or a folder',
    path=True,
    required=True,
  )
  count: int | None = options.option('only the first N images', kind=int, metavar='N', low=1)
  ca: str | None = options.option(
    "PEM file of authorities to trust; the system's if not given", path=True
  )
  certificate: str | None = options.option(
    'PEM file of this client, where a server asks for it', path=True
  )
  key: str | None = options.option('PEM file of the private key of --certificate', path=True)
  insecure_clear: bool = options.option('no encryption, for measurements only', False)
  output: str = options.option(
    'logits (the default), class, or checked_class (or -1)',
    'logits',
    metavar='NAME',
    choices=structure.OUTPUTS,
  )
  batch: int = options.option(
    'images at once, which share round trips (16)', 16, metavar='N', low=1, high=1 << 20
  )
  max_memory_gib: float = options.option(
    'the most memory of this process, in GiB (4)', 4.0, metavar='N', low=0, high=1 << 20
  )
  max_bytes_gib: float = options.option(
    'the most bytes of messages for an image, in GiB (4)', 4.0, metavar='N', low=0, high=1 << 20
  )
  reconnects: int = options.option(
    'new connections, where one is lost offline (3)',
    3,
    metavar='N',
    low=0,
    high=1 << 20,
  )
  link: str | None = options.option(
    'lan, wan or RATE,RTT, to choose a mode for; else measured', metavar='LINK'
  )
  prepared: str | None = options.option(
    'directory where prepared inferences are kept', metavar='DIR', path=True
  )
  out: str | None = options.option('JSON file for all bytes and seconds', path=True)


def add_options(parser: argparse.ArgumentParser) -> None:
  """The options of the command."""
  options.add(parser, Asking)


def run(arguments: argparse.Namespace) -> None:
  """Asks for every image."""
  ask(options.build(Asking, vars(arguments)))


def ask(asking: Asking) -> None:
  """Prints a class for every image, and to standard error where bytes and seconds went.

  Raises:
    ValueError: files that are not what they should be, or images that the model does not take.
    ProtocolError: the server cannot be reached, is not trusted, or broke the protocol.
  """
  given, path, ledger = _given(asking), output_file(asking), ledgers.Ledger()
  choose = choice.over(asking.link)
  with clients.Client(
    asking.host,
    asking.port,
    context=context(asking),
    directory=asking.prepared,
    ledger=ledger,
    output=asking.output,
    choose=choose,
    max_memory=int(asking.max_memory_gib * (1 << 30)),
    max_bytes=int(asking.max_bytes_gib * (1 << 30)),
    reconnects=asking.reconnects,
  ) as client:
    shape = client.description.model.input_shape
    images = given if isinstance(given, np.ndarray) else _decoded(given, shape)
    client.infer(images[:0])  # refuses images of a wrong shape before anything is prepared
    if asking.prepared is not None:
      directories.check('prepared', asking.prepared)
    distrusted = 0
    for label in _classes(client, images, asking):
      print(label)
      distrusted += label == OUT_OF_RANGE
    mode = client.description.mode
  record = ledger.record()
  if path:
    about = {'mode': 'client', 'images': len(images), 'output': asking.output, 'served': mode}
    ledgers.save(record | about | {'memory': process_memory.memory()._asdict()}, path)
  sys.stdout.flush()
  print(f'{len(images)} images, mode {mode}; seconds are those of this party', file=sys.stderr)
  for line in tables.lines(*_summary(record)):
    print(line, file=sys.stderr)
  if distrusted:
    print(
      f'{distrusted} of them with logits out of range, and class {OUT_OF_RANGE}: '
      'values left the formats of the network, so that any class would be arbitrary',
      file=sys.stderr,
    )


def _classes(client: clients.Client, images: np.ndarray, asking: Asking) -> Iterator[int]:
  """The class of every image; bars show bytes, whose number is known, as one image may be long."""
  # Preparations are made batch by batch: neither party has room for those of all images.
  size = min(asking.batch, max(client.batch, client.prepared))
  to_prepare = max(0, len(images) - client.prepared)
  needs = client.needs
  phases = {
    'prepare': ('offline', needs.offline * to_prepare),
    'infer': ('online', needs.online * len(images)),
  }
  with progress.Traffic() as shown, shown.watching(client.ledger, **phases):
    for first in range(0, len(images), size):
      batch = images[first : first + size]
      missing = max(0, len(batch) - client.prepared)
      if missing:
        client.prepare(missing)
      found = client.infer(batch)
      logits = asking.output == 'logits'
      yield from client.description.model.classes(found) if logits else found


def context(asking: Asking) -> ssl.SSLContext | None:
  """The client's TLS context; None without encryption.

  Raises:
    ValueError: a file is not what it should be, or is given although nothing is encrypted.
  """
  if not asking.insecure_clear:
    return tls.client_context(asking.ca, asking.certificate, asking.key)
  if any((asking.ca, asking.certificate, asking.key)):
    raise ValueError('--insecure_clear and PEM files, want one of them')
  return None


def _given(asking: Asking) -> np.ndarray | list[pathlib.Path]:
  """The images of an .npy file; else the PNG and JPEG files, which are read for a model's size."""
  path = pathlib.Path(asking.images)
  if path.is_dir():
    return image_folders.files(path)[: asking.count]
  if not image_folders.is_image(path):
    return read_images(asking)
  path.stat()  # a file that is missing is an error before a server is asked for anything
  return [path]


def _decoded(paths: list[pathlib.Path], shape: tuple[int, ...]) -> np.ndarray:
  """Images uint8 [N, H, W, C], scaled until they cover what a model takes, and cut around it.

  Raises:
    ValueError: a file that is no image, or a model of other images than grey ones and those of
      three colours.
  """
  height, width, channels = shape
  if channels not in (1, 3):
    raise ValueError(f'a model of images with {channels} channels, want an .npy file of them')
  return image_folders.decode(paths, size=(height, width), channels=channels)


def read_images(asking: Asking) -> np.ndarray:
  """The images, uint8 [N, H, W, C]; ValueError where a file is no .npy file of them."""
  found = read_array(asking.images)
  if found.dtype != np.uint8 or found.ndim != 4 or not len(found):
    raise ValueError(f'{asking.images} holds {found.dtype} {found.shape}, want uint8 [N, H, W, C]')
  return found[: asking.count]


def read_array(path: str) -> np.ndarray:
  """The array in an .npy file; ValueError where there is none."""
  try:
    with open(path, 'rb') as file:
      start = file.read(len(npy.MAGIC_PREFIX))
      file.seek(0)
      # `np.load` would take any other file for a pickle or an archive.
      if start == npy.MAGIC_PREFIX:
        return npy.read_array(file, allow_pickle=False)
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror or error}') from None
  except Exception as error:  # numpy parses the header, and does not say what it may raise
    raise ValueError(f'{path} is a damaged .npy file, or has no numbers: {error}') from None
  kind = 'is an archive' if start.startswith(b'PK') else 'is no .npy file'
  raise ValueError(f'{path} {kind}, want one array as numpy.save writes it')


def output_file(asking: Asking) -> pathlib.Path | None:
  """Where the ledger is written. A bad path is a ValueError now, not after minutes of work."""
  if asking.out is None:
    return None
  return directories.check_file('out', asking.out)


def _summary(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
  """Header and rows of the phases."""
  header = ['phase', 'MB up', 'MB down', 'messages', 'rounds', 'wall s', 'CPU s']
  return header, [
    [
      name,
      *(f'{sums["sent"].get(party, 0) / 1e6:.2f}' for party in ('client', 'server')),
      f'{sums["messages"]:,.0f}',
      f'{sums["rounds"]}',
      f'{sums["wall_seconds"]:.2f}',
      f'{sums["cpu_seconds"]:.2f}',
    ]
    for name, sums in record['phases'].items()
  ]
