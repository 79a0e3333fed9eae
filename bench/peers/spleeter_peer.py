"""Spleeter's two-stem U-Nets in PyTorch, on one segment of 512 frames: what `bandsaw bench --model` times of the same nets.

    python spleeter_peer.py [--runs N] [--threads N] [--compile] [--channels-last] [--train]

Random weights (the time does not depend on them), STFT and inverse included. With --train: a whole step (forward, backward,
AdamW on all parameters, waveform L1). For a fair run preload jemalloc as in roformer_peers.py.
"""
import argparse
import resource
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

N_FFT, HOP, FRAMES, BINS = 4096, 1024, 512, 1024
FILTERS = [16, 32, 64, 128, 256, 512]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        ins, ups = [2] + FILTERS[:-1], [512, 512, 256, 128, 64, 32]
        outs = [256, 128, 64, 32, 16, 1]
        self.down = nn.ModuleList([nn.Conv2d(i, o, 5, 2) for i, o in zip(ins, FILTERS)])
        self.down_norm = nn.ModuleList([nn.BatchNorm2d(o, 1e-3) for o in FILTERS[:-1]])
        self.up = nn.ModuleList([nn.ConvTranspose2d(i, o, 5, 2) for i, o in zip(ups, outs)])
        self.up_norm = nn.ModuleList([nn.BatchNorm2d(o, 1e-3) for o in outs])
        self.last = nn.Conv2d(1, 2, 4, dilation=2, padding=3)

    def forward(self, x):  # [B, 2, T, F]
        skips, h = [], x
        for i, conv in enumerate(self.down):
            h = conv(F.pad(h, (1, 2, 1, 2)))
            skips.append(h)
            if i < 5:
                h = F.leaky_relu(self.down_norm[i](h), 0.2)
        for i, (conv, norm) in enumerate(zip(self.up, self.up_norm)):
            h = norm(F.relu(conv(h)[..., 1:-2, 1:-2]))
            if i < 5:
                h = torch.cat([skips[4 - i], h], 1)
        return torch.sigmoid(self.last(h)) * x


class Spleeter(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList([Net(), Net()])
        self.register_buffer("window", torch.hann_window(N_FFT))

    def forward(self, audio):  # [2, N] -> two times [2, N]
        spectrum = torch.stft(audio, N_FFT, HOP, window=self.window, return_complex=True)
        spectrum = F.pad(spectrum, (0, FRAMES - spectrum.shape[-1]))
        x = spectrum[:, :BINS].abs().transpose(1, 2)[None]
        y = [net(x) for net in self.nets]
        total = y[0] ** 2 + y[1] ** 2 + 1e-10
        out = []
        for e in y:
            mask = F.pad(((e ** 2 + 5e-11) / total)[0].transpose(1, 2), (0, 0, 0, N_FFT // 2 + 1 - BINS))
            out.append(torch.istft(spectrum * mask, N_FFT, HOP, window=self.window, length=audio.shape[-1]))
        return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--train", action="store_true")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    model = Spleeter().eval()
    if o.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if o.compile:
        for net in model.nets:
            net.compile()
    audio = 0.1 * torch.randn(2, (FRAMES - 1) * HOP)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    seconds = []
    for i in range(o.runs + 1):
        start = time.perf_counter()
        if o.train:
            optimizer.zero_grad()
            loss = sum((y - 0.5 * audio).abs().mean() for y in model(audio))
            loss.backward()
            optimizer.step()
        else:
            with torch.inference_mode():
                model(audio)
        seconds.append(time.perf_counter() - start)
    best = sorted(seconds[1:])
    print(f"torch{' compiled' if o.compile else ''}{' channels last' if o.channels_last else ''}{' training' if o.train else ''}: "
          f"median {best[len(best) // 2]:.3f} s, best {best[0]:.3f} s, peak resident "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
