"""Put prompts into a Vision Transformer of timm: VPT and VAPT, saved, converted, and read as experts.

config        VPT, VAPT: what to learn, frozen and checked
prompts       StaticPrompts, AdaptivePrompts, and the pure functions under them
prompted      prompt, unprompt: prompts put into a model and taken out
checkpoint    save_prompts, load_prompts
convert       official VPT and VAPT files, MoCo-v3 files
head_as_moe   one head of one block as a mixture of experts
weight_decay  which parameters have weight decay
supported     which models of timm take prompts
"""
