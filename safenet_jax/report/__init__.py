"""Tables and figures from what a workdir holds.

- `page`: the whole report, section by section
- `document`: a report as a list of blocks; writes them as Markdown, csv and HTML
- `runs`: what workdirs hold
- `one_run`: the section of one run
- `sweeps`: runs that differ only in their seed, taken together
- `tables`: tables of a run, and of a network
- `figures`: figures of a run and of a sweep, and how a figure is saved
- `costs`: seconds and bytes of one private inference that was measured
- `estimates`: tables of what an inference will cost
- `measurements`: what `experiments.benchmark` measured
- `published`: numbers that others published
- `paper_tables`: the paper's tables beside our numbers
- `paper_figures`: the paper's figures beside our numbers
- `paper_drawings`: how those figures are drawn
"""
