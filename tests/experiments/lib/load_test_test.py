"""Requests of several clients at once: what is measured, and what a failure does."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import subprocess
import sys

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from experiments.benchmarks import inference, sustained
from experiments.lib import load_test
from safenet_jax.console import ask, process_memory
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import tls
from safenet_jax.transport.frames import ProtocolError
from tests.support import models

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 2), dtype=np.uint8)


@pytest.fixture(autouse=True)
def saved_flags():
  flags.FLAGS(['test'], known_only=True)
  with flagsaver.flagsaver():
    yield


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('tls'))


def test_two_clients_share_the_requests(files):
  model, ended, done = models.calibrated(), [], []
  with servers.Server(model, context=tls.server_context(*files), on_record=ended.append) as server:
    found = load_test.run(
      server.address,
      functools.partial(tls.client_context, files.certificate),
      IMAGES,
      requests=9,
      count=2,
      done=done.append,
    )
    assert server.prepared == 0
  assert done == list(range(1, 10)) and len(ended) == 2
  assert sorted(request.image for request in found.requests) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  assert all(request.offline > request.online > 0 for request in found.requests)
  # Two at once: their seconds are more than those that went by, but for idle moments.
  assert max(r.offline + r.online for r in found.requests) <= found.seconds
  # Logits are some hundredths from the integer model's, and classes are further apart.
  logits = np.sort(model.logits(IMAGES))
  sure = (logits[:, -1] - logits[:, -2]).min() > 0.1
  assert found.agreement(model.run(IMAGES).argmax(-1)) == 9 or not sure
  assert len(found.peaks) == 2 and min(found.peaks) > 1 << 24


def test_a_client_that_fails_ends_the_load(files):
  with servers.Server(models.calibrated(), context=tls.server_context(*files)) as server:
    with pytest.raises(ProtocolError, match='not trusted'):
      load_test.run(server.address, tls.client_context, IMAGES, requests=4, count=2)
    context = functools.partial(tls.client_context, files.certificate)
    with pytest.raises(ProtocolError, match='images uint8'):
      load_test.run(server.address, context, IMAGES[:, :4], requests=4, count=1)


def requests(*labels):
  seconds = np.linspace(1.0, 2.0, len(labels))
  return [
    load_test.Request(i % 2, label, s, s / 10) for i, (label, s) in enumerate(zip(labels, seconds))
  ]


def test_percentiles_are_of_single_requests():
  found = load_test.Load(requests(*[0, 1] * 50, 0), 50.5, [1_000_000, 3_000_000]).quantities()
  assert found['requests_per_s'] == (2.0, '1/s')
  assert found['online_p50_s'][0] == pytest.approx(0.15)
  assert found['latency_p95_s'][0] == pytest.approx(1.95 * 1.1)
  assert found['latency_p99_s'][0] == pytest.approx(1.99 * 1.1)
  assert found['client_peak_mb'] == (3.0, 'MB')


def test_answers_are_compared_with_classes_or_with_each_other():
  found = load_test.Load(requests(7, 8, 7, 9), 1.0, [0])
  assert found.agreement([7, 8]) == 3 and found.agreement([8, 8]) == 1
  assert found.steady() == 3


def test_growth_is_what_the_later_half_has_more():
  assert sustained.growth([100, 300, 200, 300, 250, 280]) == 0
  assert sustained.growth([100, 300, 310, 350, 360, 340]) == 50
  assert sustained.growth([7]) == 7


def test_rows_of_a_sustained_load(monkeypatch):
  flags.FLAGS(['test', '--requests=4', '--clients=2'], known_only=True)

  class Server:
    processes, files = ['self'], tls.CertificateFiles('c', 'k')
    address, images, classes = ('h', 1), IMAGES, [7, 8]

  def run(address, context, images, *, requests, count, done):
    assert (address, requests, count) == (('h', 1), 4, 2)
    for number in range(requests):
      done(number)
    return load_test.Load(answers, 2.0, [1_000_000])

  answers = requests(7, 8, 7, 9)
  monkeypatch.setattr(inference, 'serving', lambda *args, processes: contextlib.nullcontext(Server))
  monkeypatch.setattr(load_test, 'run', run)
  prefix = 'cnn7/channel_80/sustained_2_'
  found = {row.name.removeprefix(prefix): row for row in sustained.rows()}
  rows = {name.removeprefix('2_'): row for name, row in found.items() if name.startswith('2_')}
  assert len(found) == 2 * len(rows)
  assert rows['requests_per_s'].value == 2.0 and rows['agree'].value == 0.75
  assert rows['server_peak_mb'].value >= process_memory.memory().resident / 1e6 > 50
  assert rows['server_growth_mb'].value < 100
  assert rows['cpu_s'].value >= 0 and rows['session_mb'].value < 100
  assert '4 requests by 2 clients, 2 server' in rows['latency_p99_s'].setting


WITHOUT_WORK = """
import sys
from experiments import benchmark
from experiments.benchmarks import Row, inference, sustained
from experiments.lib import launcher
for suite in (inference, sustained):
  name = suite.__name__.rpartition('.')[-1]
  suite.rows = lambda name=name: [Row(name, 'x', 'y', 1.0, 's')]
