"""The search of loss weights: a run for each candidate, judged by what no weight touches."""

from dataclasses import asdict, replace
from pathlib import Path

from maskgen.runtime.files import write_whole
from maskgen.runtime.output import OutputFolder
from pconv_model import checkpoints
from pconv_model.data import split
from pconv_model.device import usable
from pconv_model.settings import LOSSES, LossConfig, NetConfig, TrainConfig
from pconv_model.train import inputs_of, machine, train


def search(
    folders: list[Path],
    sampler,
    out: Path,
    candidates: list[LossConfig],
    *,
    net: NetConfig | None = None,
    config: TrainConfig | None = None,
    exclude=frozenset(),
    favour=(),
    start: Path | None = None,
    device: str | None = None,
    inputs: dict | None = None,
    say=print,
    **how,
):
    """Try loss weights on a validation set, as the paper did on 100 images. Returns a DataFrame, the best first.

    Every candidate trains `config.phase1_steps` steps of its own, by `train`, which has the other arguments, and is
    judged by what does not depend on the weights: l1, PSNR and, with `features`, VGG's distances, by the first of which
    the rows are sorted. The table is in `out`/table.csv too. A search that was stopped goes on, candidates may be added
    to one that is finished; photos, masks or settings that have changed are refused. say: is called with a line for the
    user.
    """
    import pandas as pd

    net, config, device = net or NetConfig(), replace(config or TrainConfig(), phase2_steps=0), usable(device)
    photos, held = split(folders, exclude=exclude, config=config)
    weights = {_name(loss): {term: getattr(loss, term) for term in LOSSES} for loss in candidates}
    recipe = {
        "made_by": "pconv search",
        "settings": {**asdict(config), "features": how.get("features") is not None},
        "net": asdict(net),
        "inputs": inputs_of(photos, held, start, favour, inputs),
        "machine": machine(device),
        "candidates": {_name(loss): asdict(loss) for loss in candidates},
    }
    how |= {"exclude": exclude, "favour": favour, "start": start, "device": device, "inputs": recipe["inputs"]}
    rows = []
    with OutputFolder(out, recipe, grows=("candidates",)) as folder:
        if folder.complete:
            say(folder.complete_message)
        for loss in candidates:
            path = out / _name(loss) / f"{net.kind}.safetensors"
            if not (folder.complete and path.exists()):
                train(folders, sampler, path.parent, net=net, config=config, loss=loss, **how)
            last = [row for row in checkpoints.read_header(path)["history"] if "val_l1" in row][-1]
            rows.append({**weights[_name(loss)], **{key: last[key] for key in last if key.startswith("val_")}})
        table = pd.DataFrame(sorted(rows, key=lambda row: row.get("val_perceptual", row["val_l1"])))
        write_whole(out / "table.csv", table.to_csv(index=False).encode())
        if not folder.complete:
            folder.finish()
    return table


def _name(loss):
    """The folder of a candidate."""
    return "_".join(f"{term}{getattr(loss, term):g}" for term in LOSSES)
