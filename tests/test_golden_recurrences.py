"""Worked examples of the RWKV recurrences, each reproduced by the published code to better than 3e-7."""

from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp.operations import Mixes, Prompts
from wkvnp.operations.numpy_oracle import Oracle
from wkvnp.primitives.norm import group_norm

DIGITS = 1e-8
R = np.array([[0.5, -1], [1, 0.25], [-0.75, 2]])
K = np.array([[1, 0.5], [-0.5, 2], [0.25, -1]])
V = np.array([[2, -1], [0.5, 1.5], [-1, 1]])
LN_X = np.array([1.1, 0.9]), np.array([0.05, -0.1])
r, k, v = R[:, None], K[:, None], V[:, None]
pytestmark = pytest.mark.interpreted


def after_norm(y: np.ndarray) -> np.ndarray:
    return group_norm(y.reshape(3, 2), *LN_X, 1, 64e-5)


def close(actual: np.ndarray, expected: list[object]) -> None:
    np.testing.assert_allclose(np.squeeze(actual), expected, rtol=0, atol=DIGITS)


def test_rwkv4() -> None:
    k4, v4 = np.array([[0.1, -1], [1.2, 0.4], [-0.7, 2]]), np.array([[1, 2], [-1, 0.5], [0.25, -1.5]])
    y, state = wkvnp.rwkv4(-np.exp([-1.0, 0.5]), k4, v4, [0.5, -0.3])
    close(y, [[1, 2], [-0.664036770, 0.874609842], [-0.479304086, -1.040788922]])
    close(state.aa, [-0.715567183, -1.476906075])
    close(state.bb, [1.446490550, 1.040664828])
    close(state.pp, [0.832120559, 2])
    close(state.aa * np.exp(state.pp), [-1.644507209, -10.912941843])
    close(state.bb * np.exp(state.pp), [3.324305803, 7.689530797])


def test_rwkv5_with_one_decay_a_head() -> None:
    y, state = wkvnp.rwkv5(r, -np.exp([-0.5]), k, v, np.exp([-0.2]))
    close(y, [[0, 0], [2.25, -1.125], [4.251093128, 4.635216675]])
    close(state, [[0.208261793, -0.456215207], [1.842525010, 0.487074737]])
    close(after_norm(y), [[0.05, -0.1], [1.149876410, -0.999898881], [-1.040579933, 0.792292672]])


def test_rwkv5_with_a_decay_a_channel() -> None:
    y, state = wkvnp.rwkv5(r, -np.exp([[-1, 0.25]]), k, v, [[0.3, -0.6]])
    close(y, [[0.9, -0.45], [2.025, -1.8], [0.559289727, 7.948480137]])
    close(state, [[0.535233261, -0.748292179], [1.353605206, -0.207581433]])
    close(after_norm(y), [[1.149228248, -0.999368566], [1.149903776, -0.999921271], [-1.049974213, 0.799978902]])


def test_rwkv6() -> None:
    d = np.array([[-1, 0.25], [0.5, -2], [-0.3, 1.1]])[:, None]
    y, state = wkvnp.rwkv6(r, -np.exp(d), k, v, [[0.3, -0.6]])
    close(y, [[0.9, -0.45], [2.025, -1.8], [2.502152569, 6.977048716]])
    close(state, [[-0.185837143, -0.199214658], [1.092884474, -0.872911937]])
    close(after_norm(y), [[1.149228248, -0.999368566], [1.149903776, -0.999921271], [-1.049929694, 0.799942477]])


def test_rwkv7() -> None:
    omega = np.array([[0.5, -1], [2, 0], [-3, 1.5]])
    a = np.array([[0.5, 0.25], [0.9, 0.1], [0.3, 0.8]])
    kappa = K * [0.8, 1.5]
    kappa /= np.linalg.norm(kappa, axis=1, keepdims=True)
    close(kappa[1], [-0.132163720, 0.991227901])
    keys = (K * (1 + (a - 1) * [1, 0.5]))[:, None]
    log_decay = -np.exp(-0.5) / (1 + np.exp(-omega))
    y, state = wkvnp.rwkv7(r, log_decay[:, None], keys, v, -kappa[:, None], (kappa * a)[:, None])
    close(y, [[-0.125, 0.0625], [0.659888135, -0.636194067], [1.270986520, -1.896068999]])
    close(np.squeeze(state).T, [[0.367864815, 0.773442566], [-0.831820819, -1.259967307]])
    close(after_norm(y), [[-1.012012686, 0.768919470], [1.149162776, -0.999314999], [1.149859651, -0.999885169]])


@pytest.mark.parametrize("executor", [Prompts, Oracle])
def test_data_dependent_mixture_of_rwkv6(executor: Any) -> None:
    w1 = np.array([[0.1, -0.2, 0.3, 0.4, -0.5], [0.5, 0.4, -0.3, 0.2, 0.1]])
    w2 = np.array([[0.2, -0.1], [0.3, 0.4], [-0.5, 0.6], [0.7, -0.8], [0.9, 1]])[:, None]
    share = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8], [0.9, 1]])
    x, previous, o = np.array([[1.0, -2.0]]), np.array([[0.5, 1.0]]), executor(None, np.array([0, 1]))
    (x_x,) = o.mix(x, previous, Mixes(("x_x",), np.array([[0.5, 0.25]])))
    moved = o.low_rank_groups("moved", x_x, w1, w2, "tanh")
    mixed = o.mix(x, previous, Mixes(tuple("wkvrg"), share), moved)
    m = [mixture.computed() if executor is Prompts else mixture for mixture in mixed]
    close(
        np.concatenate(m),
        [
            [1.000052021, -1.249843937],
            [0.935750495, -1.486003959],
            [0.884262392, 0.766689221],
            [0.632514569, 0.280099900],
            [0.757952721, -0.386351472],
        ],
    )
