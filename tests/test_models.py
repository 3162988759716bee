"""Networks: torchvision's topology, exact rewrites, heads that meet only in a sum."""

import pytest
import torch
import torchvision
from torch import nn

from memcomp import models

DIGITS = ("sum", "linear", "two_layer", "cross_channel")


def batch(size, seed=0):
    return torch.rand(size, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rewrite", [True, False])
def test_width_64_is_torchvisions_resnet18(rewrite):
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=5)
    encoder = models.encoder(64, channels=3, rewrite=rewrite)
    unmatched = encoder.load_state_dict(reference.state_dict(), strict=False)
    assert unmatched.missing_keys == []
    assert unmatched.unexpected_keys == ["fc.weight", "fc.bias"]
    reference.fc = nn.Identity()
    x = batch(6)
    for mode in (True, False):
        torch.testing.assert_close(encoder.train(mode)(x), reference.train(mode)(x), rtol=2e-4, atol=2e-4)


def test_initial_weights_are_distributed_as_torchvisions():
    encoder = models.encoder(64, channels=3)
    reference = torchvision.models.resnet18()
    ours, theirs = encoder.state_dict(), reference.state_dict()
    for key, value in ours.items():
        if value.dim() == 4:
            assert float(value.std()) == pytest.approx(float(theirs[key].std()), rel=0.03)
        elif not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, theirs[key])


@pytest.mark.parametrize("architecture", DIGITS)
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_rewrites_are_exact(architecture, stem):
    """Same outputs and gradients in double precision, to rounding."""
    kinds = {}
    for rewrite in (True, False):
        model = models.build(architecture, width=4, stem=stem, rewrite=rewrite, seed=3).double()
        output = model(batch(8).double())
        output.square().sum().backward()
        kinds[rewrite] = output, {name: p.grad for name, p in model.named_parameters()}
    assert kinds[True][1].keys() == kinds[False][1].keys()
    torch.testing.assert_close(kinds[True][0], kinds[False][0], rtol=1e-10, atol=1e-10)
    for name, gradient in kinds[True][1].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, kinds[False][1][name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("architecture", [*DIGITS, "gaussian"])
def test_shapes_and_seeds(architecture):
    x = torch.randn(5, 3, 100) if architecture == "gaussian" else batch(5)
    before = torch.random.get_rng_state()
    first, same, other = (models.build(architecture, width=2, seed=seed).eval() for seed in (1, 1, 2))
    assert (torch.random.get_rng_state() == before).all()
    assert first(x).shape == (5,)
    assert (first(x) == same(x)).all()
    assert (first(x) != other(x)).any()


def test_parameter_counts():
    """Torchvision's 11,176,512 without its last layer; one or three channels change the stem by 6,272."""
    count = {name: sum(p.numel() for p in models.build(name).parameters()) for name in DIGITS}
    assert count["cross_channel"] == 11_176_512 + 513
    assert count["sum"] == count["cross_channel"] - 2 * 64 * 49
    assert count["linear"] == count["sum"] + 2 * 512
    assert count["two_layer"] == 11_176_512 - 2 * 64 * 49 + 512 * 1537 + 513


@pytest.mark.parametrize("architecture", ["sum", "linear", "two_layer", "gaussian"])
def test_parts_add_up_to_the_output(architecture):
    options = {} if architecture == "gaussian" else {"normalise": "apart"}
    options |= {"hidden": 7} if architecture == "two_layer" else {}
    model = models.build(architecture, width=4, seed=1, **options).eval()
    x = torch.randn(6, 3, 100) if architecture == "gaussian" else batch(6)
    total = sum(model.parts(model.encode(x[:, position]))[position] for position in range(3))
    torch.testing.assert_close(model.finish(total), model(x), rtol=1e-4, atol=1e-5)


def test_sum_is_the_sum_of_single_outputs():
    model = models.build("sum", width=4, seed=1).eval()
    x = batch(4)
    single = [model.first(model.encoder(x[:, position, None])).squeeze(-1) for position in range(3)]
    torch.testing.assert_close(model(x), sum(single), rtol=1e-4, atol=1e-5)


def test_gaussian_is_the_additive_two_layer_network():
    model = models.build("gaussian", width=8, dim=10, seed=1)
    x = torch.randn(4, 30)
    first, last = model.encoder[0], model.first
    by_segment = [
        last.weight @ torch.relu(first.weight @ x[:, s : s + 10].T + first.bias[:, None]) + last.bias
        for s in (0, 10, 20)
    ]
    torch.testing.assert_close(model(x.view(4, 3, 10)), sum(by_segment)[0])


def test_only_cross_channel_mixes_images():
    """Swapping one image changes the output by the same amount whatever the partners, except there."""
    x, y = batch(2, seed=1), batch(2, seed=2)
    for name in ("sum", "linear", "cross_channel"):
        model = models.build(name, width=4, seed=1).double().eval()
        change = []
        for partners in (x, y):
            one, two = partners.double(), partners.double().clone()
            one[:, 1], two[:, 1] = x[:, 1], y[:, 1]
            change.append(model(one) - model(two))
        difference = (change[0] - change[1]).abs().max() / change[0].abs().max()
        assert (difference < 1e-10) == (name != "cross_channel")


def test_normalising_together_or_apart_differs_in_training_only():
    x = batch(8)
    x[:, 2] *= 0.1  # unequal positions, so that their statistics differ
    together, apart = (models.build("sum", 4, seed=1, normalise=how) for how in ("together", "apart"))
    torch.testing.assert_close(together.eval()(x), apart.eval()(x))
    assert (together.train()(x) - apart.train()(x)).abs().max() > 1e-3
    assert together.encoder.bn1.num_batches_tracked == 1
    assert apart.encoder.bn1.num_batches_tracked == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "cross-channel"}, "'cross-channel'; choose one of sum, linear"),
        ({"architecture": "sum", "stem": "big"}, "stem is 'big'"),
        ({"architecture": "sum", "normalise": "never"}, "normalise is 'never'"),
        ({"architecture": "attention", "normalise": "apart"}, "attention has no use for normalise='apart'"),
        ({"architecture": "cross_channel", "normalise": "apart"}, "no use for normalise='apart'"),
        ({"architecture": "after_2", "normalise": "apart"}, "no use for normalise='apart'"),
        ({"architecture": "gaussian", "normalise": "apart"}, "no use for normalise='apart'"),
        ({"architecture": "sum", "hidden": 8}, "sum has no use for hidden=8"),
        ({"architecture": "two_layer", "hidden": 0}, "hidden is 0; expected a whole number, at least 1"),
        ({"architecture": "deep_sets", "hidden": 2.0}, "hidden is 2.0; expected"),
        *(
            ({"architecture": "sum", "width": width}, f"width is {width!r}; expected a whole number")
            for width in (-1, 0, 1.5, "8", True, None)
        ),
        ({"architecture": "gaussian", "dim": 0}, "dim is 0; expected"),
        ({"architecture": "sum", "seed": 1.5}, "seed is 1.5; expected"),
    ],
)
def test_unknown_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(**arguments)


