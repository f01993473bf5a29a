"""Interactive analysis: measured evidence, instruction conversations, an analyst that answers questions about a clip.

Import from the modules of this folder; nothing is loaded here.
"""
