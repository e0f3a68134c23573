"""How prompts and other methods are trained on a frozen backbone.

sgd        one run of the published protocol
methods    what is compared: VPT, VAPT, controls and baselines
packed     many trials on one backbone as one model
runs       train trials of one method on one task, and score them
tuned      settings that were chosen before
devices    which GPU a process uses
statuses   how a training can end
"""
