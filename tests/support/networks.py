"""A small network, and files of its weights, for the tests of loading."""

import torch

MODEL = "shufflenet_v2_x0_5"


def randomised(module, seed=0):
    """Give statistics and weights values that no constructor would."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(0.8 + 0.8 * torch.rand(tensor.shape, generator=generator)).add_(0.001)
    return module.eval()


def image_batch(side, seed=1):
    return torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(seed))


def write_torch(state, path):
    torch.save(state, path)
    return path
