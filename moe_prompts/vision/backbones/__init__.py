"""Give frozen backbones: created by name or from a file, pretrained on drawn images, and probed.

create            create_backbone: a backbone by its name
normalisation     bytes to the inputs of a backbone
fetched           pretrained weights in the user's cache folder
from_onnx         weights of an ONNX file under timm's names
check_conversion  compares such weights with onnxruntime
formulas          draws the images of pretraining
pretraining       pretrains the small backbone on them
standardised      scales features, so that one grid of rates suits heads on any backbone
probe             measures what a backbone's features tell of a task
"""
