"""Prints how much pip downloaded, from its log: python experiments/lib/downloads.py LOG."""

import re
import sys

UNITS = {'bytes': 1, 'kB': 1e3, 'MB': 1e6, 'GB': 1e9}
LINE = re.compile(r'^\s*(Downloading|Using cached) \S+ \(([\d.]+) (bytes|kB|MB|GB)\)', re.MULTILINE)


def main(path: str) -> None:
  sums = {'Downloading': 0.0, 'Using cached': 0.0}
  with open(path) as log:
    for how, number, unit in LINE.findall(log.read()):
      sums[how] += float(number) * UNITS[unit]
  print(
    f'{sums["Downloading"] / 1e6:.0f} MB downloaded and '
    f'{sums["Using cached"] / 1e6:.0f} MB from the cache of pip'
  )


if __name__ == '__main__':
  main(sys.argv[1])
