"""Writes the API page from the docstrings: python -W error docs/api.py DIRECTORY.

`make docs` does so; with -W error a name that cannot be documented ends it.
"""

import pathlib
import pkgutil
import sys

import pdoc

import safenet_jax


def main() -> None:
  (directory,) = sys.argv[1:]
  for name in safenet_jax.__all__:
    # The package hands its names out when they are asked for; pdoc looks at what is there.
    setattr(safenet_jax, name, getattr(safenet_jax, name))
  pdoc.render.configure(
    docformat='google',
    show_source=False,
    footer_text='safenet_jax',
    template_directory=pathlib.Path(__file__).parent / 'theme',
  )
  modules = [m.name for m in pkgutil.iter_modules(safenet_jax.__path__, 'safenet_jax.')]
  pdoc.pdoc('safenet_jax', *modules, output_directory=pathlib.Path(directory))
  print(f'docs: {directory}/safenet_jax.html')


if __name__ == '__main__':
  main()
