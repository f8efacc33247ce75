"""Train a small DDPM with diffusers alone and save it in diffusers' format, to be measured as somebody else's model.

    OMP_NUM_THREADS=1 python benchmarks/foreign_model.py my-ddpm

The network is diffusers' own UNet2DModel of about 164,000 parameters, the data are the 4,000 training images of
mnist5k, dequantised, the table has linear betas, and the loss is the error of the predicted noise.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from difftime.images.readers import load_images
from difftime.support.torchvision import cure_torchvision

BATCH, RATE, DECAY, WARMUP = 32, 2e-3, 0.998, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the model is saved")
    parser.add_argument("--minutes", type=float, default=13.0, help="of one core for the training")
    arguments = parser.parse_args()
    cure_torchvision()
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    images = load_images("mnist5k").train
    network = UNet2DModel(
        sample_size=images.shape[-1], in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(16, 32), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        attention_head_dim=8,
    )  # fmt: skip
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters, {len(images):,} images")
    averages = [parameter.detach().clone() for parameter in network.parameters()]
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    begin, step, mean = time.process_time(), 0, 1.0
    while (done := (time.process_time() - begin) / (60 * arguments.minutes)) < 1:
        optimiser.param_groups[0]["lr"] = RATE * min(1, step / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
        k = images[torch.randint(len(images), (BATCH,))]
        x0 = (k + torch.rand(k.shape)) / 128 - 1
        # times stratified over the batch
        index = ((torch.rand(1) + torch.arange(BATCH) / BATCH) % 1 * 1000).long()
        z = torch.randn_like(x0)
        loss = mse_loss(network(scheduler.add_noise(x0, z, index), index).sample, z)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        decay = min(DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(averages, [parameter.detach() for parameter in network.parameters()], 1 - decay)
        step, mean = step + 1, 0.99 * mean + 0.01 * loss.item()
        if step % 500 == 0:
            print(f"step {step}, loss {mean:.4f}, {100 * done:.0f} %", flush=True)
    with torch.no_grad():
        for parameter, average in zip(network.parameters(), averages, strict=True):
            parameter.copy_(average)
    network.save_pretrained(arguments.folder / "unet")
    scheduler.save_pretrained(arguments.folder / "scheduler")
    (arguments.folder / "training.json").write_text(json.dumps({"steps": step, "loss": mean}))
    print(f"{step} steps, loss {mean:.4f}: {arguments.folder}")


if __name__ == "__main__":
    main()
