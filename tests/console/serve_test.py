"""What `safenet serve` keeps of its sessions on the disk."""

from safenet_jax.console import serve


def test_the_records_of_sessions_do_not_fill_the_disk(tmp_path, monkeypatch):
  monkeypatch.setattr(serve, '_MAX_RECORDS', 3)
  (tmp_path / 'notes.json').write_text('of the operator')
  kept = []
  for _ in range(2):  # and again by a server that is started again
    records = serve._Records(str(tmp_path))
    for _ in range(3):
      records.save({'phases': {}})
      kept.append({path.name for path in tmp_path.iterdir()} - {'notes.json'})
  assert [len(names) for names in kept] == [1, 2, 3, 3, 3, 3]
  assert not kept[2] & kept[5]  # the oldest ones went
  assert (tmp_path / 'notes.json').exists()