# --------------------------------------------------------------------------------------- beyond the paper

LATER = ("after_1", "after_2", "after_3", "after_4")


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_images_meet_after_the_stage_named_and_not_before(depth):
    """What stages before the mixing see of an image does not depend on its partners; what follows does."""
    model = models.build(f"after_{depth}", width=2, seed=1).eval()
    seen = {}
    for number, stage in enumerate(model.encoder._stages(), start=1):
        stage.register_forward_hook(lambda module, inputs, out, number=number: seen.update({number: out}))
    x, other = batch(4, 1), batch(4, 1)
    other[:, 2] = batch(4, 2)[:, 2]
    found = []
    for images in (x, other):
        with torch.no_grad():
            assert model(images).shape == (4,)
        found.append(dict(seen))
    for number in range(1, 5):
        first, second = found[0][number], found[1][number]
        assert len(first) == (12 if number <= depth else 4)
        if number <= depth:
            same = torch.isclose(first, second, atol=1e-5).flatten(1).all(1).unflatten(0, (4, 3))
            assert same[:, :2].all()
            assert not same[:, 2].any()
        else:
            assert not torch.isclose(first, second, atol=1e-6).all()


def test_depth_of_mixing_leaves_the_size_about_equal():
    def size(architecture):
        return sum(p.numel() for p in models.build(architecture, width=8).parameters())

    reference = size("cross_channel")
    for architecture in (*LATER, "linear"):
        assert 0.99 < size(architecture) / reference < 1.08, architecture
    for architecture in ("two_layer", "deep_sets", "attention"):
        assert size(architecture) / reference < 1.25, architecture


@pytest.mark.parametrize("architecture", [*LATER, "deep_sets", "attention"])
def test_later_architectures_learn_and_repeat(architecture):
    model, again = (models.build(architecture, width=2, seed=4) for _ in range(2))
    x = batch(6)
    torch.testing.assert_close(model(x), again(x), rtol=0, atol=0)
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert model.state_dict().keys() == models.build(architecture, width=2, seed=5).state_dict().keys()


@pytest.mark.parametrize("architecture", ["sum", "deep_sets", "attention"])
@pytest.mark.parametrize("vectors", [False, True])
def test_set_heads_take_any_number_in_any_order(architecture, vectors):
    model = models.build(architecture, width=2, seed=0, dim=7, vectors=vectors).eval()
    generator = torch.Generator().manual_seed(1)
    for number in (1, 2, 3, 5):
        shape = (4, number, 7) if vectors else (4, number, 28, 28)
        x = torch.rand(shape, generator=generator)
        torch.testing.assert_close(model(x), model(x.flip(1)), rtol=1e-4, atol=1e-5)
        if architecture == "sum":
            alone = sum(model(x[:, [place]]) for place in range(number))
            torch.testing.assert_close(model(x), alone, rtol=1e-4, atol=1e-5)


def test_attention_averages_where_a_sum_adds():
    """Of more copies of the same images the sum grows, and attention's answer settles."""
    x = batch(4)
    copies = [x.repeat(1, number, 1, 1) for number in (20, 40)]
    answers = {}
    for name in ("attention", "sum"):
        model = models.build(name, width=2, seed=0).eval()
        with torch.no_grad():
            answers[name] = [model(images) for images in copies]
    torch.testing.assert_close(answers["sum"][1], 2 * answers["sum"][0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(*answers["attention"], rtol=0, atol=0.05)


@pytest.mark.parametrize("architecture", ["cross_channel", "after_2"])
def test_architectures_that_mix_images_refuse_vectors(architecture):
    with pytest.raises(ValueError, match="cannot take vectors"):
        models.build(architecture, width=1, vectors=True)
