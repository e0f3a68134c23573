"""Compare methods on tasks under the published protocol: tune, train, test.

plan         which methods on which tasks, and how they are run
report       the table, beside the published numbers
settings     chosen settings, kept for the next run
tokens       numbers of tokens: one for all tasks, or one for each
paper_table  the table as the papers lay it out
tracking     rows for a tracker that the user has installed
"""
