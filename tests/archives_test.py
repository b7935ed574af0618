"""What is downloaded is verified, unpacked safely, or leaves no trace."""

import functools
import gzip
import hashlib
import http.server
import io
import pathlib
import struct
import tarfile
import threading

import pytest

from safenet_jax import archives, image_files

EMBEDDED = pathlib.Path(__file__).resolve().parents[1] / 'third_party' / 'fashion_mnist'
FILES = {'layout/a.bin': b'first', 'layout/b.bin': b'second part'}


@pytest.fixture
def served(tmp_path, monkeypatch):
  """A folder, and the address at which a local server publishes it."""
  monkeypatch.setenv('no_proxy', '*')
  folder = tmp_path / 'served'
  folder.mkdir()

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *unused):
      pass

  server = http.server.ThreadingHTTPServer(
    ('127.0.0.1', 0), functools.partial(Handler, directory=folder)
  )
  thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
  thread.start()
  yield folder, f'http://127.0.0.1:{server.server_port}'
  server.shutdown()
  thread.join()
  server.server_close()


def tar(members):
  """A .tar.gz of (name or TarInfo, content) pairs."""
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w:gz') as archive:
    for member, content in members:
      info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return file.getvalue()


def link(name, target):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = tarfile.SYMTYPE, target
  return info


def publish(served, monkeypatch, content, name='archive.tar.gz', files=FILES, **changes):
  """Serves content as the data set 'toy'."""
  folder, address = served
  (folder / name).write_bytes(content)
  source = archives.Source(
    f'{address}/{name}',
    len(content),
    hashlib.sha256(content).hexdigest(),
    {path: len(data) for path, data in files.items()},
  )
  source = source._replace(**changes)
  monkeypatch.setitem(archives.SOURCES, 'toy', (source,))
  return source


def test_the_named_files_and_only_they_are_unpacked(served, monkeypatch, tmp_path):
  publish(served, monkeypatch, tar([('layout/readme.html', b'x'), *FILES.items()]))
  directory = tmp_path / 'new' / 'data'
  archives.download('toy', directory)
  assert {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  } == FILES
  assert [path.name for path in directory.iterdir()] == ['layout']


def test_a_repeated_download_replaces_damaged_files(served, monkeypatch, tmp_path):
  publish(served, monkeypatch, tar(FILES.items()))
  (tmp_path / 'data' / 'layout').mkdir(parents=True)
  (tmp_path / 'data' / 'layout' / 'a.bin').write_bytes(b'fir')
  archives.download('toy', tmp_path / 'data')
  assert (tmp_path / 'data' / 'layout' / 'a.bin').read_bytes() == b'first'


@pytest.mark.parametrize(
  'changes', [{'sha256': '0' * 64}, {'size': 20}, {'size': 10**6, 'sha256': '0' * 64}]
)
def test_a_wrong_checksum_or_size_leaves_nothing_behind(served, monkeypatch, tmp_path, changes):
  source = publish(served, monkeypatch, tar(FILES.items()), **changes)
  with pytest.raises(ValueError, match=f'{source.url}: .* bytes of SHA-256 .*, want'):
    archives.download('toy', tmp_path / 'data')
  assert list((tmp_path / 'data').iterdir()) == []


def test_no_more_than_one_byte_too_many_is_taken(served, monkeypatch, tmp_path):
  publish(served, monkeypatch, bytes(10**6), size=1000)
  with pytest.raises(ValueError, match=' 1001 bytes'):
    archives.download('toy', tmp_path / 'data')


def test_one_wrong_file_of_several_keeps_all_out(served, monkeypatch, tmp_path):
  one = publish(served, monkeypatch, b'one', 'one.gz', {'toy/one.gz': b'one'})
  two = publish(served, monkeypatch, b'two', 'two.gz', {'toy/two.gz': b'two'}, sha256='0' * 64)
  monkeypatch.setitem(archives.SOURCES, 'toy', (one, two))
  with pytest.raises(ValueError, match=r'two\.gz'):
    archives.download('toy', tmp_path / 'data')
  assert list((tmp_path / 'data').iterdir()) == []


