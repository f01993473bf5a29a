"""`python -m modeling_avlmm detect`: files, folders and links in; a table, JSON, CSV and a report out.

`command` has the options; `inputs` walks folders, `journal` goes on where a run stopped, `output` writes.
"""
