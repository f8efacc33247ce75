"""NCSN++: its size as published, the laws of its parts, and that speed settings do not change what it computes."""

import math
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.signal import upfirdn
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from difftime.support.streams import stream
from difftime.training.nets.ncsnpp import FEW, FIR, TAPS, Attention, NCSNpp, ResidualBlock, attend, time_features

CIFAR10 = {"channels": 3, "size": 32, "width": 128, "multipliers": (1, 2, 2, 2), "blocks": 4, "attention": (16,)}
MNIST = {"channels": 1, "size": 28, "width": 64, "multipliers": (1, 2), "blocks": 4, "attention": (8,)}
TINY = {"channels": 3, "size": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}


def build(seed: int = 0, dropout: float = 0.0, **settings: object) -> NCSNpp:
    return NCSNpp(**(TINY | settings), dropout=dropout, generator=stream("weights", seed))


def perturbed(model: nn.Module) -> nn.Module:
    """The model with noise on every weight, as after some training: none is near zero."""
    generator = stream("perturbation")
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def inputs(batch: int = 2, channels: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = stream("inputs")
    return torch.randn(batch, channels, size, size, generator=generator), torch.rand(batch, generator=generator)


@pytest.fixture(scope="module", params=["CIFAR-10", "MNIST"])
def published(request: pytest.FixtureRequest) -> tuple[str, NCSNpp]:
    """The networks of the paper, without memory for weights."""
    settings = CIFAR10 if request.param == "CIFAR-10" else MNIST
    return request.param, build(dropout=0.1, **settings).to("meta")


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_published_networks_have_their_number_of_parameters(published: tuple[str, NCSNpp]) -> None:
    name, model = published
    assert count(model) == {"CIFAR-10": 62_693_251, "MNIST": 6_042_689}[name]


@pytest.mark.parametrize(("blocks", "parameters"), [(1, 2_850_305), (2, 3_914_433), (3, 4_978_561)])
def test_fewer_blocks_make_a_smaller_network(blocks: int, parameters: int) -> None:
    assert count(build(**(MNIST | {"blocks": blocks}))) == parameters


def test_a_forward_pass_has_the_published_cost(published: tuple[str, NCSNpp]) -> None:
    """GFLOP an image, a multiplication and its addition counted as two operations."""
    name, model = published
    channels, size = {"CIFAR-10": (3, 32), "MNIST": (1, 28)}[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, channels, size, size, device="meta"), torch.empty(1, device="meta"))
    assert round(counter.get_total_flops() / 1e9, 1) == {"CIFAR-10": 21.8, "MNIST": 3.6}[name]


@pytest.mark.parametrize(
    ("channels", "size", "multipliers"),
    [(1, 28, (1, 2)), (1, 28, (1, 1, 2)), (3, 32, (1, 2, 2, 2)), (1, 2, (1, 2)), (2, 7, (1,))],
)
def test_the_output_has_the_shape_of_the_images(channels: int, size: int, multipliers: tuple[int, ...]) -> None:
    x, t = inputs(2, channels, size)
    assert build(channels=channels, size=size, multipliers=multipliers)(x, t).shape == x.shape


def test_attention_sits_at_its_resolutions_and_in_the_bottleneck() -> None:
    def resolutions(attention: tuple[int, ...], **options: bool) -> list[int]:
        model, seen = build(size=16, multipliers=(1, 2, 2), blocks=2, attention=attention, **options), []
        for module in model.modules():
            if isinstance(module, Attention):
                module.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
        model(*inputs(size=16))
        return seen

    assert resolutions(()) == [4]
    assert resolutions((5,)) == [4]
    assert resolutions((8, 4)) == [8, 8, 4, 4, 4, 4, 8]
    assert resolutions((), bottleneck_attention=False) == []
    assert resolutions((8, 4), bottleneck_attention=False) == [8, 8, 4, 4, 4, 8]


