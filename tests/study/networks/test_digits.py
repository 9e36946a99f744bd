import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from hmatrix.study.networks import digits


@pytest.fixture(scope="module")
def network():
    return digits.train()


def accuracy(network, weight):
    """Top-1 on the held-out half, in NumPy, with another hidden weight."""
    images, labels = digits.held_out()
    hidden = np.maximum(images.numpy() @ network.fc1.weight.numpy().T + network.fc1.bias.numpy(), 0)
    hidden = np.maximum(hidden @ weight.T + network.fc2.bias.numpy(), 0)
    scores = hidden @ network.fc3.weight.numpy().T + network.fc3.bias.numpy()
    return (scores.argmax(axis=1) == labels).mean()


def test_halves_are_all_digits_once():
    pixels, labels = load_digits(return_X_y=True)
    (train_images, train_labels), (test_images, test_labels) = digits.training(), digits.held_out()
    assert len(train_images) == 898
    assert len(test_images) == 899
    together = np.column_stack([np.concatenate([train_images, test_images]) * 16, [*train_labels, *test_labels]])
    expected = np.column_stack([pixels, labels])
    assert sorted(map(tuple, together)) == sorted(map(tuple, expected))


def test_inputs_are_plain():
    images, labels = digits.held_out()
    assert images.dtype == torch.float32
    assert labels.dtype == np.int64
    assert images.shape[1] == digits.PIXELS
    assert images.min() == 0
    assert images.max() == 1


def test_network_is_ready(network):
    layer = network.get_submodule(digits.LAYER)
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (1024, 1024)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_accuracy_depends_on_the_rank(network):
    weight = network.fc2.weight.numpy()
    u, s, v = np.linalg.svd(weight)
    reached = {rank: accuracy(network, (u[:, :rank] * s[:rank]) @ v[:rank]) for rank in (0, 1, 2, 4, 6, 20)}
    whole = accuracy(network, weight)
    assert whole >= 0.96
    assert reached[0] < 0.15
    assert reached[0] < reached[1] < reached[2] < reached[4] < reached[6] < whole
    assert reached[2] < 0.6
    assert reached[20] == pytest.approx(whole, abs=0.005)


def test_training_is_repeatable_and_leaves_no_trace(network):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    try:
        with torch.inference_mode():
            again = digits.train()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
