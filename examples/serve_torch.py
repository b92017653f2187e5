"""A network of your own as a method: evaluate -m mine=serve:'python serve_torch.py weights.pth'"""

import json
import sys

import numpy as np
import torch
from network import Network  # your class, in network.py beside this file
from PIL import Image

answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
device = "cuda" if torch.cuda.is_available() else "cpu"
network = Network().to(device).eval()
network.load_state_dict(torch.load(sys.argv[1], map_location=device, weights_only=True))

for line in sys.stdin:  # {"pair": "00000", "image": "/tmp/.../image.png", "mask": ..., "output": ...}
    pair = json.loads(line)
    image = np.array(Image.open(pair["image"]))  # uint8 (H, W, 3), black in the hole
    hole = np.array(Image.open(pair["mask"])) == 255  # bool (H, W)
    planes = torch.from_numpy(image / 255).permute(2, 0, 1)[None].float().to(device)
    with torch.inference_mode():
        filled = network(planes, torch.from_numpy(hole)[None, None].float().to(device))
    result = (filled[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
    Image.fromarray(result).save(pair["output"])
    print("ok", file=answers, flush=True)