@pytest.mark.parametrize("fourier", [(4,), (4, 5), (0, 6, 7)])
def test_fourier_features_are_seen_by_the_first_convolution_alone(fourier: tuple[int, ...]) -> None:
    plain, model = build(), build(fourier=fourier)
    sizes, plain_sizes = ({name: parameter.shape for name, parameter in of.named_parameters()} for of in (model, plain))
    assert {name for name in sizes if sizes[name] != plain_sizes[name]} == {"first.weight"}
    assert sizes["first.weight"] == (8, 3 * (1 + 2 * len(fourier)), 3, 3)


def test_fourier_features_are_sines_and_cosines_of_the_pixels() -> None:
    x, seen = inputs()[0], []
    model = build(fourier=(4, 5)).double()
    model.first.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(x.double(), inputs()[1].double())
    angles = [x.double().numpy() * math.pi * 2**k for k in (4, 5)]
    expected = np.concatenate([x.double().numpy(), *(f(angle) for angle in angles for f in (np.sin, np.cos))], 1)
    assert np.allclose(seen[0].numpy(), expected, rtol=0, atol=1e-12)


def test_with_fourier_features_bfloat16_tells_differences_far_below_a_grey_level() -> None:
    """x alone, between 0.5 and 1, has steps of 2^-8 in bfloat16; a grey level is 2^-7."""
    x = torch.full((1, 3, 8, 8), -0.996)
    changes = []
    for fourier in ((), (4, 5)):
        model = perturbed(build(fourier=fourier))
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            first, other = (model.first(model._features(x + dx)) for dx in (0.0, 5e-4))
        changes.append((first - other).abs().max().item())
    assert changes[0] == 0
    assert changes[1] > 0


def test_a_new_network_predicts_nothing() -> None:
    x, t = inputs()
    assert build()(x, t).abs().max() < 1e-4


@pytest.mark.parametrize("resample", [None, FIR.down(8), FIR.up(8)])
def test_a_new_block_passes_its_shortcut_on(resample: FIR | None) -> None:
    x, _ = inputs(channels=8)
    block = ResidualBlock(8, 8, c_time=4, dropout=0.0, generator=stream("block"), resample=resample, attention=True)
    shortcut = block.shortcut(x if resample is None else resample(x))
    assert torch.allclose(block(x, torch.ones(2, 4)), shortcut / 2, atol=1e-4)


def test_weights_have_the_variance_of_their_scale() -> None:
    model = build(width=32)
    block, attention = model.middle[0], model.middle[0].attention
    for layer, scale in [(model.embed.first, 1), (block.conv_in, 1), (attention.query, 0.1), (block.conv_out, 1e-10)]:
        c_out, c_in, *kernel = layer.weight.shape
        variance = scale / (math.prod(kernel) * (c_in + c_out) / 2)
        standard_error = variance * math.sqrt(0.8 / layer.weight.numel())  # a uniform variable's kurtosis is 1.8
        assert abs(layer.weight.var().item() - variance) < 4 * standard_error
        assert layer.bias.eq(0).all()


def test_weights_depend_on_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = build(0), build(0), build(1)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again.get_parameter(name)), name
        assert weight.unique().numel() == 1 or not torch.equal(weight, other.get_parameter(name)), name


