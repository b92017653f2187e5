"""Results made elsewhere: find the pairs in a folder of images and one of masks, and each pair's result, by name."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from evaluation import names
from evaluation.listed import measured_pairs
from evaluation.masks import check_masks, mask_name
from evaluation.methods import Method, parse
from evaluation.methods.external import results_in
from evaluation.names import COMMON, Files
from evaluation.pairs import PairSet, Sources
from evaluation.settings import NATIVE
from maskgen.errors import BadInput, warn

SHOWN = 3  # names in a message


def match_folders(
    truth: str | Path,
    masks: str | Path,
    *,
    polarity: str = "hole-white",
    threshold: int | None = None,
    outside: Iterable[Path] = (),
) -> PairSet:
    """The pairs of a folder of true images and a folder of masks, matched by name; each image keeps its size.

    Parameters
    ----------
    truth, masks
        A folder each, which may be the same. A mask belongs to the image of the same path or name; or of the same name
        but for a word such as `_mask`, `_input`, `_gt`; or whose name it begins with (`image_mask001` and `image`). An
        image may have several masks. A single mask, as a file or alone in its folder, holds for all images. Or a folder
        and the form of the names: `results/{}_mask.png`, where `{}` stands for what image and mask have in common.
    polarity, threshold
        How mask files are read: "hole-white" or "hole-black", and the grey level from which on they are white.
    outside
        Folders below these two that are left out, such as those of results.

    Returns
    -------
    PairSet
        For the argument `pairs` of `evaluate`. The classes are measured; masks outside all classes are `other`.

    Raises
    ------
    BadInput
        If nothing matches, or a file cannot be read. Images or masks without a partner are named in an `InputWarning`.
    """
    truth, masks = Path(truth), Path(masks)
    outside = [Path(folder) for folder in outside]
    image_files = names.list_files(truth, "image", exclude=[names.folder_of(masks), *outside])
    if masks.is_file():
        mask_files = names.list_files(masks, "mask")
    else:
        if masks.is_dir():
            check_masks(masks, polarity, threshold)
        mask_files = names.list_files(masks, "mask", exclude=[names.folder_of(truth), *outside])
    if image_files.folder.resolve() == mask_files.folder.resolve():
        image_files = image_files.only("truth", "") if truth.is_dir() else image_files
        mask_files = mask_files.without([image_files])
    if masks.is_dir() and any(names.role_of(key) == "mask" for key in mask_files.names):
        mask_files = mask_files.only("mask", "")  # without the images and results that a program writes beside them
    rows = _pairs_of(image_files, mask_files, single=masks.is_file())
    sources = Sources(image_files.folder, mask_files.folder, polarity, threshold)
    pairs = measured_pairs(rows, sources, native=True)
    image_keys, mask_keys = ({name: key for key, name in each.names.items()} for each in (image_files, mask_files))
    called = {pair.pair: (mask_keys[pair.mask], image_keys[pair.image]) for pair in pairs}
    folders, count = (str(sources.images), mask_name(sources.masks)), len({pair.mask for pair in pairs})
    return PairSet(pairs, sources, folders, f"{count:,} of {folders[1]}", size=NATIVE, called=called, by_name=True)


def _pairs_of(image_files, mask_files, *, single):
    """(image, mask) for each mask that belongs to an image. single: the mask holds for all images."""
    images, masks = image_files.names, mask_files.names
    if not images or not masks:
        kind, files = ("image", image_files) if not images else ("mask", mask_files)
        raise BadInput(f"no {kind} in {files.where}: write {files.folder / COMMON}_NAME.png for the names of {kind}s")
    found = {} if single else names.best_match(masks, [{key: key for key in images}])
    if not found and len(masks) == 1:
        (mask,) = masks.values()
        return [(image, mask) for image in images.values()]
    if not found:
        _check_cores(image_files)
        raise BadInput(_no_match(mask_files, "mask", image_files.names, image_files.where))
    found = {image: names.of_role(keys, "mask") for image, keys in found.items()}
    without = [images[key] for key in images if key not in found]
    used = {key for keys in found.values() for key in keys}
    unused = [masks[key] for key in masks if key not in used]
    if without:
        warn(f"{len(without)} of {len(images)} images have no mask in {mask_files.where}: {_some(without)}")
    if unused:
        warn(f"{len(unused)} of {len(masks)} masks belong to no image: {_some(unused)}")
    return [(images[image], masks[key]) for image in images for key in found.get(image, ())]


def _check_cores(files):
    """Raise BadInput where two images differ only in the word that says what they are."""
    cores: dict[str, str] = {}
    for key in files.names:
        other = cores.setdefault(names.core_of(key), key)
        if other != key:
            pattern = names.pattern_of(files.names[other], names.core_of(key))
            raise BadInput(
                f"{files.where} holds {files.names[other]} and {files.names[key]}, two true images of one name: choose "
                f"one kind, as --truth '{files.folder / pattern}'"
            )


def result_folders(methods: Iterable[str]) -> list[Path]:
    """The folders of results among the values of `--method`."""
    found = (parse(method) for method in methods)
    return [names.folder_of(Path(method.argument)) for method in found if method.kind == "dir"]


def with_results(method: Method, pair_set: PairSet) -> Method:
    """A method of the kind dir that knows the file of each pair. Any other method is returned as it is.

    Results are called after their pair, or, where pairs come from names, after their mask or image, as `match_folders`
    describes. Pairs without a result are named in an `InputWarning`. Raises BadInput where no pair has one, and where
    one has two.
    """
    pairs, called = [pair.pair for pair in pair_set.pairs], pair_set.called
    if method.kind != "dir" or (not pair_set.by_name and _is_named_after(pairs, Path(method.argument))):
        return method
    results = _results_of(method, pair_set)
    found = names.best_match(results.names, choices := _target_names(pairs, called))
    if not found:
        if not pair_set.by_name and COMMON not in method.argument:
            return method  # each pair fails, and says which name was expected
        targets = next(filter(None, reversed(choices[:3])))  # images, else masks, else pairs
        written = any(names.key_of(pair.image) not in targets for pair in pair_set.pairs)  # a form of their names
        raise BadInput(_no_match(results, "result", targets, COMMON if written else pair_set.names[0]))
    chosen = {pair: results.names[_only_one(found[pair], method, results)] for pair in pairs if pair in found}
    if len(chosen) < len(pairs):
        missing = [pair for pair in pairs if pair not in chosen]
        warn(f"{method.label}: {len(missing)} of {len(pairs)} pairs have no result: {_some(missing)}")
    return replace(method, argument=str(results.folder), results=chosen)


def _is_named_after(pairs, folder):
    """True if a folder is missing, empty or has a result called after a pair: no other rule is needed."""
    if COMMON in str(folder):
        return False
    found = results_in(folder)
    return not found or not found.keys().isdisjoint(pairs)


def _results_of(method, pair_set):
    """The pictures in a folder of results, without those that are images or masks of the pairs."""
    pairs, sources = pair_set.pairs, pair_set.sources
    results = names.list_files(Path(method.argument), "result", exclude=[sources.images, sources.masks])
    if not pair_set.called:  # drawn from two folders
        return results
    images = Files(sources.images, {pair.image: pair.image for pair in pairs}, "")
    masks = Files(sources.masks, {pair.mask: pair.mask for pair in pairs}, "")
    return results.without([images, masks])


def _only_one(keys, method, results):
    """The result of a pair among files that match it. Raises BadInput where there are two."""
    keys = names.of_role(keys, "result")
    if len(keys) > 1:
        both = " and ".join(results.names[key] for key in keys[:2])
        raise BadInput(
            f"{results.where} holds {both}, two results of one pair: remove one, or write "
            f"{method.label}=dir:'{results.folder / COMMON}_NAME.png' for the names of results"
        )
    return keys[0]


def _target_names(pairs, called):
    """The names after which results may be called, for each kind of name: name -> pair."""
    choices = [{pair: pair for pair in pairs}]
    if called:
        choices += [_single({pair: keys[i] for pair, keys in called.items()}) for i in range(2)]
        (_, masks, images) = choices
        if all(masks.get(key, pair) == pair for key, pair in images.items()):
            choices.append(masks | images)  # where a mask serves several images, some results are called after those
    return choices


def _single(keys):
    """Key -> pair, without keys that several pairs have. keys: pair -> key."""
    found: dict[str, str | None] = {}
    for pair, key in keys.items():
        found[key] = None if key in found else pair
    return {key: pair for key, pair in found.items() if pair}


def _no_match(files, kind, targets, images):
    """Why no mask or result matches: names of both sides, and a form that would help. images: where those are."""
    of, found = "an image" if kind == "mask" else "a pair", _some(files.names.values())
    count, pattern, other = names.guessed_patterns(files, targets)
    if count:
        for_images = other if COMMON in images else f"{images}/{other}"
        also = "" if other == COMMON else f" and '{for_images}' for the images"
        advice = f"with '{pattern}'{also}, {count} would match"
    else:
        advice = f"rename them, or write {COMMON} for what names have in common, as '{files.folder / COMMON}_x.png'"
    return (
        f"none of the {len(files.names)} {kind}s in {files.where} belongs to {of}: they are called {found}, expected "
        f"names such as {_some(targets)}: {advice}"
    )


def _some(found):
    """The first few of several names."""
    found = list(found)
    return ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
