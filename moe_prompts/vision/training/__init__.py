"""Train prompts and other methods on a frozen backbone.

sgd            one run of the published protocol
optimisers     SGD, AdamW and LAMB for stacked trials and for one model
recipe         train_prompts: a prompted model trained in one call
methods        the methods that are compared: VPT, VAPT, controls and baselines
peers          LoRA and Adapter+, which are no prompts, on the same backbone
packed         many trials on one backbone as one model
packed_peers   the same of LoRA, adapters and biases
runs           trains the trials of one method on one task, and scores them
cross_entropy  the loss of prompts and head as a function of one vector, with its derivatives
gauss_newton   certified second-order fits of it
states         states of images that enter the first block with prompts, kept in files
tuned          settings that were chosen before
devices        which GPU a process uses
statuses       how a training can end
"""