def test_time_is_embedded_by_its_formula_past_1_too() -> None:
    t, width = 1.7, 16
    angles = [999 * t * math.exp(-i * math.log(10_000) / (width // 2 - 1)) for i in range(width // 2)]
    expected = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
    assert torch.allclose(time_features(torch.tensor([t], dtype=torch.float64), width)[0], expected, atol=1e-11)


def test_times_past_1_are_told_apart() -> None:
    model, x = perturbed(build()), inputs(1)[0].expand(4, -1, -1, -1)
    output = model(x, torch.tensor([1.0, 1.3, 1.7, 2.0])).flatten(1)
    assert torch.pdist(output).min() > 0.01 * output.norm(dim=1).mean()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fir_is_the_polyphase_filter(memory_format: torch.memory_format) -> None:
    x = inputs(size=10)[0].double()

    def filtered(up: int) -> np.ndarray:
        kernel = up * np.array(TAPS)
        return upfirdn(kernel, upfirdn(kernel, x.numpy(), up, axis=-1), up, axis=-2)

    cases = [
        (FIR.down(10), filtered(1)[..., 2:-2:2, 2:-2:2]),
        (FIR.up(10), filtered(2)[..., 1:-1, 1:-1]),
        (FIR.blur(10), filtered(1)[..., 1:-1, 1:-1]),
    ]
    for fir, expected in cases:
        y = fir.double()(x.to(memory_format=memory_format))
        assert y.is_contiguous(memory_format=memory_format)
        assert torch.allclose(y, torch.from_numpy(expected), atol=1e-14)


def test_fir_keeps_a_constant_away_from_the_border() -> None:
    x = torch.ones(1, 1, 8, 8)
    assert FIR.down(8)(x)[..., 1:-1, 1:-1].eq(1).all()
    assert FIR.up(8)(x)[..., 1:-1, 1:-1].eq(1).all()
    assert FIR.blur(8)(x)[..., 2:-2, 2:-2].eq(1).all()
    assert FIR.up(4)(FIR.down(8)(x))[..., 3:-3, 3:-3].eq(1).all()


def test_fir_leaves_nothing_of_a_checkerboard() -> None:
    sign = (-1.0) ** torch.arange(8)
    assert FIR.down(8)(sign[:, None] * sign.expand(1, 1, 8, 8))[..., 1:-1, 1:-1].eq(0).all()


def test_fir_down_follows_a_shift_by_two_pixels() -> None:
    x = torch.zeros(1, 1, 12, 12)
    x[..., 3:7, 3:7] = inputs(1, 1, 4)[0]
    down = FIR.down(12)
    assert torch.allclose(down(x.roll((2, 2), (2, 3))), down(x).roll((1, 1), (2, 3)), atol=1e-6)


def test_fir_up_is_four_times_the_transpose_of_down() -> None:
    x, y = inputs(size=4)[0].double(), inputs(size=8)[0].double()
    up, down = FIR.up(4).double(), FIR.down(8).double()
    assert torch.allclose((up(x) * y).sum(), 4 * (x * down(y)).sum())


@pytest.mark.parametrize("positions", [50, FEW, FEW + 1])
def test_attention_in_bfloat16_has_the_outputs_and_gradients_of_pytorchs_to_its_digits(positions: int) -> None:
    parts = torch.randn(4, 3, positions, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope = parts[3]

    def attended(dtype: torch.dtype) -> list[torch.Tensor]:
        own = [part.to(dtype).requires_grad_() for part in parts[:3]]
        output = attend(*own)
        return [output, *torch.autograd.grad(output, own, slope.to(dtype))]

    for low, exact in zip(attended(torch.bfloat16), attended(torch.float64), strict=True):
        assert (low - exact).norm() < 0.01 * exact.norm()


def test_attention_does_not_know_where_a_position_is() -> None:
    attention, x = perturbed(Attention(8, stream("attention"))), inputs(channels=8)[0]
    order = torch.randperm(64, generator=stream("order"))

    def shuffled(x: Tensor) -> Tensor:
        return x.flatten(2)[:, :, order].unflatten(2, (8, 8))

    assert torch.allclose(attention(shuffled(x)), shuffled(attention(x)), atol=1e-5)
    assert not torch.allclose(attention(x), x / math.sqrt(2), atol=1e-2)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    model, (x, t) = perturbed(build()), inputs(3)
    assert torch.allclose(model(x, t)[1:2], model(x[1:2], t[1:2]), atol=1e-5)


def test_the_gradient_reaches_every_weight() -> None:
    """But for a key's bias: it raises all of a softmax's arguments alike."""
    model = perturbed(build(multipliers=(1, 2, 2), attention=(8, 4)))
    model(*inputs()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert name.endswith("key.bias") or parameter.grad.abs().max() > 1e-6, name


def outputs(model: nn.Module, x: Tensor, t: Tensor) -> list[Tensor]:
    """The network's output, and the gradients of its square by x and by the weights."""
    x = x.clone().requires_grad_()
    y = model(x, t)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), [x, *model.parameters()])]


def test_channels_last_changes_rounding_only() -> None:
    model, (x, t) = perturbed(build()), inputs()
    plain = outputs(model, x, t)
    fast = outputs(model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), t)
    assert fast[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(plain, fast, strict=True):
        assert (one - other).abs().max() <= 1e-4 * max(one.abs().max(), 0.01)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_is_close_to_float32(memory_format: torch.memory_format) -> None:
    """Some hundred roundings by up to 2^-9, adding up at random, make 2 %."""
    model, (x, t) = perturbed(build()).to(memory_format=memory_format), inputs(8)
    x = x.to(memory_format=memory_format)
    exact = outputs(model, x, t)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = outputs(model, x, t)
    for one, other in zip(exact[:2], rounded[:2], strict=True):
        assert (one - other).norm() < 0.04 * one.norm()


def test_float64_computes_throughout() -> None:
    model, (x, t) = perturbed(build()), inputs()
    single, double = model(x, t), model.double()(x.double(), t.double())
    assert double.dtype == torch.float64
    assert torch.allclose(single.double(), double, atol=1e-4)


def test_dropout_acts_in_training_only() -> None:
    (x, t), model = inputs(), perturbed(build(dropout=0.5))
    assert not torch.equal(model.train()(x, t), model(x, t))
    assert torch.equal(model.eval()(x, t), model(x, t))
    assert torch.equal(model(x, t), perturbed(build(dropout=0.0)).train()(x, t))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 28, "multipliers": (1, 2, 2, 2)}, r"size 28 is not divisible by 8.*`multipliers`, or pad"),
        ({"width": 9}, "make `width` even"),
        ({"width": 2}, r"2 channels.*= 0 equal groups. Change `width`"),
        ({"width": 10}, r"30 channels.*= 7 equal groups"),
        ({"width": 132}, r"132 channels.*multiple of 32"),
        ({"multipliers": ()}, "at least one level"),
        ({"multipliers": (1, 0)}, "at least one level"),
        ({"blocks": 0}, "`blocks` to 1 or more"),
        ({"dropout": 1.5}, "dropout probability"),
    ],
)
def test_impossible_shapes_are_refused_by_the_setting_to_change(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_it_compiles_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks of the tests cannot be compiled
    model, (x, t) = perturbed(build()), inputs()
    assert torch.allclose(torch.compile(model, fullgraph=True, backend="eager")(x, t), model(x, t))
    dropping = perturbed(build(dropout=0.3)).train()
    assert torch.compile(dropping, fullgraph=True, backend="eager")(x, t).isfinite().all()


def test_equal_weights_give_equal_outputs_for_good() -> None:
    """What this network, which equals the published one, made of two images in float64 when it was checked.

    The gradient is that of the output's square, with respect to the images.
    """
    stored = load_file(Path(__file__).parent / "data" / "ncsnpp.safetensors")
    settings = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
    model = NCSNpp(3, 8, **settings, dropout=0.1, generator=stream("other weights")).double().eval()
    model.load_state_dict({name.removeprefix("weights/"): of for name, of in stored.items() if "/" in name})
    x = stored["x"].double().requires_grad_()
    output = model(x, stored["t"].double())
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    assert torch.allclose(output, stored["output"], rtol=1e-10, atol=1e-10)
    assert torch.allclose(gradient, stored["gradient"], rtol=1e-10, atol=1e-10)
    single = model.float()(stored["x"], stored["t"])
    assert torch.allclose(single.double(), stored["output"], atol=1e-4)
