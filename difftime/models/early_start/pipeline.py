"""Samples of a diffusion model from an early start, by DPM-Solver++(2M) or DDIM in steps of equal log(sigma²/alpha²).

pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
images = pipe(batch_size=16, num_inference_steps=20).images
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor


class EarlyStartPipeline(DiffusionPipeline):
    """Starts from `prior` at its index instead of from pure noise at the last one, and ends at index 0."""

    def __init__(self, unet: Any, scheduler: Any, prior: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, prior=prior)

    def levels(self) -> tuple[Tensor, Tensor]:
        """alpha and sigma of every index, in float64."""
        log_signal = torch.log1p(-self.scheduler.betas.double().cpu()).cumsum(0)
        return (0.5 * log_signal).exp(), (-torch.expm1(log_signal)).sqrt()

    def indices(self, steps: int) -> list[int]:
        """The ends of the steps: from T to 0, as equal in log(sigma²/alpha²) as whole indices allow."""
        alpha, sigma = self.levels()
        level = 2 * (sigma / alpha).log()
        wanted = torch.linspace(level[self.prior.config.index], level[0], steps + 1, dtype=torch.float64)
        nearest = (level - wanted[:, None]).abs().argmin(1).tolist()
        return sorted(set(nearest), reverse=True)

    def noise(self, x: Tensor, index: int, alpha: float, sigma: float) -> Tensor:
        """The network's estimate of the noise in x."""
        output = self.unet(x, torch.tensor(float(index), device=x.device)).sample[:, : x.shape[1]]
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return output
        return alpha * output + sigma * x if kind == "v_prediction" else (x - alpha * output) / sigma

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        num_inference_steps: int = 20,
        generator: torch.Generator | None = None,
        z: Tensor | None = None,
        sampler: Literal["dpm_solver_2m", "ddim"] = "dpm_solver_2m",
        output_type: Literal["pil", "np", "latent"] = "pil",
    ) -> ImagePipelineOutput:
        """`z`: standard normal numbers [n, channels, height, width] to start from; else drawn by the generator."""
        if sampler not in ("dpm_solver_2m", "ddim"):
            raise ValueError(f"The sampler is dpm_solver_2m or ddim, not {sampler!r}.")
        if z is None:
            shape = (batch_size, *self.prior.config.shape)
            place = self.device if generator is None else generator.device
            z = torch.randn(shape, generator=generator, device=place)
        x = self.prior(z.to(self.device, self.unet.dtype))
        alphas, sigmas = (part.tolist() for part in self.levels())
        before, step_before = None, None
        indices = self.indices(num_inference_steps)
        for here, there in self.progress_bar(list(pairwise(indices))):
            alpha, sigma = alphas[here], sigmas[here]
            data = middle = (x - sigma * self.noise(x, here, alpha, sigma)) / alpha
            step = torch.tensor(sigmas[there] / alphas[there] / (sigma / alpha), dtype=torch.float64).log().item()
            if before is not None and sampler == "dpm_solver_2m":
                middle = data + (data - before) * step / step_before / 2
            x = sigmas[there] / sigma * (x - alpha * middle) + alphas[there] * middle
            before, step_before = data, step
        if output_type == "latent":
            return ImagePipelineOutput(images=x)
        levels = ((x - self.prior.config.start) / self.prior.config.width).clamp(0, 255).floor() / 255
        pictures = levels.permute(0, 2, 3, 1).float().cpu().numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(pictures) if output_type == "pil" else pictures)
