"""cuDNN's LSTM in float16: its kernels, and a layer's directions at once, with one handle or two.

    python resources/gpu/lstm_handles.py one | two | kernels

This is what measured lstm_handles.tsv, with its code tidied since. Five layers of 1,024 units,
1,408 inputs to the first. torch has a cuDNN handle for each thread, so a second one is another
thread's.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch

HIDDEN, INPUTS, LAYERS = 1024, 1408, 5
RUNS = 12


def layers(convert):
    """Pairs of a layer's two directions."""
    return [
        [convert(torch.nn.LSTM(HIDDEN if n else INPUTS, HIDDEN).cuda()).eval() for _ in range(2)]
        for n in range(LAYERS)
    ]


def backwards(layer, x):
    """The backward direction."""
    return layer(x.flip(0))[0].flip(0)


def serial(net, x):
    """One direction after the other, as the static form does."""
    for ahead, back in net:
        x = ahead(x)[0] + backwards(back, x)
    return x


def _aside(back, x):
    with torch.inference_mode(), torch.cuda.stream(SIDE):
        return backwards(back, x)


def _at_once(net, x, run):
    for ahead, back in net:
        main = torch.cuda.current_stream()
        SIDE.wait_stream(main)
        y = ahead(x)[0]
        z = run(_aside, back, x)
        main.wait_stream(SIDE)
        x = y + z
    return x


def one_handle(net, x):
    """Two streams, of one thread."""
    return _at_once(net, x, lambda function, *given: function(*given))


def two_handles(net, x):
    """Two streams, each of a thread of its own."""
    return _at_once(net, x, lambda function, *given: POOL.submit(function, *given).result())


def recorded(way, net, x):
    """What replays a CUDA graph of it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            way(net, x)
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # relaxed: another thread takes part
    with torch.cuda.graph(graph, capture_error_mode="relaxed"):
        out = way(net, x)

    def replay():
        graph.replay()
        return out

    return replay


def clock(function):
    """Median and least seconds."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    took = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    took.sort()
    return took[len(took) // 2], took[0]


def batch(frames, size):
    """Random input."""
    return torch.randn(frames, size, INPUTS, device="cuda").half() * 0.3


def measure(ways):
    """A line for each shape and way, with and without a graph."""
    net = layers(torch.nn.Module.half)
    for frames, sizes in ((140, (64, 68, 128, 136, 256)), (311, (64, 128, 136))):
        for size in sizes:
            x = batch(frames, size)
            first, expected = None, serial(net, x).clone()
            for way in ways:
                for graph in (False, True):
                    function = recorded(way, net, x) if graph else lambda way=way, x=x: way(net, x)
                    middle, least = clock(function)
                    first = first or middle
                    same = torch.equal(function(), expected)
                    print(
                        frames, size, way.__name__, int(graph), f"{1e3 * middle:.2f}",
                        f"{1e3 * least:.2f}", f"{1e6 * middle / size:.1f}",
                        f"{first / middle:.2f}", int(same), sep="\t", flush=True,
                    )  # fmt: skip


def compare():
    """How far it is from float32."""
    net = layers(torch.nn.Module.half)
    exact = layers(torch.nn.Module.float)
    for pair, others in zip(net, exact):
        for layer, other in zip(pair, others):
            other.load_state_dict({k: v.float() for k, v in layer.state_dict().items()})
    for size in (64, 68, 128, 136):
        x = batch(140, size)
        y, z = serial(net, x).double(), serial(exact, x.float()).double()
        largest, relative = float((y - z).abs().max()), float((y - z).norm() / z.norm())
        print(f"batch size {size}: largest difference {largest:.1e}, of norms {relative:.1e}")


def kernels():
    """The kernels that take most of the time."""
    from torch.profiler import ProfilerActivity, profile

    net = layers(torch.nn.Module.half)
    for size in (64, 68, 128, 136):
        x = batch(140, size)
        for _ in range(3):
            serial(net, x)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            serial(net, x)
            torch.cuda.synchronize()
        for event in sorted(found.key_averages(), key=lambda e: -e.self_device_time_total)[:4]:
            took = event.self_device_time_total / 1e3
            print(f"batch size {size}: {event.count} x {event.key[:110]}: {took:.2f} ms")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    SIDE, POOL = torch.cuda.Stream(), ThreadPoolExecutor(1)
    with torch.inference_mode():
        if sys.argv[1] == "kernels":
            kernels()
        else:
            measure([serial, one_handle if sys.argv[1] == "one" else two_handles])
            if sys.argv[1] == "one":
                compare()
