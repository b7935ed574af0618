"""A TCP proxy between a client and a server that counts what really goes each way."""

import contextlib
import socket
import struct
import threading

_RECORD = struct.Struct('!BHH')  # type, version, length
_APPLICATION_DATA = 23
# Of TLS 1.3 with AES-GCM or ChaCha20: header, type of the content, tag.
RECORD_OVERHEAD = 5 + 1 + 16


class Count:
  """Bytes of one direction; and the records that they are, if they are TLS.

  records: encrypted ones; contents: bytes in them; handshake: bytes of all others.
  """

  def __init__(self):
    self.bytes = self.records = self.contents = self.handshake = 0
    self._rest = b''

  def __call__(self, data):
    self.bytes += len(data)
    self._rest += data
    while len(self._rest) >= _RECORD.size:
      kind, _, length = _RECORD.unpack_from(self._rest)
      if kind not in range(20, 24):  # in the clear
        self._rest = b''
      elif len(self._rest) < _RECORD.size + length:
        return
      else:
        self._rest = self._rest[_RECORD.size + length :]
        if kind == _APPLICATION_DATA:
          self.records += 1
          self.contents += _RECORD.size + length - RECORD_OVERHEAD
        else:
          self.handshake += _RECORD.size + length


class Proxy:
  """Passes the bytes of one connection on; `up` and `down` count them beforehand."""

  def __init__(self, address):
    self.up, self.down = Count(), Count()
    self._target = address
    self._listening = socket.create_server(('127.0.0.1', 0))
    self.address = self._listening.getsockname()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def _run(self):
    client, _ = self._listening.accept()
    with client, socket.create_connection(self._target) as server:
      ways = (client, server, self.up), (server, client, self.down)
      threads = [threading.Thread(target=self._pass, args=way, daemon=True) for way in ways]
      for thread in threads:
        thread.start()
      for thread in threads:
        thread.join()

  def _pass(self, source, sink, count):
    with contextlib.suppress(OSError):
      while data := source.recv(1 << 16):
        count(data)
        sink.sendall(data)
    with contextlib.suppress(OSError):
      sink.shutdown(socket.SHUT_WR)

  def close(self):
    self._listening.close()
    self._thread.join(10)
    assert not self._thread.is_alive()
