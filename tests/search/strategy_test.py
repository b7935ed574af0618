"""How strategies are timed."""

from safenet_jax.search import strategy


def test_a_call_that_something_else_slowed_down_does_not_count(monkeypatch):
  # Begin and end of every timed call: 5 s, 2 s and 9 s.
  clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
  calls = []
  monkeypatch.setattr(strategy.time, 'perf_counter', lambda: next(clock))
  monkeypatch.setattr(strategy, 'program', lambda *_: (lambda *a: calls.append(a), (1, 2)))
  assert strategy.seconds('map', None, None, 3) == 2.0
  assert calls == [(1, 2)] * (1 + strategy.TURNS)  # the first one compiles
