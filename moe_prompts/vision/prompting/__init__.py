"""Put prompts into a Vision Transformer of timm: VPT and VAPT, saved, converted, and read as experts.

config          VPT, VAPT: what to learn, frozen and checked
prompts         StaticPrompts, AdaptivePrompts, and the pure functions under them
starts          where prompts begin
prompted        prompt, unprompt: prompts put into a model and taken out
prompted_model  runs blocks with prompts in their sequence
layouts         where the parts of a model are, in timm and in transformers
as_timm         a model of transformers as one of timm
continued       adaptive prompts that go on from trained fixed ones
checkpoint      save_prompts, load_prompts
export          torch.export, ONNX, and prompts merged into a plain model
convert         official VPT and VAPT files, MoCo-v3 files
head_as_moe     one head of one block as a mixture of experts
mass            draws how much attention goes to prompts
diagnosis       how large the first gradients of prompts are
weight_decay    which parameters have weight decay
reference       the model as the papers write it, which ours is timed beside
supported       which models of timm take prompts
"""
