"""Dense optical flow between two frames; `FLOWS` is the table of methods.

A flow is float32 (H, W, 2): for every pixel of the first frame its displacement (dx, dy) in pixels to the second.
Frames are uint8 (H, W, 3), RGB. The same frames give the same bytes, whatever number of threads OpenCV may use.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import cv2
import numpy as np

from maskgen.errors import BadInput

Planes = Sequence[np.ndarray]  # a flow as dx and dy, each float32 (H, W): OpenCV is quicker with them one by one
GROUP = "maskgen.flows"  # the Python entry point group by which others add a method

# Where the mending asks: every so many px, neighbours so many of these steps apart, and so many neighbours each way.
FAR = ((4, 4, 3), (2, 3, 3))  # at half the size
NEAR = (2, 3, 2)
LIKENESS = (np.exp(-np.arange(256) / 12) + 1e-3).astype(np.float32)  # weight by the sum of differences in R, G and B
UNLIKE = 15  # grey levels, mean over 3x3 pixels in one channel: more, and two pixels are not the same thing
DOUBT = 15  # grey levels, the same at half the size: by so much colour, trust falls to 1/e


def dis(first, second):
    """Dense inverse search (Kroeger et al., ECCV 2016) at even contrast, then mended by the way back."""
    return _mended_dis(first, second)[0]


def dis_medium(first, second):
    """Dense inverse search, OpenCV's preset "medium"."""
    return _dis(first, second, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def dis_fast(first, second):
    """Dense inverse search, OpenCV's preset "fast"."""
    return _dis(first, second, cv2.DISOPTICAL_FLOW_PRESET_FAST)


def farneback(first, second):
    """Polynomial expansion (Farneback, SCIA 2003)."""
    first, second = _grey(first), _grey(second)
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 5, 15, 3, 5, 1.2, 0)


def tvl1(first, second):
    """Total variation and an L1 data term (Zach et al., DAGM 2007) of scikit-image. Slow."""
    from skimage.registration import optical_flow_tvl1

    dy, dx = optical_flow_tvl1(_grey(first) / np.float32(255), _grey(second) / np.float32(255), dtype=np.float32)
    return np.ascontiguousarray(np.stack((dx, dy), axis=-1))


FLOWS = {"dis": dis, "dis-medium": dis_medium, "dis-fast": dis_fast, "farneback": farneback, "tvl1": tvl1}


def flow_named(name: str) -> Callable:
    """The method of that name: a row of `FLOWS`, or one that another package adds. BadInput where there is none."""
    if name in FLOWS:
        return FLOWS[name]
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        raise BadInput(f"no optical flow called {name!r}: expected one of {', '.join([*FLOWS, *sorted(others)])}")
    return others[name].load()


def packages(name: str) -> list[str]:
    """The installed packages, besides OpenCV, that compute the flow of this name: a plug-in's, scikit-image's."""
    if name in FLOWS:
        return ["scikit-image", "scipy"] if FLOWS[name] is tvl1 else []
    return [entry.dist.name for entry in entry_points(group=GROUP, name=name) if entry.dist]


