"""Study accuracy and excess risk against the number of training images, on planted truths and on tasks.

study           trains methods, or students, on n images: one study of images from either source
sources         where images come from: a task, or a teacher's planted prompts
teacher         a ViT with planted prompts as a task
curves          tables over n, floors, crossings
rates           learning rates chosen once
screening       compares starts and optimisers on planted truths
effective       counts the parameters that a fit really uses, and predicts what it pays above its floor
search          certified second-order fits of planted prompts, from several starts
search_verdict  the rule of T-search: landscape, algorithm or start
link            holds predictions beside what was observed, with rules fixed beforehand
presets         what the command trains where options say nothing else
claim_lines     the committed runs as lines of evidence for the page of claims
report          the tables in words, and the figures
figures         draw_*(ax, table)
"""
