"""What the pipeline does to one cell: command = rule = module. Each reads a cell's folder and writes files into it.

Editing a command, or a module it uses, re-runs its rule and what follows from it (see `workflow/rules/common.smk`).
"""
