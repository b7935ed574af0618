"""Published data sets: where they are, and how to download them safely.

Nothing that is downloaded is used before its checksum is verified, and nothing
is written outside the chosen directory.
"""

from collections.abc import Iterator
import gzip
import hashlib
import http.client
import os
import pathlib
import tarfile
import tempfile
from typing import NamedTuple
import urllib.request
import zlib

from rich import console as rich_console
from rich import progress as rich_progress

from safenet_jax import atomic_files

# Seconds without a byte after which a download counts as broken.
_TIMEOUT = 60
_CHUNK = 1 << 20


class Source(NamedTuple):
  """A published file: its address, size in bytes, checksum and contents.

  `files` has the size in bytes of every file that it leaves in the data directory, by
  path. A .tar.gz holds files of these names. Any other source is the one file itself.
  """

  url: str
  size: int
  sha256: str
  files: dict[str, int]


_TORONTO = 'https://www.cs.toronto.edu/~kriz'
_ZALANDO = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com'
# The publishers give MD5 sums only; SHA-256 sums of the files that have them:
# bef4ecab320f06d8554ea6380940ec79 and bb300cfdad3c16e7a12a480ee83cd310 for
# Fashion-MNIST, c32a1d4ab5d03f1284b67883e8d87530 for CIFAR-10,
# 03b5dce01913d631647c71ecec9e9cb8 for CIFAR-100.
SOURCES = {
  'fashion_mnist': (
    Source(
      f'{_ZALANDO}/t10k-images-idx3-ubyte.gz',
      4_422_102,
      '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073',
      {'fashion_mnist/t10k-images-idx3-ubyte.gz': 4_422_102},
    ),
    Source(
      f'{_ZALANDO}/t10k-labels-idx1-ubyte.gz',
      5_148,
      '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5',
      {'fashion_mnist/t10k-labels-idx1-ubyte.gz': 5_148},
    ),
  ),
  'cifar10': (
    Source(
      f'{_TORONTO}/cifar-10-binary.tar.gz',
      170_052_171,
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
      {
        f'cifar-10-batches-bin/{part}.bin': 30_730_000
        for part in (*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch')
      },
    ),
  ),
  'cifar100': (
    Source(
      f'{_TORONTO}/cifar-100-binary.tar.gz',
      168_513_733,
      '58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
      {'cifar-100-binary/train.bin': 153_700_000, 'cifar-100-binary/test.bin': 30_740_000},
    ),
  ),
}


def download(name: str, directory: str | os.PathLike) -> None:
  """Downloads a published data set into `directory` and unpacks it there.

  Checksums and sizes are verified before any file takes its place. Each is put there
  by one atomic rename, and a failure leaves no part of a file behind. Shows a progress bar
  on a terminal.

  Raises:
    ValueError: an unknown name, a wrong checksum or a wrong archive.
    ConnectionError: the server does not answer, or answers something else.
  """
  if name not in SOURCES:
    raise ValueError(f'no data set {name!r} to download, want one of {", ".join(SOURCES)}')
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  # Beside the destination, because a rename is atomic within a file system only.
  with tempfile.TemporaryDirectory(prefix='.download-', dir=directory) as scratch_name:
    scratch = pathlib.Path(scratch_name)
    for source in SOURCES[name]:
      _fetch(source, scratch)
    for file in (file for source in SOURCES[name] for file in source.files):
      (directory / file).parent.mkdir(exist_ok=True)
      atomic_files.replace(scratch / file, directory / file)


def _fetch(source: Source, scratch: pathlib.Path) -> None:
  """Leaves the verified files of a source under `scratch`."""
  is_archive = source.url.endswith('.tar.gz')
  path = scratch / ('archive.tar.gz' if is_archive else next(iter(source.files)))
  path.parent.mkdir(exist_ok=True)
  checksum = hashlib.sha256()
  with open(path, 'wb') as file:
    for chunk in _chunks(source):
      checksum.update(chunk)
      file.write(chunk)
  if checksum.hexdigest() != source.sha256:
    raise ValueError(
      f'{source.url}: {path.stat().st_size} bytes of SHA-256 '
      f'{checksum.hexdigest()}, want {source.size} of {source.sha256}'
    )
  if is_archive:
    _extract(path, source, scratch)


def _chunks(source: Source) -> Iterator[bytes]:
  """The bytes of a source and at most one more; shows a progress bar on a terminal."""
  console = rich_console.Console(stderr=True)
  columns = (
    rich_progress.TextColumn('{task.description}'),
    rich_progress.BarColumn(),
    rich_progress.DownloadColumn(),
    rich_progress.TransferSpeedColumn(),
    rich_progress.TimeRemainingColumn(),
  )
  # One byte more than wanted is enough to notice a file that is too long.
  left = source.size + 1
  try:
    with (
      urllib.request.urlopen(source.url, timeout=_TIMEOUT) as response,
      rich_progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
      task = bar.add_task(source.url.rsplit('/', 1)[1], total=source.size)
      while chunk := response.read(min(_CHUNK, left)):
        yield chunk
        left -= len(chunk)
        bar.advance(task, len(chunk))
  except (OSError, http.client.HTTPException) as error:
    raise ConnectionError(f'{source.url}: {error}') from error


def _extract(archive: pathlib.Path, source: Source, scratch: pathlib.Path) -> None:
  """Unpacks the files of a source, and only these, from its .tar.gz."""
  missing = set(source.files)
  try:
    with tarfile.open(archive, 'r:gz') as tar:
      for member in tar:
        if member.name not in missing:
          continue
        if not member.isreg() or member.size != source.files[member.name]:
          raise ValueError(
            f'{source.url}: {member.name} has {member.size} bytes, want a regular '
            f'file of {source.files[member.name]}'
          )
        tar.extract(member, scratch, filter='data')
        missing.remove(member.name)
  except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise ValueError(f'{source.url}: not a whole .tar.gz ({error})') from None
  if missing:
    raise ValueError(f'{source.url}: holds no {", ".join(sorted(missing))}')
