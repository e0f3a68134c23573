"""Run a study of any kind: cells, blocks, executors, stored rows, resuming.

Nothing here knows what a row says: the studies of ``moe_prompts.study`` bring the function that makes rows.

grid       Cell, Block, Study: what is to be run, in an order that no worker decides
executors  InProcess, Joblib, Dask: where blocks run
runner     run_study: blocks that are missing are run, and all of them become one table
store      the folder of a run: meta.json, blocks, results.parquet
shards     one file for each block, and how many become one
lock       one command at a time in a folder
files      writes that happen whole or not at all
progress   how long a run will still take
orphans    workers end with the process that started them
code       which code made the rows
"""
