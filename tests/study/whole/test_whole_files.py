"""Files of networks that do not tell, or do not tell rightly, how to build them."""

import re

import numpy as np
import pytest
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import FormatError
from hmatrix.study.whole.whole_files import load_whole


def test_networks_that_the_command_cannot_build(tmp_path):
    network = nn.Sequential(hnn.HLinear(hm.quantize(np.eye(4, dtype=np.float32), "int8")))
    hnn.save(network, tmp_path / "file")
    with pytest.raises(hm.HMatrixError, match="does not tell how to build"):
        load_whole(tmp_path / "file")


_OWN = {"resize": 8, "crop": 8, "interpolation": "bicubic", "mean": [0, 0, 0], "std": [1, 1, 1]}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"transformers": 5}, "architecture.transformers of 5, not a string"),
        ({"model": 5}, "architecture.model of 5, not a string"),
        ({"model": "digits"}, "has no architecture.options"),
        ({"model": "digits", "options": 5}, "architecture.options of 5, not values by key"),
        ({"model": "digits", "options": {}}, "has no architecture.preprocessing"),
        ({"model": "digits", "options": {}, "preprocessing": {"crop": 8}}, "has no architecture.preprocessing.resize"),
        ({"model": "m", "options": {}, "preprocessing": _OWN | {"crop": "8"}}, "crop of '8', not a number of pixels"),
        ({"model": "m", "options": {}, "preprocessing": _OWN | {"mean": [1]}}, "mean of [1], not three numbers"),
        ({"model": "m", "options": {}, "preprocessing": _OWN | {"interpolation": 1}}, "of 1, not one of nearest"),
        ({"model": "m", "options": {}, "preprocessing": _OWN | {"more": 1}}, "key architecture.preprocessing.more"),
    ],
)
def test_networks_that_are_not_told_right(told, message, tmp_path):
    network = nn.Sequential(hnn.HLinear(hm.quantize(np.eye(4, dtype=np.float32), "int8")))
    hnn.save(network, tmp_path / "file", told)
    with pytest.raises(FormatError, match=re.escape(message)):
        load_whole(tmp_path / "file")
