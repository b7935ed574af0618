"""The command line of `safenet`: help on one screen, and one line for whatever is wrong."""

import importlib
import json
import logging
import os
import socket

import numpy as np
import pytest

from safenet_jax.console import main, serve
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.protocol.service.sessions import MODES
from safenet_jax.transport import tls
from tests.support import models


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A bundle, images, and a certificate with its key."""
  path = tmp_path_factory.mktemp('console')
  bundles.save(path / 'model', models.calibrated())
  np.save(path / 'images.npy', np.zeros((1, 8, 8, 2), np.uint8))
  tls.insecure_test_certificate(path)
  (path / 'text').write_text('this is no such file\n')
  (path / 'empty').touch()
  np.savez(path / 'several.npz', a=np.zeros(1))
  np.save(path / 'objects.npy', np.array([None, {}]))
  whole = (path / 'images.npy').read_bytes()
  (path / 'cut.npy').write_bytes(whole[:150])
  (path / 'brackets.npy').write_bytes(whole.replace(b'(1, 8, 8, 2)', b'(((((((((((('))
  (path / 'vast.npy').write_bytes(whole.replace(b'(1, 8, 8, 2)', b'(' + b'9' * 26 + b',)', 1))
  return path


@pytest.fixture(autouse=True)
def own_logging(monkeypatch):
  """The log of a command that serves is not that of the tests after it."""
  monkeypatch.setattr(logging, 'basicConfig', lambda **_: None)
  yield
  logging.getLogger('safenet_jax').setLevel(logging.NOTSET)


@pytest.mark.parametrize('command', ['', *main.COMMANDS])
def test_help_fits_a_screen(command, capsys):
  assert main.main([*command.split(), '--help']) == 0
  text = capsys.readouterr().out
  lines = text.splitlines()
  assert 10 < len(lines) <= 24 and max(map(len, lines)) <= 80
  assert f'usage: safenet {command or "COMMAND"}' in text


def test_no_command_is_a_plea_for_help(capsys):
  assert main.main([]) == 0
  assert 'usage: safenet COMMAND' in capsys.readouterr().out


TLS = '--certificate=insecure_test_certificate.pem --key=insecure_test_key.pem'
ASK = 'ask --host=127.0.0.1'


@pytest.mark.parametrize(
  'line, message',
  [
    ('server', "'server' is no command, want one of serve, ask, inspect, certificate"),
    ('serve', 'arguments are required: --bundle; see safenet serve --help'),
    (f'serve --bundle=none {TLS}', 'no model bundle at none'),
    (f'serve --bundle=text {TLS}', 'text is no model to serve: it is not a model bundle'),
    (f'serve --bundle=. {TLS}', '. cannot be read: Is a directory'),
    (f'serve --bundle=~/none {TLS}', 'no model bundle at HOME/none'),
    ('serve --bundle=model', 'no way to encrypt, want one'),
    (f'serve --bundle=model {TLS} --insecure-clear', 'several ways to encrypt, want one'),
    ('serve --bundle=model --key=x', 'no --certificate, want --certificate and --key'),
    ('serve --bundle=model --insecure-clear --client-ca=x', '--insecure_clear and --client_ca'),
    ('serve --bundle= --insecure-clear', 'argument --bundle: empty, want a value'),
    ('serve --bundle=model --insecure-clear --host=', 'argument --host: empty, want a value'),
    ('serve --bundle=model --certificate=text --key=text', 'certificate text: no certificate in'),
    ('serve --bundle=model --certificate=none --key=none', 'none: No such file or directory'),
    ('serve --bundle=model --insecure-test-certificate=text', 'text: a file of this name is'),
    ('serve --bundle=model --insecure-test-certificate=x --host=a..b', "host 'a..b', want an addr"),
    (f'serve --bundle=model {TLS} --client-ca=empty', 'authorities empty: no certificate in it'),
    (f'serve --bundle=model {TLS} --ledgers=text', 'text: a file of this name is there, want a d'),
    (f'serve --bundle=model {TLS} --ledgers=/proc', '--ledgers: /proc cannot be written to: '),
    (f'serve --bundle=model {TLS} --port=70000', '--port: 70000, want at least 0 and at most'),
    (f'serve --bundle=model {TLS} --port=http', "--port: 'http', want an integer"),
    (f'serve --bundle=model {TLS} --memory-gib=nan', '--memory-gib: nan, want at least 0'),
    (f'serve --bundle=model {TLS} --sessions=0', '--sessions: 0, want at least 1'),
    (f'serve --bundle=model {TLS} --mode=other', "--mode: invalid choice: 'other'"),
    (f'serve --bundle=model {TLS} --outputs=all', "--outputs: 'all', want some of logits,class"),
    (f'serve --bundle=model {TLS} --bndle=x', 'unrecognized arguments: --bndle=x'),
    (
      f'serve --bundle=model {TLS} --workers=0 --host=192.0.2.1',
      '192.0.2.1:7341: Cannot assign requested address\n',
    ),
    (
      'serve --bundle=model --workers=0 --insecure-clear --host=none.invalid',
      'none.invalid:7341: ',
    ),
    ('ask --images=images.npy', 'arguments are required: --host'),
    (f'{ASK} --images=none', 'none cannot be read: No such file or directory'),
    (f'{ASK} --images=.', '. has no image, want files that end in .png, .jpg or .jpeg'),
    (f'{ASK} --images=text', 'text is no .npy file, want one array as numpy.save writes it'),
    (f'{ASK} --images=empty', 'empty is no .npy file, want one array as numpy.save writes it'),
    (f'{ASK} --images=several.npz', 'several.npz is an archive, want one array as numpy.save'),
    (f'{ASK} --images=objects.npy', 'objects.npy is a damaged .npy file, or has no numbers: '),
    (f'{ASK} --images=cut.npy', 'cut.npy is a damaged .npy file, or has no numbers: '),
    (f'{ASK} --images=brackets.npy', 'brackets.npy is a damaged .npy file, or has no numbers: '),
    (f'{ASK} --images=vast.npy', 'vast.npy is a damaged .npy file, or has no numbers: '),
    (
      f'{ASK} --images=images.npy --out=none/ledger',
      '--out=none/ledger: No such file or ',
    ),
    (f'{ASK} --images=images.npy --out=/proc/ledger', '--out=/proc/ledger: '),
    (f'{ASK} --images=images.npy --ca=text', 'authorities text: no certificate in it, want a PEM'),
    (f'{ASK} --images=images.npy --ca=', 'argument --ca: empty, want a value'),
    (
      f'{ASK} --images=images.npy --ca=text --insecure-clear',
      '--insecure_clear and PEM files',
    ),
    (f'{ASK} --images=images.npy --key=insecure_test_key.pem', 'a key without one'),
    (f'{ASK} --images=images.npy --port=0', '--port: 0, want at least 1 and at most 65535'),
    (f'{ASK} --images=images.npy --port=1', '127.0.0.1:1: '),
    ('ask --host=no.such.host.invalid --images=images.npy', 'no.such.host.invalid:7341: '),
    ('ask --host=a..b --images=images.npy', "host 'a..b', want the name or address of a server"),
    ('inspect', 'arguments are required: FILE'),
    ('inspect text', 'text is no model to serve: it is not a model bundle'),
    ('inspect model --costs=text', 'text has no unit costs'),
    ('inspect model --costs=none', 'no costs at none'),
    ('inspect model --link=moon', "a link 'moon', want lan, wan, or RATE,RTT"),
    ('inspect model --costs=.', '. cannot be read: Is a directory'),
    ('inspect model --costs=images.npy', 'want those of suite units: it is no text'),
    ('certificate', 'arguments are required: DIR'),
    ('certificate text', 'text: a file of this name is there, want a directory'),
    ('certificate text/x', 'text/x: Not a directory'),
    ('certificate x --host=bücher.de', "host 'bücher.de', want an address, or a name of ASCII"),
    ('certificate x --host=256.1.1.1', "host '256.1.1.1', want an address, or a name of ASCII"),
    ('certificate x --host=', "host '', want an address, or a name of ASCII"),
  ],
)
def test_what_a_user_can_mend_is_one_line_and_code_2(folder, monkeypatch, capsys, line, message):
  monkeypatch.chdir(folder)
  monkeypatch.setenv('HOME', 'HOME')
  assert main.main(line.split()) == 2
  printed = capsys.readouterr()
  assert message in printed.err and printed.err.startswith('error: ')
  assert printed.err.count('\n') == 1


def test_a_port_in_use_is_one_line(folder, capsys):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    flags = f'--bundle={folder / "model"}', '--insecure_clear', f'--port={port}', '--workers=0'
    assert main.main(['serve', *flags]) == 2
  error = capsys.readouterr().err
  assert f'cannot listen at 127.0.0.1:{port}: Address already in use' in error
  assert error.count('\n') == 1


def test_a_server_process_that_cannot_start_is_one_line(folder, monkeypatch, capsys):
  def ends(*arguments, **options):
    raise RuntimeError('a server process ended before it listened, its error is above')

  monkeypatch.setattr(serve.processes, 'ServerProcesses', ends)
  flags = f'--bundle={folder / "model"}', '--insecure_clear', '--processes=2'
  assert main.main(['serve', *flags]) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: cannot listen at 127.0.0.1:7341: a server process ended')
  assert error.count('\n') == 1


def test_a_missing_requirement_is_one_line(monkeypatch, capsys):
  def missing(name):
    raise ModuleNotFoundError("No module named 'seal'", name='seal')

  monkeypatch.setattr(main.importlib, 'import_module', missing)
  assert main.main(['serve', '--bundle=x']) == 2
  wanted = "error: seal is not installed, want: pip install 'safenet_jax[serve]'\n"
  assert capsys.readouterr().err == wanted


def test_a_bug_keeps_its_trace(monkeypatch):
  command = importlib.import_module('safenet_jax.console.certificate')
  monkeypatch.setattr(command.tls, 'insecure_test_certificate', lambda *_: 1 // 0)
  with pytest.raises(ZeroDivisionError):
    main.main(['certificate', 'x'])


def test_a_certificate_says_that_it_is_insecure_and_is_for_the_given_hosts(tmp_path, capsys):
  assert main.main(['certificate', str(tmp_path), '--host=localhost', '--host=10.0.0.1']) == 0
  text = capsys.readouterr().out
  assert text.startswith('certificate: INSECURE, for tests only')
  certificate = tmp_path / 'insecure_test_certificate.pem'
  assert f'--ca={certificate}\n' in text and f'--certificate={certificate} --key=' in text
  tls.server_context(certificate, tmp_path / 'insecure_test_key.pem')
  assert os.stat(tmp_path / 'insecure_test_key.pem').st_mode & 0o777 == 0o600


def test_inspect_says_what_a_bundle_is_and_what_an_inference_costs(folder, tmp_path, capsys):
  path = folder / 'model'
  assert main.main(['inspect', str(path)]) == 0
  text = capsys.readouterr().out
  rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
  assert rows['activation0'][2:] == ['8x8x6', '3', '3', '2']
  assert rows['activation1'][2:] == ['2x2x4', '4', '0', '-']
  assert 'conv1          3x3 convolution, stride 2   2x2x4\n' in text
  assert (
    'outputs  logits, class, checked_class of 3 classes' in text and 'shares of 56 bits' in text
  )
  costs = [
    line.split()
    for line in text.splitlines()
    if line.startswith(tuple(f'{mode} ' for mode in MODES))
  ]
  assert [row[:2] for row in costs] == [
    [mode, phase] for mode in MODES for phase in ('setup', 'offline', 'online')
  ]
  # Without costs of a machine, no seconds.
  assert all(len(row) == 5 for row in costs) and 'seconds' not in text
  assert main.main(['inspect', str(path), f'--costs={unit_costs(tmp_path)}']) == 0
  text = capsys.readouterr().out
  costs = [line.split() for line in text.splitlines() if line.startswith('delphi ')]
  for _, _, _, _, _, here, lan, wan in costs:
    assert float(here) <= float(lan) <= float(wan) and float(wan) > 0
  assert 'LAN, 1 Gbit/s, 1 ms' in text
  assert main.main(['inspect', str(path), '--link=1e9,0.5']) == 0
  *_, last = capsys.readouterr().out.splitlines()
  # Half a second a round trip: whoever makes the fewest is the cheapest.
  assert last == 'cheapest over link, 1 Gbit/s, 500 ms: delphi; online alone: delphi'


def unit_costs(folder):
  """A file of costs."""
  from safenet_jax.protocol.estimate import unit_costs as costs

  path = folder / 'costs.json'
  path.write_text(json.dumps({'unit_costs': costs.DEFAULT._asdict()}))
  return path


def test_inspect_says_which_modes_cannot_serve(tmp_path, capsys):
  bundles.save(tmp_path / 'model', models.long_words())
  assert main.main(['inspect', str(tmp_path / 'model')]) == 0
  text = capsys.readouterr().out
  assert 'ot: not served, sign tests of 24 bits' in text and 'maximum of 2x2' in text
