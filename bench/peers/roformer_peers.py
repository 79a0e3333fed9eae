"""The speed case of bench_model in other engines: BS-RoFormer 384 x 6 on 8 s of stereo, weights by formula.

    python roformer_peers.py torch [--bf16] [--compile]
    python roformer_peers.py openvino [--bf16 | --int8]
    python roformer_peers.py torch --train full|lora [--checkpoint] [--bf16]

With --train: whole steps (forward, backward, AdamW; waveform L1 and multi-resolution STFT) on 4 s, as `bench_model --train`.

Needs torch (and openvino) from PyPI, in an environment of their own; nothing here is used by bandsaw. Prints seconds of
each run and the error against the stored samples when --golden FOLDER is given. For a fair torch run preload jemalloc with
MALLOC_CONF=metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always.
"""
import argparse
import math
import resource
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DIM, DEPTH, HEADS, DIM_HEAD, N_FFT, HOP, SAMPLES = 384, 6, 8, 64, 2048, 441, 352800
BANDS = [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]


def values(name, n):
    """Numbers in [-1, 1) from a name: tests/golden/README.md, "Formulas"."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return 2 * ((z >> np.uint64(40)).astype(np.float64) / 2**24) - 1


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.normalize(x, dim=-1) * (x.shape[-1] ** 0.5 * self.gamma)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        inner = HEADS * DIM_HEAD
        self.norm = Norm(DIM)
        self.to_qkv = nn.Linear(DIM, 3 * inner, bias=False)
        self.to_gates = nn.Linear(DIM, HEADS)
        self.to_out = nn.Sequential(nn.Linear(inner, DIM, bias=False))

    def forward(self, x, cos, sin):
        h = self.norm(x)
        b, n, _ = h.shape
        q, k, v = self.to_qkv(h).view(b, n, 3, HEADS, DIM_HEAD).permute(2, 0, 3, 1, 4)

        def turn(t):
            a, c = t[..., 0::2], t[..., 1::2]
            return torch.stack((a * cos - c * sin, c * cos + a * sin), -1).flatten(-2)

        o = F.scaled_dot_product_attention(turn(q), turn(k), v)
        o = o * self.to_gates(h).sigmoid().permute(0, 2, 1).unsqueeze(-1)
        return x + self.to_out(o.permute(0, 2, 1, 3).reshape(b, n, HEADS * DIM_HEAD))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.ModuleList([Norm(DIM), nn.Linear(DIM, 4 * DIM), nn.Identity(), nn.Identity(),
                                  nn.Linear(4 * DIM, DIM)])

    def forward(self, x):
        return x + self.net[4](F.gelu(self.net[1](self.net[0](x))))


class Transformer(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([Attention(), FeedForward()])])
        angle = torch.arange(n).double()[:, None] * 10000.0 ** (-torch.arange(0, DIM_HEAD, 2).double() / DIM_HEAD)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x):
        return self.layers[0][1](self.layers[0][0](x, self.cos, self.sin))


class Model(nn.Module):
    """Features of the spectrum [1, T, 4100] -> masked features; the STFT is outside for every peer."""

    def __init__(self):
        super().__init__()
        frames, bands = 1 + SAMPLES // HOP, len(BANDS)
        self.widths = [4 * w for w in BANDS]
        self.band_split = nn.ModuleDict({"to_features": nn.ModuleList(
            [nn.Sequential(Norm(w), nn.Linear(w, DIM)) for w in self.widths])})
        self.layers = nn.ModuleList([nn.ModuleList([Transformer(frames), Transformer(bands)]) for _ in range(DEPTH)])
        self.final_norm = Norm(DIM)
        self.mask_estimators = nn.ModuleList([nn.ModuleDict({"to_freqs": nn.ModuleList(
            [nn.Sequential(nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.Tanh(), nn.Linear(4 * DIM, 2 * w)), nn.GLU(-1))
             for w in self.widths])})])

    def forward(self, x):
        parts = x.split(self.widths, -1)
        h = torch.stack([f(p) for f, p in zip(self.band_split["to_features"], parts)], 2)[0]  # [T, F, D]
        for time_net, band_net in self.layers:
            h = time_net(h.permute(1, 0, 2)).permute(1, 0, 2)
            h = band_net(h)
        h = self.final_norm(h)
        nets = self.mask_estimators[0]["to_freqs"]
        m = torch.cat([net(h[:, b]) for b, net in enumerate(nets)], -1)[None]
        a, b, c, d = x[..., 0::2], x[..., 1::2], m[..., 0::2], m[..., 1::2]
        return torch.stack((a * c - b * d, a * d + b * c), -1).flatten(-2)


def build():
    model = Model().eval()
    state = model.state_dict()
    for name, t in state.items():
        v = values(name, t.numel()).reshape(t.shape)
        if name.endswith("gamma"):
            v = 1 + 0.1 * v
        else:
            v = v / math.sqrt(t.shape[1]) if t.dim() >= 2 else 0.02 * v
        t.copy_(torch.from_numpy(v.astype(np.float32)))
    return model


def mix():
    t = np.arange(SAMPLES) / 44100
    rows = [0.1 * values(f"input.{c}", SAMPLES) + 0.3 * np.sin(2 * np.pi * 220 * (c + 1) * t) +
            0.1 * np.sin(2 * np.pi * 3000 * t) for c in range(2)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


class LowRank(nn.Module):
    def __init__(self, base, rank=8):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


def add_low_rank(module):
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, LowRank(child))
        else:
            add_low_rank(child)


def spectral_loss(y, target):
    total = (y - target).abs().mean()
    for window in (4096, 2048, 1024, 512, 256):
        n = max(window, 2048)
        z = torch.stft((y - target).flatten(0, -2), n, 147, window, torch.hann_window(window), return_complex=True)
        total = total + z.abs().mean()
    return total


def train(o):
    global SAMPLES
    SAMPLES = 176400
    with torch.no_grad():
        model = build().train()
    if o.train == "lora":
        model.requires_grad_(False)
        add_low_rank(model.layers)
    if o.checkpoint:
        from torch.utils.checkpoint import checkpoint
        for pair in model.layers:
            for block in pair:
                block.forward = (lambda f: lambda x: checkpoint(f, x, use_reentrant=False))(block.forward)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 3e-4)
    window, audio = torch.hann_window(N_FFT), mix()
    seconds = []
    for i in range(o.runs + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        spectrum = torch.stft(audio, N_FFT, HOP, window=window, return_complex=True)
        x = torch.view_as_real(spectrum).permute(2, 1, 0, 3).reshape(1, spectrum.shape[-1], -1)
        with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16):
            y = model(x).float()
        y = torch.view_as_complex(y.reshape(y.shape[1], 1025, 2, 2).permute(2, 1, 0, 3).contiguous())
        out = torch.istft(y, N_FFT, HOP, window=window, length=SAMPLES)
        loss = spectral_loss(out, 0.5 * audio)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        print(f"step {i}{' (warm-up)' if i == 0 else ''}: {seconds[-1]:.2f} s, loss {loss.item():.6g}", flush=True)
    best = sorted(seconds[1:])
    print(f"torch {o.train}{' checkpointed' if o.checkpoint else ''}{' bf16' if o.bf16 else ''}: median "
          f"{best[len(best) // 2]:.2f} s, best {best[0]:.2f} s, peak resident "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("peer", choices=["torch", "openvino"])
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--int8", action="store_true")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--golden")
    p.add_argument("--train", choices=["full", "lora"])
    p.add_argument("--checkpoint", action="store_true")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    if o.train:
        return train(o)
    window = torch.hann_window(N_FFT)
    with torch.inference_mode():
        model = build()
        spectrum = torch.stft(mix(), N_FFT, HOP, window=window, return_complex=True)  # [C, K, T]
        x = torch.view_as_real(spectrum).permute(2, 1, 0, 3).reshape(1, spectrum.shape[-1], -1).contiguous()
        if o.peer == "torch":
            if o.compile:
                for block in model.layers:
                    block[0].compile()
                    block[1].compile()

            def run():
                with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16):
                    return model(x).float()
        else:
            import openvino as ov
            core = ov.Core()
            net = ov.convert_model(model, example_input=x, input=[x.shape])
            if o.int8:
                import nncf
                net = nncf.compress_weights(net)
            hints = {"INFERENCE_NUM_THREADS": o.threads, "INFERENCE_PRECISION_HINT": "bf16" if o.bf16 else "f32"}
            del model
            compiled = core.compile_model(net, "CPU", hints)
            request = compiled.create_infer_request()
            array = x.numpy()

            def run():
                return torch.from_numpy(request.infer({0: array})[0])
        seconds = []
        for i in range(o.runs + 1):
            start = time.perf_counter()
            y = run()
            seconds.append(time.perf_counter() - start)
            print(f"run {i}{' (warm-up)' if i == 0 else ''}: {seconds[-1]:.2f} s", flush=True)
        best = sorted(seconds[1:])
        print(f"{o.peer}{' bf16' if o.bf16 else ''}{' int8' if o.int8 else ''}: median {best[len(best) // 2]:.2f} s, "
              f"best {best[0]:.2f} s, peak resident {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
        if o.golden:
            y = torch.view_as_complex(y.reshape(y.shape[1], 1025, 2, 2).permute(2, 1, 0, 3).contiguous())
            y[:, 0] = 0
            out = torch.istft(y, N_FFT, HOP, window=window, length=SAMPLES)[:, ::353].numpy()
            want = np.load(o.golden + "/output_samples.npz")["stride353"].reshape(2, -1)
            print(f"against the golden samples: {10 * np.log10((want**2).sum() / ((out - want)**2).sum()):.1f} dB")


if __name__ == "__main__":
    main()
