"""Compare methods on tasks under the published protocol: tune, train, test.

plan       which methods on which tasks, and how they are run
report     the table, beside the published numbers
settings   chosen settings, kept for the next run
"""
