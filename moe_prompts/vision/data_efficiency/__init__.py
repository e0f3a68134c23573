"""Accuracy and excess risk against the number of training images, on planted truths and on tasks.

planted_study   students of planted prompts
task_study      methods on tasks
teacher         a ViT with planted prompts as a task
curves          tables over n, floors, crossings
rates           learning rates chosen once
report          the tables in words, and the figures
figures         draw_*(ax, table)
"""
