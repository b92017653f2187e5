"""Search of loss weights: one training run per candidate, compared on the validation set."""

from dataclasses import asdict, replace
from pathlib import Path

from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole
from maskgen.runtime.output import OutputFolder
from pconv_model import checkpoints
from pconv_model.data import split
from pconv_model.device import usable
from pconv_model.settings import LOSSES, LossConfig, NetConfig, TrainConfig
from pconv_model.train import describe_inputs, describe_machine, train


def search(
    folders: list[Path],
    sampler,
    out: Path,
    candidates: list[LossConfig],
    *,
    net: NetConfig | None = None,
    config: TrainConfig | None = None,
    exclude=frozenset(),
    start: Path | None = None,
    device: str | None = None,
    inputs: dict | None = None,
    say=print,
    **options,
):
    """Compare loss weights on a validation set, as the paper did on 100 images. Returns a DataFrame, the best first.

    Each candidate is trained for `config.phase1_steps` steps by `train`, which takes the other options. The scores do
    not depend on the loss weights: l1, PSNR and, with `features`, the two distances of VGG; rows are sorted by the
    perceptual distance, without it by l1. The table is also written to `out`/table.csv. A search that was stopped can
    be continued, and candidates can be added to a finished one; changed photos, masks or settings are refused. say: is
    called with a line for the user.
    """
    import pandas as pd

    if not candidates:
        raise BadInput("a search needs at least one candidate: give each loss weight at least one value")
    net, config, device = net or NetConfig(), replace(config or TrainConfig(), phase2_steps=0), usable(device)
    photos, held_out = split(folders, exclude=exclude, config=config)
    weights = {_folder_name(loss): {term: getattr(loss, term) for term in LOSSES} for loss in candidates}
    recipe = {
        "made_by": "pconv search",
        "settings": {**asdict(config), "features": options.get("features") is not None},
        "net": asdict(net),
        "inputs": describe_inputs(photos, held_out, start, inputs),
        "machine": describe_machine(device),
        "candidates": {_folder_name(loss): asdict(loss) for loss in candidates},
    }
    options |= {"exclude": exclude, "start": start, "device": device, "inputs": recipe["inputs"]}
    rows = []
    with OutputFolder(out, recipe, grows=("candidates",)) as folder:
        if folder.complete:
            say(folder.complete_message)
        for loss in candidates:
            path = out / _folder_name(loss) / f"{net.kind}.safetensors"
            if not (folder.complete and path.exists()):
                train(folders, sampler, path.parent, net=net, config=config, loss=loss, **options)
            last = [row for row in checkpoints.read_header(path)["history"] if "val_l1" in row][-1]
            rows.append({**weights[_folder_name(loss)], **{key: last[key] for key in last if key.startswith("val_")}})
        table = pd.DataFrame(sorted(rows, key=lambda row: row.get("val_perceptual", row["val_l1"])))
        write_whole(out / "table.csv", table.to_csv(index=False).encode())
        if not folder.complete:
            folder.finish()
    return table


def _folder_name(loss):
    """Name of the folder of a candidate."""
    return "_".join(f"{term}{getattr(loss, term):g}" for term in LOSSES)
