"""One model of the toy, trained as one would write it down: the baseline of `training.py`, which runs it per seed."""

import sys

import torch
from torch import nn


def main(steps: int, batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    narrow = torch.rand(8192) < 0.3
    data = torch.where(narrow, 1 + 0.1 * torch.randn(8192), 3 + 0.5 * torch.randn(8192))[:, None]
    net = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
    average = [parameter.detach().clone() for parameter in net.parameters()]
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(steps):
        x0 = data[torch.randint(len(data), (batch,))]
        t = 1e-5 + (0.6 - 1e-5) * torch.rand(batch, 1)
        B = 0.1 * t + 0.5 * 19.9 * t**2
        variance = -torch.expm1(-B)
        z = torch.randn_like(x0)
        x_t = torch.exp(-0.5 * B) * x0 + variance.sqrt() * z
        z_hat = net(torch.cat([x_t, t], 1))
        loss = ((0.1 + 19.9 * t) / variance * (z_hat - z) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay = min(0.999, (2 + step) / (11 + step))
        with torch.no_grad():
            for mean, parameter in zip(average, net.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
    torch.save(average, "/dev/null")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
