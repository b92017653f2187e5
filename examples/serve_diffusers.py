"""A diffusion pipeline as a method: evaluate -m sd=serve:'python serve_diffusers.py MODEL' (a name or a folder)"""

import json
import sys
import zlib

import torch
from diffusers import AutoPipelineForInpainting
from PIL import Image

answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
device = "cuda" if torch.cuda.is_available() else "cpu"
pipeline = AutoPipelineForInpainting.from_pretrained(sys.argv[1]).to(device)

for line in sys.stdin:  # {"pair": "00000", "image": "/tmp/.../image.png", "mask": ..., "output": ...}
    pair = json.loads(line)
    image, mask = Image.open(pair["image"]), Image.open(pair["mask"])  # white is the hole, as in diffusers
    chance = torch.Generator().manual_seed(zlib.crc32(pair["pair"].encode()))  # the same in every run
    size = {"width": image.width // 8 * 8, "height": image.height // 8 * 8}
    result = pipeline("", image=image, mask_image=mask, generator=chance, **size).images[0]
    result.resize(image.size).save(pair["output"])
    print("ok", file=answers, flush=True)