@pytest.mark.parametrize(
  'content, message',
  [
    (tar([('layout/a.bin', b'first')]), 'holds no layout/b.bin'),
    (tar([('layout/a.bin', b'firs'), ('layout/b.bin', b'second part')]), 'has 4 bytes'),
    (tar([(link('layout/a.bin', '/etc/passwd'), b'first')]), 'want a regular file'),
    (tar([(link('layout', '..'), b''), *FILES.items()]), None),
    (tar([('../a.bin', b'first'), ('/layout/b.bin', b'second part')]), 'holds no'),
    (tar(FILES.items())[:90], 'not a whole .tar.gz'),
    (gzip.compress(b'no tar'), 'not a whole .tar.gz'),
    (b'no gzip', 'not a whole .tar.gz'),
  ],
  ids=[
    # Bytes hold the time, which differs between the processes that collect.
    'one missing',
    'one short',
    'link',
    'folder link',
    'outside',
    'cut off',
    'no tar',
    'no gzip',
  ],
)
def test_hostile_archives_stay_inside_even_when_the_checksum_fits(
  served, monkeypatch, tmp_path, content, message
):
  publish(served, monkeypatch, content)
  if message:
    with pytest.raises(ValueError, match=message):
      archives.download('toy', tmp_path / 'data')
    assert list((tmp_path / 'data').iterdir()) == []
  else:
    archives.download('toy', tmp_path / 'data')
    assert not (tmp_path / 'data' / 'layout').is_symlink()
  assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'served']


def test_an_answer_other_than_the_file_is_a_connection_error(served, monkeypatch, tmp_path):
  source = publish(served, monkeypatch, b'', url=f'{served[1]}/missing.tar.gz')
  with pytest.raises(ConnectionError, match=f'{source.url}: .*404'):
    archives.download('toy', tmp_path / 'data')
  publish(served, monkeypatch, b'', url='http://127.0.0.1:9/closed.tar.gz')
  with pytest.raises(ConnectionError, match='closed'):
    archives.download('toy', tmp_path / 'data')
  assert list((tmp_path / 'data').iterdir()) == []


def test_unknown_names_are_refused(tmp_path):
  with pytest.raises(ValueError, match="'mnist'.*fashion_mnist, cifar10, cifar100"):
    archives.download('mnist', tmp_path)


def test_cifar_sources_hold_the_files_that_the_readers_want():
  for name, layout in image_files.CIFAR.items():
    folder, suffix = next(iter(layout.folders.items()))
    record = layout.label_bytes + 3072
    wanted = {
      f'{folder}/{file}{suffix}': 50_000 // len(layout.train) * record for file in layout.train
    }
    wanted[f'{folder}/{layout.test}{suffix}'] = 10_000 * record
    (source,) = archives.SOURCES[name]
    assert source.files == wanted


def published_fashion_mnist():
  """The files as Zalando published them: another header, the same contents."""
  # 31 August 2017, 10:50:27 UTC: with it the MD5 sums are the published ones.
  stamp = struct.pack('<I', 1504176627)
  for name in image_files.IDX_FILES:
    embedded = (EMBEDDED / name).read_bytes()
    yield (
      name,
      (
        b'\x1f\x8b\x08\x08'
        + stamp
        + b'\x00\x03'
        + name.removesuffix('.gz').encode()
        + b'\0'
        + embedded[10:]
      ),
    )


def test_fashion_mnist_sources_are_the_embedded_images():
  md5_sums = 'bef4ecab320f06d8554ea6380940ec79', 'bb300cfdad3c16e7a12a480ee83cd310'
  sources = archives.SOURCES['fashion_mnist']
  for (name, content), source, md5 in zip(published_fashion_mnist(), sources, md5_sums):
    assert hashlib.md5(content).hexdigest() == md5
    assert source.sha256 == hashlib.sha256(content).hexdigest()
    assert source.size == len(content)
    assert source.files == {f'fashion_mnist/{name}': len(content)}
    assert source.url.endswith(name)