launcher.run(benchmark.main, needs_config=False)
"""


def test_requests_add_their_suite_to_a_benchmark(tmp_path):
  # In a process of its own: flags of two commands do not go together.
  out = tmp_path / 'rows.json'
  arguments = ['--suite=inference', '--requests=3', f'--out={out}']
  command = [sys.executable, '-c', WITHOUT_WORK, *arguments]
  subprocess.run(command, cwd=pathlib.Path(__file__).parents[3], check=True)
  found = [row['suite'] for row in json.loads(out.read_text())['rows']]
  assert found == ['inference', 'sustained']


def test_a_load_is_summed_up_for_people_and_in_a_file(files, tmp_path, capsys):
  images, labels, out = (tmp_path / name for name in ('images.npy', 'labels.npy', 'load.json'))
  np.save(images, IMAGES)
  np.save(labels, models.calibrated().run(IMAGES).argmax(-1))
  with servers.Server(models.calibrated(), context=tls.server_context(*files)) as server:
    host, port = server.address
    ca = str(files.certificate)
    asking = ask.Asking(host=host, port=port, ca=ca, images=str(images), out=str(out))
    load_test.show(asking, requests=2, count=1, labels=str(labels))
    printed = capsys.readouterr().out
    assert 'latency_p95_s: ' in printed and '2 of 2 answers to 1 clients are the labels' in printed
    record = json.loads(out.read_text())
    assert record['mode'] == 'load' and record['agree'] == 2 and record['requests_per_s'] > 0
    for wrong in (np.zeros(3), np.zeros(2, int), np.zeros(4, int), np.int64(0)):
      np.save(labels, wrong)
      with pytest.raises(ValueError, match='want an integer for each of 3 images'):
        load_test.show(asking, requests=2, count=1, labels=str(labels))
    kept = dataclasses.replace(asking, prepared=str(tmp_path))
    with pytest.raises(ValueError, match='--prepared and --requests, want one'):
      load_test.show(kept, requests=2, count=1, labels=None)
    np.save(labels, np.zeros(4, int))
    first = dataclasses.replace(asking, count=2, output='class')
    load_test.show(first, requests=2, count=1, labels=str(labels))  # of the first images


def test_a_server_that_is_killed_under_its_load_is_one_line(files, tmp_path):
  bundles.save(tmp_path / 'model', models.calibrated())
  np.save(tmp_path / 'images.npy', IMAGES)
  root = pathlib.Path(__file__).parents[3]
  certificate, key = files
  serving = subprocess.Popen(
    [sys.executable, '-m', 'safenet_jax', 'serve', f'--bundle={tmp_path / "model"}', '--port=0']
    + [f'--certificate={certificate}', f'--key={key}', '--workers=0'],
    cwd=root,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  with serving:
    port = serving.stdout.readline().rpartition(':')[2].strip()
    asking = subprocess.Popen(
      [sys.executable, '-m', 'experiments.ask', '--host=127.0.0.1', f'--port={port}']
      + [f'--ca={certificate}', f'--images={tmp_path / "images.npy"}', '--requests=1000000'],
      cwd=root,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    # Both clients are in the middle of their requests once both sessions have begun.
    begun = (line for line in serving.stderr if 'event=session_start' in line)
    next(begun), next(begun)
    serving.kill()
    printed, error = asking.communicate(timeout=120)
  assert asking.returncode == 2 and not printed
  assert error.startswith('error: ') and error.count('\n') == 1, error