def both(name: str, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow of the named method from first to second, and back. ValueError where the frames differ in shape."""
    if first.shape != second.shape:
        raise ValueError(f"frames must have one shape, got {first.shape} and {second.shape}")
    flow = flow_named(name)
    # `dis` makes both flows to mend either; the others have nothing to share.
    return _mended_dis(first, second) if flow is dis else (flow(first, second), flow(second, first))


def follow(flow: Planes, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a flow says at the places to which (u, v) leads: its dx and dy there, and whether that is inside.

    flow: its dx and dy, each float32 (H, W). u, v: float32 (H, W), displacement of every pixel. Bilinear; outside
    the frame the nearest edge speaks. Results: float32 (H, W) twice, bool (H, W).
    """
    height, width = u.shape
    x = u + np.arange(width, dtype=np.float32)
    y = v + np.arange(height, dtype=np.float32)[:, None]
    # A pixel is a square of side 1 around its centre. Half a pixel of noise at the edge of a still frame stays inside.
    inside = cv2.bitwise_and(cv2.inRange(x, -0.5, width - 0.5), cv2.inRange(y, -0.5, height - 0.5))
    # One plane at a time: for two channels at once OpenCV rounds the place to 1/32 pixel.
    there = [cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for plane in flow]
    return *there, inside.view(bool)


def contradiction(forward: np.ndarray, backward: np.ndarray, *, slope: float, offset: float | np.ndarray):
    """How much going forward and back misses the start: |w + v|^2 / (slope * (|w|^2 + |v|^2) + offset).

    forward, backward: float32 (H, W, 2). v is the backward flow at x + w. offset: one number or float32 (H, W).
    Returns float32 (H, W); infinite where x + w leaves the frame. ValueError where the shapes differ.
    """
    if forward.shape != backward.shape:
        raise ValueError(f"flows must have one shape, got {forward.shape} and {backward.shape}")
    missed, leaves = misses(cv2.split(forward), cv2.split(backward), slope=slope, offset=offset)
    missed[leaves] = np.inf
    return missed


def misses(forward: Planes, backward: Planes, *, slope: float, offset: float | np.ndarray):
    """`contradiction` of flows given as planes dx and dy, and apart from it, bool (H, W), what leaves the frame."""
    u, v = forward
    back_u, back_v, inside = follow(backward, u, v)
    bound = cv2.multiply(u, u)
    for part in (v, back_u, back_v):
        cv2.accumulateSquare(part, bound)
    bound *= np.float32(slope)
    bound += offset
    back_u += u
    back_v += v
    missed = cv2.multiply(back_u, back_u, dst=back_u)
    cv2.accumulateSquare(back_v, missed)
    missed /= bound
    return missed, ~inside


def _mended_dis(first, second):
    """Both flows of `dis`: those of OpenCV, then each mended by the other."""
    grey = _even_contrast(first, second)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward, backward = search.calc(*grey, None), search.calc(*grey[::-1], None)
    return _mended(first, second, forward, backward)


def _even_contrast(first, second):
    """Both frames grey and with one curve that makes their common histogram flat: dark scenes get contrast too."""
    first, second = _grey(first), _grey(second)
    curve = np.rint(_flat_curve(first, second)).astype(np.uint8)
    return cv2.LUT(first, curve), cv2.LUT(second, curve)


def _flat_curve(first, second):
    """For each of 256 values, the one that makes the common histogram flat. Frames of one or more channels."""
    planes = [frame.reshape(len(frame), -1) for frame in (first, second)]  # all channels in one histogram
    counts = sum(cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel() for plane in planes)
    below = np.cumsum(counts, dtype=np.float64) - counts / 2
    return 255 * below / counts.sum(dtype=np.float64)


def _mended(first, second, forward, backward):
    """Give pixels where flow, way back and colour contradict each other the flow of trusted pixels that look alike.

    A pixel keeps its own flow where that leads to a more similar colour and what it was given does not lead to the
    same one: such a pixel is hidden.
    """
    # Half way to a flat histogram: dark things differ more, and bright ones still differ.
    curve = np.rint((_flat_curve(first, second) + np.arange(256)) / 2).astype(np.uint8)
    seen = [cv2.LUT(frame, curve) for frame in (first, second)]
    halves = [cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in (first, second)]
    small = [cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in seen]
    before = there, back = [_sized(flow, halves[0].shape, 0.5) for flow in (forward, backward)]
    for one_pass in FAR:
        there, back = (
            _borrowed(small[0], there, _trust(*halves, there, back, 0.125), *one_pass),
            _borrowed(small[1], back, _trust(*halves[::-1], back, there, 0.125), *one_pass),
        )
    there, back = (
        flow + _sized(now - then, flow.shape, 2)
        for flow, now, then in zip((forward, backward), (there, back), before, strict=True)
    )
    there, back = (
        _borrowed(seen[0], there, _trust(*halves, there, back, 0.5), *NEAR),
        _borrowed(seen[1], back, _trust(*halves[::-1], back, there, 0.5), *NEAR),
    )
    return _by_colour(first, second, there, forward), _by_colour(second, first, back, backward)


def _sized(flow, shape, times):
    """The flow for frames of another size, so many times as large."""
    return cv2.resize(flow, shape[1::-1], interpolation=cv2.INTER_LINEAR) * np.float32(times)


def _trust(first, second, flow, back, offset):
    """1 where the way back leads home and the colours agree, towards 0 where not. float32 (H, W), as the flow.

    first, second: the frames at half the size, which is enough for colours and four times cheaper. offset: of the
    check, 0.5 px^2 at full size.
    """
    planes = cv2.split(flow)
    doubt, leaves = misses(planes, cv2.split(back), slope=0.01, offset=offset)
    same_size = flow.shape[:2] == first.shape[:2]
    unlike = _unlike(first, second, *(planes if same_size else cv2.split(_sized(flow, first.shape, 0.5))))
    unlike = unlike * np.float32(1 / DOUBT)
    unlike *= unlike
    doubt += unlike if same_size else cv2.resize(unlike, doubt.shape[::-1], interpolation=cv2.INTER_LINEAR)
    doubt *= np.float32(-1)
    trust = cv2.exp(doubt, dst=doubt)
    trust[leaves] = 0
    return trust


def _borrowed(frame, flow, trust, grid, step, rings):
    """The flow, where it is not trusted mixed with that of trusted pixels around."""
    coarse = _weighted_mean(frame, flow, trust, grid, step, rings)
    u, v = (cv2.resize(plane, trust.shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in coarse)
    return cv2.merge([around + trust * (own - around) for around, own in zip((u, v), cv2.split(flow), strict=True)])


def _weighted_mean(frame, flow, trust, grid, step, rings):
    """Mean dx and dy around every pixel of a grid, each neighbour weighted by trust and by likeness of colour."""
    some = np.s_[grid // 2 :: grid, grid // 2 :: grid]
    trust, flow = trust[some], flow[some]
    height, width = trust.shape
    far = rings * step
    colours = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    planes = cv2.split(cv2.copyMakeBorder(colours, far, far, far, far, cv2.BORDER_REPLICATE))
    own = np.s_[far : far + height, far : far + width]
    # Summed beside each other: weighted dx, weighted dy, and the weights themselves.
    terms = [
        cv2.copyMakeBorder(term, far, far, far, far, cv2.BORDER_CONSTANT, value=0)
        for term in (flow[..., 0] * trust, flow[..., 1] * trust, trust)
    ]
    sums = [np.full((height, width), tiny, np.float32) for tiny in (0, 0, 1e-12)]
    for i in range(-rings, rings + 1):
        for j in range(-rings, rings + 1):
            if i * i + j * j > rings * rings + 1:
                continue
            there = np.s_[far + i * step : far + i * step + height, far + j * step : far + j * step + width]
            red, green, blue = (cv2.absdiff(plane[own], plane[there]) for plane in planes)
            like = cv2.LUT(cv2.add(cv2.add(red, green), blue), LIKENESS)
            for term, total in zip(terms, sums, strict=True):
                cv2.accumulateProduct(term[there], like, total)
    return sums[0] / sums[2], sums[1] / sums[2]


def _by_colour(first, second, flow, own):
    """The flow, but a pixel's own where the flow does not lead to the same colour and its own leads nearer to it."""
    given, kept = (_unlike(first, second, *cv2.split(way)) for way in (flow, own))
    return cv2.copyTo(own, ((given > UNLIKE) & (kept < given)).astype(np.uint8), flow)


def _unlike(first, second, u, v):
    """Largest difference of a channel between a pixel and where (u, v) leads, mean over 3x3 pixels. uint8 (H, W)."""
    height, width = u.shape
    x = u + np.arange(width, dtype=np.float32)
    y = v + np.arange(height, dtype=np.float32)[:, None]
    there = cv2.remap(second, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    red, green, blue = cv2.split(cv2.blur(cv2.absdiff(first, there), (3, 3)))
    return cv2.max(cv2.max(red, green), blue)


def _dis(first, second, preset):
    first, second = _grey(first), _grey(second)
    return cv2.DISOpticalFlow.create(preset).calc(first, second, None)


def _grey(frame):
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
